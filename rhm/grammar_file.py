"""Grammars as JSON: what :meth:`rhm.RandomHierarchyModel.to_json` writes, looked at before a grammar is made of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rhm.errors import InvalidInput
from rhm.frequencies import checked_frequencies
from rhm.task import Task

TASK = ("v", "n", "m", "s", "L")
KEYS = (*TASK, "grammars")
FREQUENCIES = "frequencies"
"""The one key that may be left out."""


@dataclass(frozen=True)
class GrammarFile:
    """The content of a file of grammars.

    Attributes:
        task: of all of them.
        frequencies: of the rules of levels where they are not equal, see :mod:`rhm.frequencies`.
        seeds, data_seeds: of each.
        rules: for each level from 1 the tuples of its symbols, int64 ``[R, symbols, m, s]``.
    """

    task: Task
    frequencies: dict[int, tuple[float, ...]]
    seeds: list[int]
    data_seeds: list[int]
    rules: dict[int, Tensor]

    @property
    def fingerprint(self) -> str:
        """16 letters that tell these grammars from others, whatever their seeds and however the file is written."""
        content = [vars(self.task), {level: rules.tolist() for level, rules in self.rules.items()}, self.frequencies]
        return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).hexdigest()


def read_grammar(path: str) -> GrammarFile:
    """The one grammar of a file.

    Raises:
        InvalidInput: there is no such file, it is no JSON, has several grammars or one that cannot be, see
            :func:`parsed_grammars`; the key is ``grammar``.
    """
    file = Path(path)
    if not file.is_file():
        raise InvalidInput("grammar", path, "a file that exists")
    try:
        found = parsed_grammars(file.read_text(encoding="utf-8"))
    except InvalidInput as error:
        raise InvalidInput("grammar", f"{path} with {error.key}: {error.got}", error.allowed) from error
    except (OSError, ValueError) as error:
        got = f"{path} ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
        raise InvalidInput("grammar", got, "a whole JSON file, as `rhm describe --json=FILE` writes it") from error
    if len(found.seeds) != 1:
        raise InvalidInput("grammar", f"{path} with {len(found.seeds)} grammars", "a file with one, which all replicas have")
    return found


def parsed_grammars(document: str) -> GrammarFile:
    """The grammars of a JSON document.

    Raises:
        ValueError: it is not JSON.
        InvalidInput: an impossible task; a level, a symbol, a rule or a seed that is missing or too much; a tuple of another
            length, with a symbol outside of the vocabulary, or owned twice; frequencies that do not sum to 1.
    """
    try:
        content = json.loads(document)
    except RecursionError:
        raise ValueError("too many levels") from None
    if not isinstance(content, dict) or content.keys() - {FREQUENCIES} != {*KEYS}:
        got = ", ".join(content) or "nothing" if isinstance(content, dict) else _short(content)
        raise InvalidInput("keys", got, f"{', '.join(KEYS)} and, where rules are not equally frequent, {FREQUENCIES}")
    task, grammars = Task(*(content[key] for key in TASK)), content["grammars"]
    if not isinstance(grammars, list) or not grammars or not all(isinstance(grammar, dict) for grammar in grammars):
        raise InvalidInput("grammars", _short(grammars), "a list of one or more, each with its rules")
    seeds, data_seeds = ([_seed(name, grammar.get(name, 0)) for grammar in grammars] for name in ("seed", "data_seed"))
    owned = [_rules(task, grammar.get("rules")) for grammar in grammars]
    rules = {level: torch.stack([of_grammar[level] for of_grammar in owned]) for level in range(1, task.L + 1)}
    return GrammarFile(task, _frequencies(task, content.get(FREQUENCIES, {})), seeds, data_seeds, rules)


def _frequencies(task: Task, given: Any) -> dict[int, tuple[float, ...]]:
    """By level."""
    levels = {f"level {level}": level for level in range(task.L, 0, -1)}
    if not isinstance(given, dict) or not given.keys() <= levels.keys():
        got = ", ".join(given) if isinstance(given, dict) else _short(given)
        raise InvalidInput(FREQUENCIES, got, f"some of {', '.join(levels)}, each with m={task.m} numbers that sum to 1")
    return checked_frequencies(task, {levels[name]: numbers for name, numbers in given.items()})


def _seed(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise InvalidInput(name, _short(value), "an integer in [0, 2**63)")
    return value


def _rules(task: Task, rules: Any) -> dict[int, Tensor]:
    """The rules of one grammar, by level."""
    names = [f"level {level}" for level in range(task.L, 0, -1)]
    if not isinstance(rules, dict) or rules.keys() != {*names}:
        got = ", ".join(map(str, rules)) or "nothing" if isinstance(rules, dict) else _short(rules)
        raise InvalidInput("rules", got, f"{names[0]} to {names[-1]}" if task.L > 1 else names[0])
    return {level: _level(task, level, rules[f"level {level}"]) for level in range(1, task.L + 1)}


def _level(task: Task, level: int, owned: Any) -> Tensor:
    """The tuples of a level's symbols, ``[symbols, m, s]``."""
    name, symbols = f"level {level}", task.symbols(level)
    if not isinstance(owned, dict) or owned.keys() != {*map(str, range(symbols))}:
        got = f"symbols {', '.join([*owned][:20]) or 'none'}" if isinstance(owned, dict) else _short(owned)
        raise InvalidInput(name, got, f"the symbols 0 to {symbols - 1}, each with its rules")
    owner: dict[tuple[int, ...], tuple[str, int]] = {}
    for symbol, tuples in owned.items():
        if not isinstance(tuples, list) or len(tuples) != task.m:
            got = f"{len(tuples)} rules" if isinstance(tuples, list) else _short(tuples)
            raise InvalidInput(name, f"{got} of symbol {symbol}", f"m={task.m} rules of each symbol")
        for rule, children in enumerate(tuples):
            if not isinstance(children, list) or len(children) != task.s:
                raise InvalidInput(name, f"{_short(children)} of symbol {symbol}", f"tuples of s={task.s} symbols")
            if not all(type(child) is int and 0 <= child < task.v for child in children):
                raise InvalidInput(name, f"{_short(children)} of symbol {symbol}", f"symbols in [0, {task.v})")
            first = owner.setdefault(tuple(children), (symbol, rule))
            if first != (symbol, rule):
                got = f"{children}, a tuple that is owned twice, by symbols {first[0]} and {symbol}"
                raise InvalidInput(name, got, "distinct tuples")
    return torch.tensor([owned[str(symbol)] for symbol in range(symbols)])


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

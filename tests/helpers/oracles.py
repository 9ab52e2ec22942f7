"""Plain-Python answers that the tests compare with, and a chi-square test. Nothing here calls the code under test.

Shape suffixes: R replica, B batch, D position.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

FALSE_ALARM = 1e-6
"""Probability that one chi-square test rejects numbers that are random indeed. There are some 200 of them."""

Rules = dict[int, list[list[tuple[int, ...]]]]
"""For each level the tuples of each symbol."""

Levels = tuple[tuple[int, ...], ...]
"""Symbols of one string at levels ``0..L``."""


def rules_of(model, r: int = 0) -> Rules:
    """The rules of one replica as lists."""
    return {
        level: [[tuple(t) for t in tuples] for tuples in model.rules(level)[r].tolist()] for level in range(1, model.task.L + 1)
    }


def subtrees(rules: Rules, level: int, symbol: int) -> list[Levels]:
    """All derivations from a symbol of a level, by expanding the rules from the top."""
    if level == 0:
        return [((symbol,),)]
    found = []
    for children in rules[level][symbol]:
        for parts in product(*(subtrees(rules, level - 1, child) for child in children)):
            below = tuple(sum((part[l] for part in parts), ()) for l in range(level))
            found.append((*below, (symbol,)))
    return found


def derivations(rules: Rules) -> list[Levels]:
    """All derivations of a grammar."""
    top = max(rules)
    return [levels for symbol in range(len(rules[top])) for levels in subtrees(rules, top, symbol)]


def parse_all(rules: Rules, strings) -> list[tuple[Levels, Levels]]:
    """Symbols at levels ``0..L`` and rule choices at levels ``1..L``, from the leaves up; ``KeyError`` for no such string."""
    owners = {
        level: {t: (symbol, choice) for symbol, tuples in enumerate(rules[level]) for choice, t in enumerate(tuples)}
        for level in sorted(rules)
    }
    s, parsed = len(rules[1][0][0]), []
    for tokens in strings:
        levels, choices = [tuple(tokens)], []
        for owner in owners.values():
            found = [owner[levels[-1][at : at + s]] for at in range(0, len(levels[-1]), s)]
            levels.append(tuple(symbol for symbol, _ in found))
            choices.append(tuple(choice for _, choice in found))
        parsed.append((tuple(levels), tuple(choices)))
    return parsed


def is_derived(rules: Rules, all_levels: list[Levels]) -> bool:
    """Whether the symbols of all levels are those that a parser finds from the tokens."""
    return [levels for levels, _ in parse_all(rules, [levels[0] for levels in all_levels])] == all_levels


def strings(tokens_BD: Tensor) -> list[tuple[int, ...]]:
    """Strings that can be compared and counted."""
    return [tuple(string) for string in tokens_BD.tolist()]


def levels_of(derivation, r: int = 0) -> list[Levels]:
    """Symbols of all levels, string by string, of one replica."""
    return list(zip(*(strings(symbols[r]) for symbols in derivation.symbols), strict=True))


def choices(model, derivation) -> list[Tensor]:
    """Rule choices at levels ``1..L``, ``[R, B, D]``, looked up in a table of all tuples."""
    task, found = model.task, []
    for level in range(1, task.L + 1):
        weights = torch.tensor([task.v**j for j in range(task.s)])
        owner_RT = torch.full((model.replicas, task.v**task.s), -1)
        codes_RVM = (model.rules(level).long() * weights).sum(-1)
        for r in range(model.replicas):
            owner_RT[r, codes_RVM[r].flatten()] = torch.arange(codes_RVM[r].numel())
        tuples = derivation.symbols[level - 1].long().unflatten(-1, (-1, task.s))
        row = owner_RT.gather(1, (tuples * weights).sum(-1).flatten(1)).view(derivation.symbols[level].shape)
        assert row.min() >= 0, "a tuple that no symbol owns"
        assert torch.equal(row // task.m, derivation.symbols[level].long())
        found.append(row % task.m)
    return found


def tail(statistic: float, freedom: int) -> float:
    """Probability that chi-square with so many degrees of freedom is above the statistic."""
    half = torch.tensor([freedom / 2, statistic / 2], dtype=torch.float64)
    return torch.special.gammaincc(half[0], half[1]).item()


def assert_uniform(x: Tensor, cells: int, groups: int = 1, fixed: bool = False) -> None:
    """Chi-square test that integers in ``[0, groups * cells)`` are uniform over the cells within each group.

    Both tails are tested, so that numbers that are more even than random ones fail, too, unless ``fixed`` says that they
    are drawn without replacement from so few that they must be.
    """
    x = x.flatten().long()
    assert x.min() >= 0 and x.max() < groups * cells
    counts = torch.bincount(x, minlength=groups * cells).view(groups, cells).double()
    expected = counts.sum(1, keepdim=True) / cells
    assert expected.min() >= 5, "too few numbers for a chi-square test"
    p = tail(((counts - expected).square() / expected).sum().item(), groups * (cells - 1))
    assert p > FALSE_ALARM, f"p = {p:.1e}"
    assert fixed or p < 1 - FALSE_ALARM, f"more even than random, 1 - p = {1 - p:.1e}"

"""The Random Hierarchy Model (Cagnetta, Petrini, Tomasini, Favero, Wyart, PRX 14, 031001, 2024).

Shape suffixes: R replica, B batch, D position, S position within a tuple, A drawn string, J choice of a string.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import SupportsIndex

import torch
from torch import Tensor, nn

from rhm.derivation import Derivation
from rhm.errors import InvalidInput, InvalidString
from rhm.frequencies import (
    NUMBERS,
    Frequencies,
    checked_frequencies,
    drawn_rules,
    other_rules,
    rule_ends,
    side_of_number,
    side_of_string,
)
from rhm.grammar_file import parsed_grammars
from rhm.hashing import below, fold, integer, permutation, scramble, seed_keys, signed
from rhm.memory import check_memory
from rhm.task import Task

DENSE_TUPLES = 2**20  # up to here all v**s tuples are shuffled, above tuples are drawn until enough are distinct
CHUNK = 2**21  # tokens that are sampled at once: a bound on memory
TABLE_ROWS = 2**13  # of the tables of subtrees, a few for each replica, so that they stay in the cache too
EXACT_BITS = 50  # numbers below 2**50 are split into digits exactly by float64 products, faster than by integer division


class RandomHierarchyModel(nn.Module):
    """``R`` random grammars of one task and the strings they produce.

    A symbol of level ``l`` in ``1..L`` owns ``m`` tuples of ``s`` symbols of level ``l-1``, and no tuple of a level is owned
    twice. A string is a class and one rule choice in ``[0, m)`` at every internal node, so that strings can be numbered:
    string ``i`` is a pure function of (grammar seed, data seed, ``i``), through a keyed bijection of ``[0, index_range)``.
    Where ``P_max`` fits in 63 bits it is the ``index_range``, and every string is reached exactly once. Otherwise the bijection
    decides the nodes next to the root, as many as fit, and a hash of (data seed, ``i``, subtree) decides the others: strings
    of different number still differ.

    Where rules have unequal frequencies a number is that of a draw, string ``i`` a pure function of the same three still, and
    some strings have several numbers, see :mod:`rhm.frequencies`.

    Args:
        v, n, m, s, L: see :class:`rhm.task.Task`.
        seeds: one grammar for each; their number is the number of replicas ``R``.
        data_seeds: the order in which strings are numbered, one for each replica; the grammar's seeds by default.
        frequencies: for levels whose rules are not equally frequent those of a symbol's ``m`` rules, in their order.

    Attributes:
        index_range: how many numbers there are.

    Raises:
        InvalidInput: an impossible task, no seed, a negative seed, two lists of seeds of unequal length, grammars that do
            not fit into the memory that is free, or frequencies that :func:`rhm.frequencies.checked_frequencies` refuses.
    """

    def __init__(
        self,
        v: int,
        n: int,
        m: int,
        s: int,
        L: int,
        seeds: Sequence[int] = (0,),
        data_seeds: Sequence[int] | None = None,
        frequencies: Frequencies | None = None,
    ):
        super().__init__()
        self.task = Task(v, n, m, s, L)
        self.frequencies = checked_frequencies(self.task, frequencies or {})
        data_seeds = list(seeds) if data_seeds is None else list(data_seeds)
        for key, given in ("seeds", list(seeds)), ("data_seeds", data_seeds):
            if not given or any(not 0 <= seed < 2**63 for seed in given):
                raise InvalidInput(key, given, "one integer in [0, 2**63) or more")
        if len(data_seeds) != len(seeds):
            raise InvalidInput("data_seeds", f"{len(data_seeds)} seeds", f"as many as seeds, {len(seeds)}")
        self._check_memory(len(seeds))
        self.seeds_R: Tensor
        self.data_seeds_R: Tensor
        self.string_keys_R1: Tensor
        self.register_buffer("seeds_R", torch.tensor(list(seeds)))
        self.register_buffer("data_seeds_R", torch.tensor(data_seeds))
        dtype = next(t for t in (torch.uint8, torch.int16, torch.int32, torch.int64) if max(v, n, m) - 1 <= torch.iinfo(t).max)
        keys_R = seed_keys(self.seeds_R, "grammar")
        for level in range(1, L + 1):
            self.register_buffer(f"rules_{level}", _draw_rules(self.task, level, keys_R).to(dtype))
        for level, of_level in self.frequencies.items():
            self.register_buffer(f"rule_ends_{level}", rule_ends(of_level), persistent=False)
        self._prepare()
        self.register_load_state_dict_post_hook(_prepare_again)

    def _check_memory(self, replicas: int) -> None:
        """Refuse tables that do not fit: all levels' rules, twice, and one level's while they are drawn, in eight bytes."""
        task = self.task
        rules = [task.symbols(level) * task.m for level in range(1, task.L + 1)]
        need = 2 * replicas * task.s * sum(rules) + 8 * max(rules) * (replicas * (2 * task.s + 3) + 24)
        sizes = {"seeds": replicas, "v": task.v if task.L > 1 else 1, "n": task.n, "m": task.m}
        key = max(sizes, key=lambda key: sizes[key])
        got = f"{replicas} seeds" if key == "seeds" else sizes[key]
        check_memory(key, got, f"the grammars of v={task.v}, n={task.n}, m={task.m}, s={task.s}, L={task.L}", need)

    def rules(self, level: int) -> Tensor:
        """The tuples of level ``level - 1`` that the symbols of a level own: ``[R, symbols, m, s]``."""
        return self.get_buffer(f"rules_{level}")

    @property
    def replicas(self) -> int:
        """Number of grammars."""
        return len(self.seeds_R)

    # ---------------------------------------------------------------- strings

    def sample(self, i: Tensor) -> Derivation:
        """The strings of given numbers, with the symbols of every level.

        Args:
            i: int64 numbers in ``[0, index_range)``, ``[R, B]``, or ``[B]`` for the same numbers in every replica.

        Raises:
            InvalidInput: a number out of range; looked at on the CPU only, elsewhere it would make the host wait.
        """
        if i.device.type == "cpu" and i.numel() and not (int(i.min()) >= 0 and int(i.max()) < self.index_range):
            raise InvalidInput("i", f"numbers from {int(i.min())} to {int(i.max())}", f"numbers in [0, {self.index_range})")
        i_RB = i.to(self.seeds_R.device).expand(self.replicas, -1)
        step = max(1, CHUNK // (self.task.length * self.replicas))
        parts = [self._drawn(chunk) if self.frequencies else self._sample(chunk) for chunk in i_RB.split(step, dim=1)]
        if len(parts) == 1:
            return parts[0]
        return Derivation(tuple(torch.cat(level, 1) for level in zip(*(p.symbols for p in parts), strict=True)))

    def _sample(self, i_RB: Tensor) -> Derivation:
        task = self.task
        key_R1 = self.string_keys_R1
        number_RB, bound = permutation(i_RB, self.index_range, key_R1), self.index_range
        joint_choices = []
        for top, depth, numbered in self._layers[:0:-1]:  # the lowest digits belong to the leaves
            base, width = self._combinations(depth), task.width(top)
            joint, number_RB = split_digits(number_RB, base, numbered, bound)
            bound //= base**numbered
            if numbered < width:
                place = torch.arange(numbered, width, device=i_RB.device)
                bits = scramble(fold(key_R1, "subtree", top) + scramble(i_RB))[..., None] + scramble(place)
                joint = torch.cat([joint, below(scramble(bits), base).to(torch.int32)], -1)
            joint_choices.append(joint)
        row_RBD = number_RB.to(torch.int32)[..., None]
        symbols = [self._look_up(task.L, 0, row_RBD)]
        for top, depth, _ in self._layers:
            if top < task.L:
                row_RBD = torch.add(joint_choices.pop(), symbols[-1].to(torch.int32), alpha=self._combinations(depth))
            symbols += [self._look_up(top, down, row_RBD) for down in range(1, depth + 1)]
        return Derivation(tuple(symbols[::-1]))

    def _drawn(self, i_RB: Tensor) -> Derivation:
        """Strings by the frequencies of their rules: each is drawn until it is of the side that its number asks for."""
        task, (R, B) = self.task, i_RB.shape
        key_A = fold(self.string_keys_R1, "draws", i_RB).flatten()
        split_A = fold(self.string_keys_R1, "sides").expand(R, B).flatten()
        side_A, wanted = side_of_number(i_RB).flatten(), torch.arange(R * B, device=i_RB.device)
        choices_AJ = torch.empty(R * B, 1 + task.nodes, dtype=torch.int32, device=i_RB.device)
        attempt = 0
        while len(wanted):
            drawn = self._draw_choices(fold(key_A[wanted], attempt))
            fits = side_of_string(drawn, split_A[wanted]) == side_A[wanted]
            choices_AJ[wanted[fits]] = drawn[fits]
            wanted, attempt = wanted[~fits], attempt + 1
        widths = [1, *(task.width(level) for level in range(1, task.L + 1))]
        y_RB1, *choices = choices_AJ.view(R, B, sum(widths)).split(widths, 2)
        return self._expand((y_RB1.to(self.rules(1).dtype),), choices)

    def _draw_choices(self, key_A: Tensor) -> Tensor:
        """Class and rules of the nodes of levels 1 to L of one string for each key, int32 ``[A, J]``."""
        widths = [self.task.width(level) for level in range(1, self.task.L + 1)]
        bits = scramble(key_A[:, None] + scramble(torch.arange(1 + sum(widths), device=key_A.device)))
        of_class, *of_levels = bits.split([1, *widths], 1)
        rules = [self._rules_by(of_level, level) for level, of_level in enumerate(of_levels, 1)]
        return torch.cat([below(of_class, self.task.n), *rules], 1).to(torch.int32)

    def _rules_by(self, bits: Tensor, level: int) -> Tensor:
        """Rules of symbols of a level by their frequencies, from random bits."""
        if level not in self.frequencies:
            return below(bits, self.task.m)
        return drawn_rules(bits, self.get_buffer(f"rule_ends_{level}"))

    def _look_up(self, top: int, down: int, row_RBD: Tensor) -> Tensor:
        """Symbols ``down`` levels below the roots of subtrees, ``[R, B, D * s**down]``."""
        table = self.get_buffer(f"subtree_{top}_{down}")
        return take_rows(table, row_RBD, len(table) // self.replicas)

    def _combinations(self, depth: int) -> int:
        """In how many ways a subtree of some depth can be derived from its root symbol."""
        nodes = sum(self.task.s**down for down in range(depth))
        return int(self.task.m**nodes)

    def _prepare(self) -> None:
        """Cut derivations into layers of subtrees that are looked up whole, and derive every subtree once.

        ``_layers`` holds, from the root down, each layer's level, depth, and how many of its subtrees the string's number
        decides. Row ``symbol * combinations + joint choice`` of ``subtree_{level}_{down}`` are the symbols ``down`` levels
        below the subtree's root.
        """
        task, rules, R = self.task, self.rules(1), self.replicas
        self.register_buffer("string_keys_R1", seed_keys(self.data_seeds_R, "strings")[:, None], persistent=False)
        depth = 1
        while (
            depth < task.L
            and max(task.v, task.n) * self._combinations(depth + 1) <= TABLE_ROWS
            and task.s ** (depth + 1) * rules.element_size() <= 8
        ):
            depth += 1
        edges = [0, *range(depth, task.L, depth), task.L][::-1]
        self._layers, self.index_range = [], task.n
        for top, bottom in pairwise(edges):
            base, numbered = self._combinations(top - bottom), 0
            while numbered < task.width(top) and (base == 1 or self.index_range * base < 2**63):
                numbered, self.index_range = numbered + 1, self.index_range * base
            self._layers.append((top, top - bottom, numbered))
            row = torch.arange(task.symbols(top) * base, device=rules.device).expand(R, -1)
            joint, symbols, place = row % base, (row // base)[..., None].to(rules.dtype), 0
            for down in range(top - bottom + 1):
                self.register_buffer(f"subtree_{top}_{down}", symbols.flatten(0, 1).contiguous(), persistent=False)
                if top - down > bottom:
                    powers = torch.tensor([task.m ** (place + j) for j in range(task.s**down)], device=rules.device)
                    choices = (joint[..., None] // powers % task.m).to(torch.int32)
                    symbols, place = self._children(top - down, symbols, choices), place + task.s**down
        if self.frequencies:
            self.index_range = NUMBERS

    def _expand(self, above: tuple[Tensor, ...], choices: Sequence[Tensor]) -> Derivation:
        """Derive strings downwards.

        Args:
            above: the symbols of the levels that are known, from level ``len(choices)`` up to the class.
            choices: int32 rules of the levels ``1..len(choices)``, in this order, ``[R, B, s**(L-l)]``.
        """
        for level in range(len(choices), 0, -1):
            above = (self._children(level, above[0], choices[level - 1]), *above)
        return Derivation(above)

    def _children(self, level: int, symbols_RBD: Tensor, choices_RBD: Tensor) -> Tensor:
        """One level down: ``[R, B, D]`` symbols and choices give ``[R, B, D * s]`` symbols."""
        rules = self.rules(level)
        R, V, M, S = rules.shape
        row_RBD = torch.add(choices_RBD, symbols_RBD.to(torch.int32), alpha=M)
        return take_rows(rules.view(R * V * M, S), row_RBD, V * M)

    def number(self, derivation: Derivation) -> Tensor:
        """The number ``i`` of each string, the inverse of :meth:`sample`: int64 ``[R, B]``.

        Raises:
            InvalidInput: the task has more strings than 63 bits can number, or rules of unequal frequency.
        """
        task = self.task
        if self.frequencies:
            raise InvalidInput("frequencies", "unequal ones", "equal ones: a string that may be drawn twice has no number")
        if task.P_max >= 2**63:
            raise InvalidInput(
                "P_max", f"2**{math.log2(task.P_max):.1f}", "under 2**63; beyond, a string does not tell its number"
            )
        number_RB = derivation.y_RB.long()
        for top, depth, _ in self._layers:
            joint_RBD, place = torch.zeros_like(derivation.symbols[top], dtype=torch.int64), 0
            for down in range(depth):
                choices = self._owner(top - down, derivation.symbols[top - down - 1])[1].unflatten(-1, (-1, task.s**down))
                powers = torch.tensor([task.m ** (place + j) for j in range(task.s**down)], device=choices.device)
                joint_RBD, place = joint_RBD + (choices * powers).sum(-1), place + task.s**down
            for subtree_RB in joint_RBD.flip(-1).unbind(-1):
                number_RB = number_RB * self._combinations(depth) + subtree_RB
        return permutation(number_RB, task.P_max, self.string_keys_R1, inverse=True)

    # ---------------------------------------------------------------- from strings to symbols and back

    def parse(self, x_RBD: Tensor) -> Derivation:
        """The derivation of given strings: the exact inverse of the grammar.

        Args:
            x_RBD: integer tokens ``[R, B, s**L]``.

        Raises:
            InvalidString: a token or a tuple that no symbol owns, with its replica, string, level and position.
        """
        task = self.task
        if x_RBD.dim() != 3 or x_RBD.shape[0] != self.replicas or x_RBD.shape[2] != task.length:
            raise InvalidInput("x_RBD", f"shape {list(x_RBD.shape)}", f"[R={self.replicas}, B, s**L={task.length}]")
        x_RBD = x_RBD.long()
        outside = (x_RBD < 0) | (x_RBD >= task.v)
        if outside.any():
            r, b, d = outside.nonzero()[0].tolist()
            raise InvalidString(
                f"string {b} of replica {r}", f"token {x_RBD[r, b, d]} at position {d}", f"tokens in [0, {task.v})"
            )
        symbols = [x_RBD]
        for level in range(1, task.L + 1):
            tuples = symbols[-1].unflatten(-1, (-1, task.s))
            owner, _, found = self._owner(level, symbols[-1])
            if not found.all():
                r, b, d = (~found).nonzero()[0].tolist()
                first, last = d * task.s**level, (d + 1) * task.s**level - 1
                got = f"the tuple {tuple(tuples[r, b, d].tolist())} of level {level - 1} at tokens {first} to {last}"
                raise InvalidString(f"string {b} of replica {r}", got, f"tuples that a symbol of level {level} owns")
            symbols.append(owner)
        return Derivation(tuple(symbols)).map(lambda t: t.to(self.rules(1).dtype))

    def _owner(self, level: int, children_RBD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which symbol of a level owns each tuple of the level below, by which of its rules, and whether one does at all."""
        task = self.task
        weights_S = task.v ** torch.arange(task.s - 1, -1, -1, device=children_RBD.device)
        owned, order = (self.rules(level).long() * weights_S).sum(-1).flatten(1).sort(-1)
        code = (children_RBD.long().unflatten(-1, (-1, task.s)) * weights_S).sum(-1)
        place = torch.searchsorted(owned, code.flatten(1)).clamp_(max=owned.shape[1] - 1)
        row = order.gather(1, place).view_as(code)
        return row // task.m, row % task.m, owned.gather(1, place).view_as(code) == code

    def exchange(self, derivation: Derivation, level: int, key: SupportsIndex | Tensor = 0) -> Derivation:
        """Exchange synonyms at exactly one level: each symbol of that level gets another of its ``m`` rules.

        Symbols of that level and above stay, and so do the rule choices of all other levels; what stands below changes
        only because its ancestors did. (The operator ``P_l`` of the synonymic sensitivity, Cagnetta et al. 2024.) Of rules of
        unequal frequency the other one is drawn by it.

        Args:
            derivation: the strings.
            level: in ``1..L``.
            key: makes the draw; a tensor ``[R, B, 1]`` gives each string its own, whatever the rest of the batch.

        Raises:
            InvalidInput: no such level, or ``m = 1``: there are no synonyms.
        """
        self.check_level("level", level)
        if self.task.m == 1:
            raise InvalidInput("m", 1, "at least 2 to exchange synonyms: each symbol has one rule only")
        choices = [self._owner(l, derivation.symbols[l - 1])[1] for l in range(1, level + 1)]
        bits = self.draws(choices[-1], "exchange", level, key)
        if level in self.frequencies:
            choices[-1] = other_rules(bits, choices[-1], self.get_buffer(f"rule_ends_{level}"))
        else:
            choices[-1] = (choices[-1] + 1 + below(bits, self.task.m - 1)) % self.task.m
        return self._expand(derivation.symbols[level:], [c.to(torch.int32) for c in choices])

    def resample(self, derivation: Derivation, below_level: int, key: SupportsIndex | Tensor = 0) -> Derivation:
        """Other strings with the same symbols from a level up: all rules of that level and below are drawn again.

        Args:
            derivation: the strings.
            below_level: in ``1..L``; at ``L`` only the class is kept.
            key: makes the draw; a tensor ``[R, B, 1]`` gives each string its own, whatever the rest of the batch.

        Raises:
            InvalidInput: no such level.
        """
        self.check_level("below_level", below_level)
        symbols = derivation.symbols
        choices = [self._rules_by(self.draws(symbols[l], "resample", l, key), l) for l in range(1, below_level + 1)]
        return self._expand(symbols[below_level:], [c.to(torch.int32) for c in choices])

    def draws(self, like_RBD: Tensor, name: str, level: int, key: SupportsIndex | Tensor) -> Tensor:
        """Random bits, one for each symbol.

        Args:
            like_RBD: symbols, of which the shape is looked at.
            name, level: what the bits are for.
            key: makes the draw; a tensor ``[R, B, 1]`` gives each string its own, whatever the rest of the batch.
        """
        if not isinstance(key, Tensor):  # the same key as in a tensor, whoever wrote it
            key = torch.full((), signed(integer(key)), dtype=torch.int64, device=like_RBD.device)
        keys = fold(seed_keys(self.data_seeds_R, name, level)[:, None, None], key)
        shape = like_RBD.shape[2:] if keys.shape[1] > 1 else like_RBD.shape[1:]  # a key of its own for each string counts anew
        counter = torch.arange(math.prod(shape), device=like_RBD.device).view(shape)
        return scramble(keys + scramble(counter))

    def check_level(self, name: str, level: int) -> None:
        """Refuse a level without rules.

        Raises:
            InvalidInput: no such level; the key is ``name``.
        """
        if not 1 <= level <= self.task.L:
            raise InvalidInput(name, level, f"a level from 1 to L={self.task.L}")

    # ---------------------------------------------------------------- to read and to keep

    def to_json(self, path: str | Path | None = None) -> str:
        """The grammars as readable JSON: for each level and symbol the list of its tuples; written to ``path`` if given."""
        task = self.task
        grammars = [
            {
                "seed": int(self.seeds_R[r]),
                "data_seed": int(self.data_seeds_R[r]),
                "rules": {
                    f"level {level}": {str(a): tuples for a, tuples in enumerate(self.rules(level)[r].tolist())}
                    for level in range(task.L, 0, -1)
                },
            }
            for r in range(self.replicas)
        ]
        frequencies = {f"level {level}": list(self.frequencies[level]) for level in sorted(self.frequencies, reverse=True)}
        document = json.dumps({**vars(task), **({"frequencies": frequencies} if frequencies else {}), "grammars": grammars})
        if path is not None:
            Path(path).write_text(document + "\n", encoding="utf-8")
        return document

    @classmethod
    def from_json(cls, document: str) -> RandomHierarchyModel:
        """The grammars that :meth:`to_json` wrote, with the rules as they stand there.

        Raises:
            ValueError: not JSON.
            InvalidInput: grammars that cannot be, see :func:`rhm.grammar_file.parsed_grammars`.
        """
        found = parsed_grammars(document)
        model = cls(**vars(found.task), seeds=found.seeds, data_seeds=found.data_seeds, frequencies=found.frequencies)
        model.take_rules(found.rules)
        return model

    def take_rules(self, rules: dict[int, Tensor]) -> None:
        """Have these rules in place of those of the seeds.

        Args:
            rules: for each level from 1 its tuples, integers ``[R, symbols, m, s]``; ``R`` may be 1 for all replicas.
        """
        for level, tuples in rules.items():
            self.rules(level).copy_(tuples)
        self._prepare()

    def extra_repr(self) -> str:
        unequal = f", unequal rules at levels {sorted(self.frequencies)}" if self.frequencies else ""
        return f"{self.task}, replicas={self.replicas}{unequal}"


def _prepare_again(module: RandomHierarchyModel, _: object) -> None:
    module._prepare()


def _draw_rules(task: Task, level: int, keys_R: Tensor) -> Tensor:
    """Distinct tuples, uniformly at random, ``[R, symbols, m, s]``: each set of tuples and each owner is equally likely."""
    wanted, tuples = task.symbols(level) * task.m, task.v**task.s
    codes = _distinct(fold(keys_R, level), wanted, tuples)
    powers_S = torch.tensor([task.v ** (task.s - 1 - j) for j in range(task.s)])
    return (codes[..., None] // powers_S % task.v).view(len(keys_R), task.symbols(level), task.m, task.s)


def _distinct(keys_R: Tensor, wanted: int, size: int) -> Tensor:
    """``wanted`` distinct numbers of ``[0, size)`` in random order, ``[R, wanted]``."""
    if size > max(DENSE_TUPLES, 4 * wanted):
        return torch.stack([_drawn_until_distinct(key, wanted, size) for key in keys_R])
    counter = scramble(torch.arange(size))
    parts = keys_R.split(max(1, DENSE_TUPLES // size))
    return torch.cat([scramble(part[:, None] + counter).argsort(stable=True)[:, :wanted] for part in parts])


def _drawn_until_distinct(key: Tensor, wanted: int, size: int) -> Tensor:
    drawn = scramble(key + scramble(torch.arange(4 * wanted + 64))) & (2**63 - 1)
    drawn = drawn[drawn <= 2**63 // size * size - 1] % size  # at least half remain, of which at most a quarter are repeats
    order = drawn.argsort(stable=True)
    first = torch.ones_like(drawn, dtype=torch.bool)
    first[order[1:]] = drawn[order[1:]] != drawn[order[:-1]]
    return drawn[first][:wanted]


def take_rows(table: Tensor, row_RBD: Tensor, rows: int) -> Tensor:
    """Rows of a table ``[R * rows, S]`` of small integers: int32 ``[R, B, D]`` within each replica gives ``[R, B, D * S]``."""
    R, B, D = row_RBD.shape
    if R > 1:
        row_RBD = row_RBD + torch.arange(0, len(table), rows, dtype=torch.int32, device=table.device)[:, None, None]
    # A row that fills a machine word is read as one number, several times faster than number by number.
    word = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}.get(table.shape[1] * table.element_size())
    if word is not None:
        return table.view(word).view(-1).index_select(0, row_RBD.flatten()).view(table.dtype).view(R, B, D * table.shape[1])
    return table.index_select(0, row_RBD.flatten()).view(R, B, D * table.shape[1])


def split_digits(x: Tensor, base: int, count: int, bound: int) -> tuple[Tensor, Tensor]:
    """The lowest ``count`` digits of int64 numbers in ``[0, bound)``, int32 on a new last axis, and what is left, int64."""
    if bound > 2**EXACT_BITS:
        now = min(count, max(1, int(EXACT_BITS / math.log2(base)))) if base > 1 else count
        rest = torch.div(x, base**now, rounding_mode="floor")
        digits, _ = split_digits(x - rest * base**now, base, now, base**now)
        if now < count:
            more, rest = split_digits(rest, base, count - now, bound // base**now)
            digits = torch.cat([digits, more], -1)
        return digits, rest
    inverse = float(base) ** -torch.arange(count + 1, dtype=torch.float64, device=x.device)
    quotient = (x.double().add_(0.5)[..., None] * inverse).floor_()  # the half keeps the floor clear of rounding
    return torch.sub(quotient[..., :-1], quotient[..., 1:], alpha=base).to(torch.int32), quotient[..., -1].long()

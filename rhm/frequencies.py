"""Rules of unequal frequency: a symbol turns into its ``k``-th tuple with probability ``f_k`` of its level.

Strings are then drawn one by one, independently of one another, and a string may be drawn twice. What a string is decides
whether it may be trained on, probed with or tested with (its side), and the number of a draw says of which side a string is
wanted: what is of another side is drawn again. So each side holds draws from the grammar's distribution, given the side, and no
string is of two sides.

Shape suffixes: M rule, A drawn string, J choice of a string (its class and all its rules).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from rhm.errors import InvalidInput
from rhm.hashing import below, scramble
from rhm.task import Task

NUMBERS = 2**62
"""Of draws, which are more than any run asks for."""
PROBES, TESTS = NUMBERS // 2, NUMBERS // 4 * 3
"""The first number of a draw for probes, and for tests; those before are to train on."""
MOST_ALIKE = 0.01
"""Probability that two strings are the same, up to which each side has strings enough: as in a uniform task of 100 strings."""
UNIT = 2**31
LEAST = 2.0**-30
"""Frequencies are kept in units of ``2**-31``."""

Frequencies = Mapping[int, Sequence[float]]
"""For levels whose rules are not equally frequent those of a symbol's first to last rule."""


def zipf(m: int, a: float) -> tuple[float, ...]:
    """``f_k ~ k**-(1 + a)``, which sum to 1 (Cagnetta, Kang, Wyart 2025, arXiv 2505.07067)."""
    weights = [k ** -(1 + a) for k in range(1, m + 1)]
    return tuple(weight / math.fsum(weights) for weight in weights)


def checked_frequencies(task: Task, frequencies: Any) -> dict[int, tuple[float, ...]]:
    """Frequencies by level, as they were given.

    Raises:
        InvalidInput: of a level or a number of rules that the task does not have; numbers under ``2**-30``, or that do not
            sum to 1; so unequal that there are too few strings to keep some apart for tests.
    """
    found = {}
    for level, given in frequencies.items():
        if type(level) is not int or not 1 <= level <= task.L:
            raise InvalidInput("frequencies", f"those of level {level}", f"levels from 1 to L={task.L}")
        name, allowed = f"frequencies of level {level}", f"m={task.m} numbers of at least 1e-9 that sum to 1, one for each rule"
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise InvalidInput(name, given, allowed)
        if any(isinstance(f, bool) or not isinstance(f, int | float) or not LEAST <= f <= 1 for f in given):
            raise InvalidInput(name, list(given), allowed)
        if len(given) != task.m or not math.isclose(math.fsum(given), 1, abs_tol=1e-6):
            raise InvalidInput(name, f"{len(given)} numbers that sum to {math.fsum(given):.6g}", allowed)
        found[level] = tuple(map(float, given))
    if found and (alike := probability_alike(task, found)) > MOST_ALIKE:
        got = f"two strings that are the same with probability {alike:.2g}"
        allowed = (
            f"at most {MOST_ALIKE}, as strings are kept apart by what they are: rules less unequal, or a task of more strings"
        )
        raise InvalidInput("frequencies", got, allowed)
    return found


def probability_alike(task: Task, frequencies: Frequencies) -> float:
    """That two strings, drawn independently, are the same: they have one class and one rule at each node."""
    equal = [1 / task.m] * task.m
    log = -math.log(task.n)
    for level in range(1, task.L + 1):
        log += task.width(level) * math.log(math.fsum(f * f for f in frequencies.get(level, equal)))
    return math.exp(log)


# -------------------------------------------------------------------- rules


def rule_ends(frequencies: Sequence[float]) -> Tensor:
    """Where each rule's part of ``[0, 2**31)`` ends, int64 ``[M]``."""
    total = math.fsum(frequencies)
    ends = [round(UNIT * share / total) for share in accumulate(frequencies)]
    return torch.tensor([*ends[:-1], UNIT])


def drawn_rules(bits: Tensor, ends_M: Tensor) -> Tensor:
    """Rules by their frequencies, of the shape of random int64 bits."""
    return torch.bucketize(below(bits, UNIT), ends_M[:-1], right=True)


def other_rules(bits: Tensor, rules: Tensor, ends_M: Tensor) -> Tensor:
    """For each rule one of the symbol's others, by their frequencies."""
    end = ends_M[rules]
    start = torch.where(rules > 0, ends_M[rules - 1], 0)
    place = below(bits, UNIT - (end - start))
    return torch.bucketize(place + (end - start) * (place >= start), ends_M[:-1], right=True)


# -------------------------------------------------------------------- sides


def side_of_number(number: Tensor) -> Tensor:
    """Of which side a draw's string is wanted, by its number in ``[0, 2**62)``."""
    return _side(number >> 60)


def side_of_string(choices_AJ: Tensor, key_A: Tensor) -> Tensor:
    """Of which side strings are, by what they are: a hash of their class and rules, ``[A]``.

    Args:
        choices_AJ: integers.
        key_A: int64, of the replica.
    """
    place_J = scramble(torch.arange(choices_AJ.shape[1], device=choices_AJ.device))
    words = scramble(place_J + choices_AJ).sum(1)
    return _side((scramble(key_A + words) >> 32) & 3)


def _side(quarter: Tensor) -> Tensor:
    """Of numbers and of strings two quarters are to train on (0), one is for probes (1), one for tests (2)."""
    return (quarter - 1).clamp_min(0)

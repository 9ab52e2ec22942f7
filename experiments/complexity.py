"""Sample complexity: from how many strings on is a rule's error small, and how does that number grow with the task?

Shape suffixes: S seed, P training-set size, B bootstrap draw, T task.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DRAWS = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class SampleComplexity:
    """P*, the smallest number of strings with a small error, or the bound that was shown.

    Attributes:
        value: P*; ``inf`` if no size is enough, ``-inf`` if the smallest is.
        low, high: ends of the bootstrap interval over seeds, with the same meaning.
        smallest, largest: sizes that were tried.
        draws_B: log P* of the bootstrap draws, with the same meaning.
    """

    value: float
    low: float
    high: float
    smallest: float
    largest: float
    draws_B: Floats

    @property
    def reached(self) -> bool:
        """Whether P* lies between two sizes, and not beyond the smallest or the largest."""
        return math.isfinite(self.value)

    def shown(self, value: float) -> str:
        """A number of strings as text: ``> 8,192`` where no size was enough, ``≤ 64`` where the smallest was."""
        if value == math.inf:
            return f"> {self.largest:,.0f}"
        return f"≤ {self.smallest:,.0f}" if value == -math.inf else f"{value:,.0f}"

    def __str__(self) -> str:
        interval = f" [{self.shown(self.low)}, {self.shown(self.high)}]"
        return self.shown(self.value) + (interval if (self.low, self.high) != (self.value, self.value) else "")


def monotone(error_BP: Floats) -> Floats:
    """The nearest errors, by least squares, that never rise with the number of strings (isotonic regression).

    ``g_i = min_{a <= i} max_{b >= i} mean(e_a .. e_b)`` (Barlow et al. 1972, Statistical Inference under Order Restrictions).
    """
    sizes = error_BP.shape[-1]
    total = np.concatenate([np.zeros((*error_BP.shape[:-1], 1)), error_BP.cumsum(-1)], -1)
    a, b = np.arange(sizes)[:, None], np.arange(sizes)[None]
    mean = (total[..., None, 1:] - total[..., :-1, None]) / np.maximum(b - a + 1, 1)  # [..., a, b]
    mean = np.where(b >= a, mean, -np.inf)
    highest = np.flip(np.maximum.accumulate(np.flip(mean, -1), -1), -1)  # of all b from i on, at [..., a, i]
    return np.where(a <= b, highest, np.inf).min(-2)


def crossing(size_P: Floats, error_BP: Floats, bound: float) -> Floats:
    """Log of the number of strings at which errors that never rise come down to a bound.

    Interpolated is the logarithm of the error against that of the number of strings: errors fall by factors and not by
    differences. Errors under a tenth of the bound count as a tenth, for on a few thousand test strings they are often 0.

    Returns:
        one number a row; ``inf`` if the last error is above the bound, ``-inf`` if the first is not.
    """
    passed_BP = error_BP <= bound
    first_B = np.where(passed_BP.any(-1), passed_BP.argmax(-1), len(size_P))
    after = np.clip(first_B, 1, len(size_P) - 1) if len(size_P) > 1 else np.zeros_like(first_B)
    before = np.maximum(after - 1, 0)
    log_error_BP, log_P = np.log(np.maximum(error_BP, bound / 10)), np.log(size_P)
    high, low = (np.take_along_axis(log_error_BP, i[..., None], -1)[..., 0] for i in (before, after))
    share = (high - np.log(bound)) / np.where(high > low, high - low, 1)
    between = log_P[before] + share * (log_P[after] - log_P[before])
    return np.where(first_B == 0, -np.inf, np.where(first_B == len(size_P), np.inf, between))


def sample_complexity(size_P: Floats, error_SP: Floats, bound: float, draws: int = DRAWS) -> SampleComplexity:
    """P* of a learning curve: where the mean error over seeds, made monotone, comes down to ``bound`` (:func:`crossing`).

    The interval is that of the percentile bootstrap: seeds are drawn with replacement, each with its whole curve.

    Args:
        size_P: training-set sizes, rising.
        error_SP: test errors.
        bound: the error that counts as small.
        draws: of the bootstrap.
    """
    generator = np.random.default_rng(0)
    seeds = len(error_SP)
    mean_BP = error_SP[generator.integers(seeds, size=(draws, seeds))].mean(1)
    log_B = crossing(size_P, monotone(mean_BP), bound)
    value = crossing(size_P, monotone(error_SP.mean(0)[None]), bound)[0]
    low, high = np.sort(log_B)[_ends(draws)]
    return SampleComplexity(_size(value), _size(low), _size(high), float(size_P[0]), float(size_P[-1]), log_B)


def _size(log_P: float) -> float:
    return float(np.exp(log_P)) if np.isfinite(log_P) else float(log_P)


def _ends(draws: int) -> list[int]:
    """Places of an interval's ends among sorted draws; infinite draws cannot be interpolated."""
    outside = (1 - CONFIDENCE) / 2
    return [math.floor(outside * (draws - 1)), math.ceil((1 - outside) * (draws - 1))]


@dataclass(frozen=True)
class Growth:
    """``P* = prefactor x^exponent``, fitted over tasks by least squares in logarithms.

    Attributes:
        exponent, low, high: with the ends of its bootstrap interval over the seeds of every task.
        prefactor: P* at ``x = 1``.
        tasks: how many were fitted.
        censored: how many were left out because P* lies beyond the sizes that were tried.
    """

    exponent: float
    low: float
    high: float
    prefactor: float
    tasks: int
    censored: int

    def __str__(self) -> str:
        left_out = f", {self.censored} beyond the sizes left out" if self.censored else ""
        return f"{self.exponent:.2f} [{self.low:.2f}, {self.high:.2f}] ({self.tasks} tasks{left_out})"


def growth(x_T: list[float], found_T: list[SampleComplexity]) -> Growth | None:
    """The exponent with which P* grows with ``x``; None if fewer than two tasks of different ``x`` have a P*.

    Tasks have grammars of their own, so that their draws are combined at random: seed 0 of one has nothing to do with seed 0
    of another. A bootstrap draw that lies beyond the sizes counts as the smallest or the largest of them.
    """
    fitted = [(math.log(x), found) for x, found in zip(x_T, found_T, strict=True) if found.reached]
    if len({x for x, _ in fitted}) < 2:
        return None
    log_x_T = np.array([x for x, _ in fitted])
    draws_TB = np.stack([np.clip(found.draws_B, math.log(found.smallest), math.log(found.largest)) for _, found in fitted])
    draws_TB = np.random.default_rng(0).permuted(draws_TB, axis=1)
    log_P_T = np.log([found.value for _, found in fitted])
    centred = log_x_T - log_x_T.mean()
    exponent = float(centred @ log_P_T / (centred @ centred))
    low, high = np.sort(centred @ draws_TB / (centred @ centred))[_ends(draws_TB.shape[1])]
    prefactor = math.exp(log_P_T.mean() - exponent * log_x_T.mean())
    return Growth(exponent, float(low), float(high), prefactor, len(fitted), len(found_T) - len(fitted))

"""Sample complexity: from how many strings on is a rule's error small, and how does that number grow with the task?

Shape suffixes: S seed, P training-set size, B bootstrap draw, T task.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
DRAWS = 2000
CONFIDENCE = 0.95
NORMAL = 1.959964
"""The two-sided quantile of the normal distribution at ``CONFIDENCE``."""


@dataclass(frozen=True)
class SampleComplexity:
    """P*, the smallest number of strings with a small error, or the bound that was shown.

    Attributes:
        value: P*; ``inf`` if no size is enough, ``-inf`` if the smallest is.
        low, high: ends of the bootstrap interval over seeds, with the same meaning; no interval with one seed.
        smallest, largest: sizes that were tried.
        draws_B: log P* of the bootstrap draws, with the same meaning.
        seeds: how many there were.
        fails_later: whether a size fails although a smaller one passes.
    """

    value: float
    low: float
    high: float
    smallest: float
    largest: float
    draws_B: Floats
    seeds: int
    fails_later: bool = False

    @property
    def reached(self) -> bool:
        """Whether P* lies between two sizes, and not beyond the smallest or the largest."""
        return math.isfinite(self.value)

    def shown(self, value: float) -> str:
        """A number of strings as text: ``> 8,192`` where no size was enough, ``≤ 64`` where the smallest was."""
        if value == math.inf:
            return f"> {self.largest:,.0f}"
        return f"≤ {self.smallest:,.0f}" if value == -math.inf else f"{value:,.0f}"

    @property
    def interval(self) -> str:
        """As text; empty where there is none."""
        known = self.seeds > 1 and (self.reached or (self.low, self.high) != (self.value, self.value))
        return f"[{self.shown(self.low)}, {self.shown(self.high)}]" if known else ""

    @property
    def note(self) -> str:
        """What else is to be known of it; empty if nothing is."""
        return "a larger size fails" if self.fails_later else ""

    def __str__(self) -> str:
        value = " ".join(filter(None, (self.shown(self.value), self.interval)))
        return ", ".join(filter(None, (value, self.note)))


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
    passed_BP = _passes(error_BP, bound)
    first_B = np.where(passed_BP.any(-1), passed_BP.argmax(-1), len(size_P))
    after = np.clip(first_B, 1, len(size_P) - 1) if len(size_P) > 1 else np.zeros_like(first_B)
    before = np.maximum(after - 1, 0)
    log_error_BP, log_P = np.log(np.maximum(error_BP, bound / 10)), np.log(size_P)
    high, low = (np.take_along_axis(log_error_BP, i[..., None], -1)[..., 0] for i in (before, after))
    share = (high - np.log(bound)) / np.where(high > low, high - low, 1)
    between = log_P[before] + np.clip(share, 0, 1) * (log_P[after] - log_P[before])
    return np.where(first_B == 0, -np.inf, np.where(first_B == len(size_P), np.inf, between))


def sample_complexity(size_P: Floats, error_SP: Floats, bound: float, draws: int = DRAWS) -> SampleComplexity:
    """P* of a learning curve: where the mean error over seeds, made monotone, comes down to ``bound`` (:func:`crossing`).

    It is made monotone up to the size at which it is lowest: what more strings do to a rule that gets worse with them says
    nothing about the fewest that are enough. So no size is enough only where every mean error is above the bound.

    The interval is that of a bootstrap: seeds are drawn with replacement, each with its whole curve. Draws of a few seeds lie
    too close together: they deviate as a mean with ``1 / n`` in place of ``1 / (n - 1)`` in its variance, and with normal
    quantiles. So deviations from log P* are taken ``t sqrt(n / (n - 1)) / z`` times, ``t`` and ``z`` Student's and the normal
    quantile (after Hesterberg 2015, American Statistician 69, section 4). It holds at least the two sizes between which P* was
    found: where in between, all seeds together do not know.

    Args:
        size_P: training-set sizes, rising.
        error_SP: test errors.
        bound: the error that counts as small.
        draws: of the bootstrap.
    """
    generator = np.random.default_rng(0)
    seeds = len(error_SP)
    mean_BP = error_SP[generator.integers(seeds, size=(draws, seeds))].mean(1)
    log_B = crossing(size_P, monotone(_to_the_best(mean_BP)), bound)
    mean_P = error_SP.mean(0)
    value = crossing(size_P, monotone(_to_the_best(mean_P[None])), bound)[0]
    if np.isfinite(value) and seeds > 1:
        log_B = _beyond(value + (log_B - value) * widening(seeds), np.log(size_P))
    low, high = np.sort(log_B)[_ends(draws)]
    low, high = _size(low), _size(high)
    if np.isfinite(value):
        before, after = neighbours(size_P, _size(value))
        low, high = min(low, before), max(high, after)
    passed_P = _passes(mean_P, bound)
    fails_later = bool((passed_P[:-1] & ~passed_P[1:]).any())
    limits = float(size_P[0]), float(size_P[-1])
    return SampleComplexity(_size(value), low, high, *limits, log_B, seeds, fails_later)


def widening(seeds: int) -> float:
    """By how much deviations of the bootstrap over so many seeds are too small."""
    return student(seeds - 1) / NORMAL * math.sqrt(seeds / (seeds - 1))


def _beyond(log_B: Floats, log_P: Floats) -> Floats:
    """Draws, with bounds in place of those beyond the sizes."""
    return np.where(log_B > log_P[-1], np.inf, np.where(log_B < log_P[0], -np.inf, log_B))


def neighbours(size_P: Floats, value: float) -> tuple[float, float]:
    """The last size that fails and the first that passes, of a P* between the smallest and the largest."""
    nearly = value * (1 - 1e-9)  # where P* is one of the sizes, exp(log P) may come out above it
    after = int(np.clip(np.searchsorted(size_P, nearly), 1, len(size_P) - 1))
    return float(size_P[after - 1]), float(size_P[after])


def _passes(error: Floats, bound: float) -> NDArray[np.bool_]:
    """Whether errors are small; one that is the bound but for rounding is."""
    return error <= bound * (1 + 1e-9)


def _to_the_best(error_BP: Floats) -> Floats:
    """Errors with the lowest in place of all that come after it; pooling then leaves these alone."""
    return np.where(np.arange(error_BP.shape[-1]) > error_BP.argmin(-1)[:, None], error_BP.min(-1)[:, None], error_BP)


def _size(log_P: float) -> float:
    return float(np.exp(log_P)) if np.isfinite(log_P) else float(log_P)


def _ends(draws: int) -> list[int]:
    """Places of an interval's ends among sorted draws; infinite draws cannot be interpolated."""
    outside = (1 - CONFIDENCE) / 2
    return [math.floor(outside * (draws - 1)), math.ceil((1 - outside) * (draws - 1))]


@cache
def student(degrees: int) -> float:
    """The two-sided quantile of Student's t at ``CONFIDENCE``.

    With ``t = sqrt(degrees) tan(a)``, the angle ``a`` has the density ``cos(a)^(degrees - 1)`` up to a factor.
    """
    cells = 200_000
    angle = ((np.arange(cells) + 0.5) / cells - 0.5) * np.pi
    share = np.cos(angle) ** (degrees - 1)
    place = np.interp((1 + CONFIDENCE) / 2, share.cumsum() / share.sum(), angle + np.pi / cells / 2)
    return math.sqrt(degrees) * math.tan(place)


@dataclass(frozen=True)
class Growth:
    """``P* = prefactor x^exponent``, fitted over tasks by least squares in logarithms.

    Attributes:
        exponent, low, high: with the ends of its interval; these are NaN if there is none.
        prefactor: P* at ``x = 1``.
        tasks: how many were fitted.
        censored: how many were left out because P* lies beyond the sizes that were tried.
        seeds: the fewest of a task.
        clipped: for each end whether bootstrap draws there lie beyond the sizes that were tried, so that it may be further out.
    """

    exponent: float
    low: float
    high: float
    prefactor: float
    tasks: int
    censored: int
    seeds: int
    clipped: tuple[bool, bool] = (False, False)

    def __str__(self) -> str:
        return self._with_notes(self.shown())

    @property
    def factor(self) -> str:
        """By how much P* grows when ``log x`` grows by 1."""
        return self._with_notes(self.shown(math.exp))

    def _with_notes(self, text: str) -> str:
        notes = [f"{self.tasks} tasks"]
        notes += [f"{self.censored} beyond the sizes left out"] if self.censored else []
        if math.isnan(self.low):
            notes.append("no interval: one seed" if self.seeds < 2 else "no interval: needs 3 tasks")
        return f"{text} ({', '.join(notes)})"

    def shown(self, scale: Callable[[float], float] = float) -> str:
        """The exponent with its interval, or a rising function of them; an end that was clipped has a star."""
        if math.isnan(self.low):
            return f"{scale(self.exponent):.2f}"
        low, high = (f"{scale(end):.2f}{'*' * star}" for end, star in zip((self.low, self.high), self.clipped, strict=True))
        return f"{scale(self.exponent):.2f} [{low}, {high}]"


def growth(x_T: list[float], found_T: list[SampleComplexity], scatter: bool = True) -> Growth | None:
    """The exponent with which P* grows with ``x``; None if fewer than two tasks of different ``x`` have a P*.

    The interval spans two: Student's, from the scatter of tasks around the line, which holds what tasks of one size differ in,
    and the bootstrap over seeds, which holds when few tasks lie on a line by luck. Tasks have grammars of their own, so that
    their draws are combined at random: seed 0 of one has nothing to do with seed 0 of another. A draw that lies beyond the
    sizes counts as the smallest or the largest of them. There is no interval with fewer than three tasks or with one seed.

    Args:
        x_T: of each task.
        found_T: P* of each task.
        scatter: False for tasks that differ in ``x`` alone. The line is then a mean over their P* and no law that these could
            miss: the interval is that of the bootstrap, and two tasks are enough for it.
    """
    fitted = [(math.log(x), found) for x, found in zip(x_T, found_T, strict=True) if found.reached]
    if len({x for x, _ in fitted}) < 2:
        return None
    log_x_T, log_P_T = np.array([x for x, _ in fitted]), np.log([found.value for _, found in fitted])
    weight_T = (log_x_T - log_x_T.mean()) / ((log_x_T - log_x_T.mean()) ** 2).sum()
    exponent = float(weight_T @ log_P_T)
    level = float(log_P_T.mean() - exponent * log_x_T.mean())
    tasks, seeds = len(fitted), min(found.seeds for _, found in fitted)
    low, high, clipped = math.nan, math.nan, (False, False)
    if seeds > 1 and (tasks > 2 or not scatter):
        beyond_T = log_P_T - level - exponent * log_x_T
        half = student(tasks - 2) * math.sqrt(beyond_T @ beyond_T / (tasks - 2) * (weight_T @ weight_T)) if scatter else 0.0
        draws_TB = np.random.default_rng(0).permuted(np.stack([found.draws_B for _, found in fitted]), axis=1)
        smallest_T1, largest_T1 = np.log([[found.smallest, found.largest] for _, found in fitted]).T[:, :, None]
        exponent_B = weight_T @ np.clip(draws_TB, smallest_T1, largest_T1)
        order_B, outside_B = exponent_B.argsort(), np.isinf(draws_TB).any(0)
        first, last = _ends(len(order_B))
        low = min(exponent - half, float(exponent_B[order_B[first]]))
        high = max(exponent + half, float(exponent_B[order_B[last]]))
        clipped = bool(outside_B[order_B[: first + 1]].any()), bool(outside_B[order_B[last:]].any())
    return Growth(exponent, low, high, math.exp(level), tasks, len(found_T) - tasks, seeds, clipped)

"""``python -m benchmarks.coverage``: how often the interval of P* holds the true value, on made-up learning curves.

Shape suffixes: S seed, P training-set size.
"""

from __future__ import annotations

import math

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.study.complexity import Floats, sample_complexity

SPREADS, RATIOS, SEEDS = (0.1, 0.3, 0.5), (1.4, 2.0, 3.0), (3, 5)
FIRST, LAST, MIDDLE = 60, 8000, 500
"""Smallest and largest size, and about where curves fall."""
CHANCE_ERROR, BOUND, STRINGS = 0.875, 0.0875, 4096


def coverage(spread: float, ratio: float, seeds: int, trials: int = 300) -> float:
    """The share of intervals that hold P*, which is that of the mean curve over all seeds there could be.

    Args:
        spread: standard deviation, over seeds, of the logarithm of the number of strings at which a curve falls.
        ratio: between two sizes.
        seeds: of a trial. Errors are measured on 4,096 strings.
        trials: how many.
    """
    rng = np.random.default_rng(0)

    def curves(size_P: Floats, count: int) -> Floats:
        middle_S1 = math.log(MIDDLE) + spread * rng.normal(size=(count, 1))
        return CHANCE_ERROR / (1 + np.exp((np.log(size_P) - middle_S1) / 0.3))

    near_P = np.geomspace(FIRST, LAST, 400)
    true = sample_complexity(near_P, curves(near_P, 20_000), BOUND, draws=1).value
    covered = 0
    for _ in range(trials):
        size_P = FIRST * ratio ** (rng.random() + np.arange(math.log(LAST / FIRST) / math.log(ratio)))
        error_SP = rng.binomial(STRINGS, curves(size_P, seeds)) / STRINGS
        found = sample_complexity(size_P, error_SP, BOUND, draws=400)
        covered += found.low <= true <= found.high
    return covered / trials


def main() -> None:
    """Print the table of docs/studies.md."""
    table = Table("deviation of log P*", "seeds", *(f"sizes {ratio:g} apart" for ratio in RATIOS))
    for spread in SPREADS:
        for seeds in SEEDS:
            table.add_row(f"{spread:g}", str(seeds), *(f"{coverage(spread, ratio, seeds):.2f}" for ratio in RATIOS))
    Console().print(table)


if __name__ == "__main__":
    main()

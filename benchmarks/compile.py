"""``python -m benchmarks.compile``: what ``--compile`` makes of the updates of a step, in turns with eager; rules may be named.

It needs a C++ compiler on the CPU.
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.steps import NAMES, rule_of
from datamodules import Batch

SIZES = (1, 32), (16, 64), (1, 256)


def seconds(function: Callable[[Batch], object], batch: Batch, steps: int) -> float:
    """Seconds that a function computes for a batch: on one thread they are its time on a machine that does nothing else."""
    start = time.process_time()
    for _ in range(steps):
        function(batch)
    return (time.process_time() - start) / steps


@torch.no_grad()
def compare(name: str, replicas: int, width: int, table: Table) -> None:
    """A row for one rule."""
    rule, other = rule_of(name, replicas, width), rule_of(name, replicas, width)
    batch = rule.data.train_batch(0)
    other.compile()
    eager, compiled = rule.updates_of, other.updates_of
    start = time.process_time() + children()
    compiled(batch)
    first = time.process_time() + children() - start
    error = max(
        float((x[key] - y[key]).abs().max() / x[key].abs().max().clamp_min(1e-30))
        for x, y in zip(eager(batch).layers, compiled(batch).layers, strict=True)
        for key in x
    )
    steps = max(2, 2000 // (replicas * width))
    turns = [(seconds(eager, batch, steps), seconds(compiled, batch, steps)) for _ in range(9)]
    ratio = statistics.median(e / c for e, c in turns)
    slow, fast = (statistics.median(side) for side in zip(*turns, strict=True))
    even = f"{first / (slow - fast):,.0f}" if slow > fast else "never"
    row = f"{ratio:.2f}", f"{slow * 1e3:.2f}", f"{fast * 1e3:.2f}", f"{first:.0f}", even, f"{error:.0e}"
    table.add_row(name, f"{replicas}, {width}", *row)


def children() -> float:
    """Seconds that the C++ compiler and other processes of this one have computed."""
    times = os.times()
    return times.children_user + times.children_system


def main(names: list[str]) -> None:
    """Print the table."""
    title = (
        f"updates of a step, eager and compiled, torch {torch.__version__}, {torch.get_num_threads()} threads, batch 128, L = 4"
    )
    table = Table(title=title)
    for column in (
        "rule",
        "R, width",
        "eager / compiled",
        "eager, ms",
        "compiled, ms",
        "compiling, s",
        "pays after steps",
        "difference",
    ):
        table.add_column(column)
    for name, (replicas, width) in track(list(itertools.product(names, SIZES)), "compiling"):
        compare(name, replicas, width, table)
    Console(width=140).print(table)


if __name__ == "__main__":
    main(sys.argv[1:] or [*NAMES, "node_perturbation"])

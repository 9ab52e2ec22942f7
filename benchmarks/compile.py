"""``python -m benchmarks.compile``: what ``torch.compile`` makes of the updates of a step, in turns with eager.

It needs a C++ compiler on the CPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.steps import NAMES, rule_of, updates_of
from datamodules import Batch


def seconds(function: Callable[[Batch], object], batch: Batch, steps: int) -> float:
    """Seconds that a function computes for a batch: on one thread they are its time on a machine that does nothing else."""
    start = time.process_time()
    for _ in range(steps):
        function(batch)
    return (time.process_time() - start) / steps


@torch.no_grad()
def compare(name: str, replicas: int, table: Table) -> None:
    """A row for one rule."""
    torch._dynamo.reset()
    rule = rule_of(name, replicas)
    batch, eager = rule.data.train_batch(0), updates_of(rule)
    compiled = torch.compile(eager)
    start = time.perf_counter()
    compiled(batch)
    first = time.perf_counter() - start
    torch._dynamo.utils.counters.clear()
    error = max(
        float((x[key] - y[key]).abs().max() / x[key].abs().max().clamp_min(1e-30))
        for x, y in zip(eager(batch), compiled(batch), strict=True)
        for key in x
    )
    steps = 20 if replicas == 1 else 4
    turns = [(seconds(eager, batch, steps), seconds(compiled, batch, steps)) for _ in range(9)]
    ratio = statistics.median(e / c for e, c in turns)
    slow, fast = (statistics.median(side) for side in zip(*turns, strict=True))
    even = f"{first / (slow - fast):,.0f}" if slow > fast else "never"
    row = f"{ratio:.2f}", f"{slow * 1e3:.2f}", f"{fast * 1e3:.2f}", f"{first:.1f}", even, f"{error:.0e}"
    table.add_row(name, str(replicas), *row)


def main() -> None:
    """Print the table."""
    title = (
        f"torch.compile of a step's updates, torch {torch.__version__}, {torch.get_num_threads()} threads, width 256, batch 128"
    )
    table = Table(title=title)
    for column in (
        "rule",
        "R",
        "eager / compiled",
        "eager, ms",
        "compiled, ms",
        "compiling, s",
        "pays after steps",
        "difference",
    ):
        table.add_column(column)
    for name in track(NAMES, "compiling"):
        for replicas in (1, 8):
            compare(name, replicas, table)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()

"""Tables in the terminal."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table
from torch import Tensor

from rhm import Task


def wide_console() -> Console:
    """A console as wide as the terminal, and wide enough for a table where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=140)


def spread(values: Tensor | list[float]) -> str:
    """``mean ± standard deviation`` of accuracies, or the one value; a dash where nothing was measured."""
    numbers = [float(v) for v in values]
    mean = sum(numbers) / len(numbers)
    if math.isnan(mean):
        return "–"
    if len(numbers) == 1:
        return f"{mean:.3f}"
    return f"{mean:.3f} ± {math.sqrt(sum((v - mean) ** 2 for v in numbers) / (len(numbers) - 1)):.3f}"


def probe_table(accuracy_KLR: Tensor, task: Task, title: str) -> Table:
    """Probe accuracy, layer by level, the top layer first as in a picture of the network."""
    table = Table(title=title)
    table.add_column("layer", justify="right")
    for level in range(task.L + 1):
        name = "tokens" if level == 0 else "class" if level == task.L else ""
        table.add_column(f"level {level}\n{name}", justify="right")
    for k in range(len(accuracy_KLR) - 1, -1, -1):
        cells = [spread(accuracy_KLR[k, level]) for level in range(task.L + 1)]
        table.add_row(str(k + 1), *cells)
    return table


def replica_table(results: dict[str, Any]) -> Table:
    """Test accuracy of each training-set size over seeds."""
    supervision = results["supervision"]
    pairs = f", {supervision['pairs']}" if supervision["pairs"] else ""
    learned = "no label" if supervision["rule"] == "none" else supervision["rule"]
    table = Table(title=f"{results['rule']} ({learned}{pairs})")
    for column in "train_size", "seeds", "test accuracy", "lowest", "chance":
        table.add_column(column, justify="right")
    by_size: dict[Any, list[dict[str, Any]]] = {}
    for replica in results["replicas"]:
        by_size.setdefault(replica["train_size"], []).append(replica)
    for size, replicas in by_size.items():
        accuracies = [r["test_accuracy"] for r in replicas]
        seeds = " ".join(str(r["seed"]) for r in replicas)
        shown = "endless" if size is None else f"{size:,}"
        table.add_row(shown, seeds, spread(accuracies), f"{min(accuracies):.3f}", f"{replicas[0]['chance']:.3f}")
    lost = [f"seed {r['seed']} at {r['train_size'] or 'endless'}" for r in results["replicas"] if r.get("diverged")]
    if lost:
        table.caption = f"diverged, with weights that are not finite: {', '.join(lost)}"
    return table

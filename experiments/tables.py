"""Tables in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable
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


Size = tuple[int | None, int | None]
"""Training strings, None for an endless stream, and how many of them have labels, None for all."""


def sizes_of(results: dict[str, Any]) -> list[Size]:
    """Of each replica of a run."""
    return [(replica["train_size"], replica.get("label_size")) for replica in results["replicas"]]


def by_size(sizes: Iterable[Size]) -> dict[Size, list[int]]:
    """Places of the replicas, those that differ in their seeds alone together."""
    groups: dict[Size, list[int]] = {}
    for r, size in enumerate(sizes):
        groups.setdefault(size, []).append(r)
    return groups


def size_name(size: Size) -> str:
    """In words, such as ``2,048 strings, 100 labels``."""
    strings, labels = size
    name = "an endless stream" if strings is None else f"{strings:,} strings"
    return name if labels is None else f"{name}, {labels:,} labels"


def largest(sizes: Iterable[Size]) -> Size:
    """The one with the most strings and labels."""
    return max(sizes, key=lambda size: [math.inf if number is None else number for number in size])


def replica_table(results: dict[str, Any]) -> Table:
    """Test accuracy over seeds, of each training-set size and number of labels."""
    supervision = results["supervision"]
    pairs = f", {supervision['pairs']}" if supervision["pairs"] else ""
    learned = "no label" if supervision["rule"] == "none" else supervision["rule"]
    table = Table(title=f"{results['rule']} ({learned}{pairs})")
    groups = by_size(sizes_of(results))
    labelled = ["label_size"] if any(labels is not None for _, labels in groups) else []
    for column in ["train_size", *labelled, "seeds", "test accuracy", "lowest", "chance"]:
        table.add_column(column, justify="right")
    lost: list[str] = []
    for (strings, labels), places in groups.items():
        replicas = [results["replicas"][r] for r in places]
        accuracies = [r["test_accuracy"] for r in replicas]
        sizes = ["endless" if strings is None else f"{strings:,}"]
        sizes += ["all" if labels is None else f"{labels:,}"] if labelled else []
        seeds = " ".join(str(r["seed"]) for r in replicas)
        table.add_row(*sizes, seeds, spread(accuracies), f"{min(accuracies):.3f}", f"{replicas[0]['chance']:.3f}")
        lost += [f"seed {r['seed']} of {size_name((strings, labels))}" for r in replicas if r.get("diverged")]
    if lost:
        table.caption = f"diverged, with weights that are not finite: {', '.join(lost)}"
    return table

"""Tables and picture of a run's results.

Shape suffixes: R replica, K layer, L level.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import Tensor

from callbacks import LayerwiseLinearProbe
from callbacks.figures import heat_map
from datamodules import ReplicaDataModule
from experiments.terminal import PlainConsole, mean_and_deviation, wide_console
from rhm import TaskSizes


def show(results: dict[str, Any], probe: LayerwiseLinearProbe, data: ReplicaDataModule) -> None:
    """Print accuracies and probes; these at the largest size, if there are several."""
    console = wide_console()
    print_replicas(console, results)
    groups = by_size(sizes_of_data(data))
    size = largest(groups)
    of = f" at {size_name(size)}" if len(groups) > 1 else ""
    for name, table in ("ridge probes", probe.accuracy_KLR), ("logistic probes", probe.logistic_KLR):
        if table is not None and probe.baseline_KLR is not None:
            console.print_table(
                probe_table(table[..., groups[size]], probe.baseline_KLR[..., groups[size]], data.task, name + of)
            )


def draw(path: Path, rule: str, probe: LayerwiseLinearProbe, data: ReplicaDataModule) -> None:
    """Write a heat map of the probes, logistic ones if there are; a panel for each size."""
    table = probe.accuracy_KLR if probe.logistic_KLR is None else probe.logistic_KLR
    if table is None:
        return
    groups = by_size(sizes_of_data(data))
    maps = {size_name(size): table[..., places].mean(-1) for size, places in groups.items()}
    task = " ".join(f"{key}={value}" for key, value in (data.task.given | data.origin).items() if key != "fingerprint")
    kind = "ridge" if probe.logistic_KLR is None else "logistic"
    cells = f"cells: share of a level's symbols that {kind} probes read from a layer, mean over seeds"
    title = f"{rule}\n{task}, {seeds_name(data.replica_seeds)}\n{cells}"
    heat_map(maps, probe.lowest, title=title, shown=data.task.levels).savefig(path, dpi=150)


def probe_table(accuracy_KLR: Tensor, baseline_KLR: Tensor, task: TaskSizes, title: str) -> Table:
    """Probe accuracy, layer by level, the top layer first as in a picture of the network.

    Below them the accuracy of naming the commonest symbol, the largest of all layers'.
    """
    table = Table(title=title)
    table.add_column("layer", justify="right", no_wrap=True)
    for level in task.levels:
        name = "tokens" if level == 0 else "class" if level == task.L else ""
        table.add_column(f"level {level}\n{name}", justify="right", no_wrap=True)
    for k in range(len(accuracy_KLR) - 1, -1, -1):
        cells = [mean_and_deviation(accuracy_KLR[k, level]) for level in task.levels]
        table.add_row(str(k + 1), *cells, end_section=k == 0)
    most_LR = baseline_KLR.nan_to_num(nan=-math.inf).amax(0)
    known = [most_LR[level] for level in task.levels]
    table.add_row("commonest", *["–" if most_R.isinf().any() else mean_and_deviation(most_R) for most_R in known])
    return table


Size = tuple[int | None, int | None]
"""Training strings, None for an endless stream, and how many of them have labels, None for all."""


def sizes_of(results: dict[str, Any]) -> list[Size]:
    """Of each replica of a run."""
    return [(replica["train_size"], replica.get("label_size")) for replica in results["replicas"]]


def sizes_of_data(data: ReplicaDataModule) -> list[Size]:
    """The same of a datamodule."""
    return list(zip(data.replica_sizes, data.replica_label_sizes, strict=True))


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


def seeds_name(seeds: Iterable[int]) -> str:
    """In words, such as ``seed 0`` and ``seeds 0 to 4``; each once."""
    own = sorted(set(seeds))
    if len(own) == 1:
        return f"seed {own[0]}"
    return f"seeds {own[0]} to {own[-1]}" if own == [*range(own[0], own[-1] + 1)] else f"seeds {' '.join(map(str, own))}"


def largest(sizes: Iterable[Size]) -> Size:
    """The one with the most strings and labels."""
    return max(sizes, key=lambda size: [math.inf if number is None else number for number in size])


def print_replicas(console: PlainConsole, results: dict[str, Any]) -> None:
    """Print :func:`replica_table`, rows told apart by their sizes."""
    table = replica_table(results)
    console.print_table(table, keys=[column.header for column in table.columns].index("seeds"))


def replica_table(results: dict[str, Any]) -> Table:
    """Test accuracy over seeds, of each training-set size and number of labels."""
    supervision = results["supervision"]
    pairs = f", {supervision['pairs']}" if supervision["pairs"] else ""
    learned = "no label" if supervision["rule"] == "none" else supervision["rule"]
    table = Table(title=f"{results['rule']} ({learned}{pairs})")
    groups = by_size(sizes_of(results))
    labelled = ["label_size"] if any(labels is not None for _, labels in groups) else []
    for column in ["train_size", *labelled, "seeds", "test accuracy", "lowest", "chance"]:
        table.add_column(column, justify="right", no_wrap=column != "seeds")
    lost: list[str] = []
    for (strings, labels), places in groups.items():
        replicas = [results["replicas"][r] for r in places]
        accuracies = [r["test_accuracy"] for r in replicas]
        sizes = ["endless" if strings is None else f"{strings:,}"]
        sizes += ["all" if labels is None else f"{labels:,}"] if labelled else []
        seeds = " ".join(str(r["seed"]) for r in replicas)
        table.add_row(*sizes, seeds, mean_and_deviation(accuracies), f"{min(accuracies):.3f}", f"{replicas[0]['chance']:.3f}")
        lost += [f"seed {r['seed']} of {size_name((strings, labels))}" for r in replicas if r.get("diverged")]
    if lost:
        table.caption = f"diverged, with weights that are not finite: {', '.join(lost)}"
    return table

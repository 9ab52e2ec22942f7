"""``rhm demo``: three rules on one task, in a few minutes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from callbacks.figures import heat_map
from experiments.files import check_folder, read_json, writing
from experiments.run.command import run
from experiments.shipped import CONFIGS
from experiments.terminal import mean_and_deviation, wide_console
from rhm import InvalidInput, Task

RULES = {"backprop_bottleneck": "Backprop", "dfa": "DirectFeedbackAlignment", "sibling_contrastive": "LayerwiseContrastive"}


def demo(run_dir: str | None = None, max_steps: int = 1000) -> None:
    """Train backprop, direct feedback alignment and layerwise contrastive learning on one task and compare them.

    Args:
        run_dir: folder of the three runs; ``runs/demo-DATE`` by default.
        max_steps: of each run.
    """
    folder = Path(run_dir or f"runs/demo-{time.strftime('%Y%m%d-%H%M%S')}")
    if max_steps < 1:
        raise InvalidInput("max_steps", max_steps, "an integer of at least 1")
    check_folder("run_dir", folder)
    if folder.exists() and any(folder.iterdir()):
        raise InvalidInput("run_dir", folder, "a folder that is new or empty; nothing is overwritten")
    started = time.monotonic()
    console = wide_console()
    console.print("Three rules, the same 2,048 strings, three grammars each (seeds are trained together, as replicas).")
    for name in RULES:
        task, rule = CONFIGS / "tasks" / "rhm_v8_m4_L4.yaml", CONFIGS / "rules" / f"{name}.yaml"
        own = [f"--run_dir={folder / name}", f"--trainer.max_steps={max_steps}", "--tables=false"]
        run("fit", [f"-c={task}", f"-c={rule}", *own])
    results = {name: read_json(folder / name / "results.json") for name in RULES}
    console.print_table(comparison(results))
    console.print("Layer l is where level l should become readable: the diagonal of each map.")
    picture = folder / "probes.png"
    maps = {f"{RULES[name]}": _probes(result).mean(-1) for name, result in results.items()}
    lowest = min(float(_probes(result, "probe_baseline").mean(-1).min()) for result in results.values())
    with writing("run_dir", folder):
        heat_map(maps, lowest).savefig(picture, dpi=150)
    console.print(f"{time.monotonic() - started:.0f} seconds in all. Heat maps of the probes: {picture}", soft_wrap=True)


def comparison(results: dict[str, dict[str, Any]]) -> Table:
    """One row a run: what it learned from, what a layer hands on, and how well it did."""
    task = Task(**next(iter(results.values()))["task"])
    table = Table(title=f"v={task.v} n={task.n} m={task.m} s={task.s} L={task.L}, chance {task.chance:.3f}")
    table.add_column("rule")
    table.add_column("hidden layers\nlearn from")
    table.add_column("layers\nhand on", no_wrap=True)
    table.add_column("test accuracy\n(± over seeds)", justify="right", no_wrap=True)
    for layer in range(1, task.L + 1):
        table.add_column(f"layer {layer}\non level {layer}", justify="right", no_wrap=True)
    for result in results.values():
        probes = _probes(result)
        own = [mean_and_deviation(probes[k, k + 1]).split(" ")[0] for k in range(task.L)]
        pairs = result["supervision"]["pairs"]
        source = "labels" if result["supervision"]["rule"] == "labels" else f"{pairs}, no label"
        accuracy = mean_and_deviation([r["test_accuracy"] for r in result["replicas"]])
        network = result["network"]
        normalised = " normalised" if network["bottleneck"] or network["normalise"] else ""
        table.add_row(result["rule"], source, f"{network['handed_on'][0]}{normalised}", accuracy, *own)
    return table


def _probes(result: dict[str, Any], name: str = "probe_logistic") -> Tensor:
    """Logistic probe accuracy ``[layers, levels, R]`` of a run's results, or that of their baseline."""
    per_replica = [[list(levels.values()) for levels in r[name].values()] for r in result["replicas"]]
    return torch.tensor(per_replica).movedim(0, -1)

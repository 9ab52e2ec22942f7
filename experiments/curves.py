"""``rhm curves``: test accuracy against training-set size, from the results of runs."""

from __future__ import annotations

import json
from pathlib import Path

from callbacks.figures import learning_curves
from experiments.tables import replica_table, wide_console
from rhm import InvalidInput


def curves(run_dirs: list[str], out: str) -> None:
    """Draw the learning curves of finished runs and print their tables.

    Args:
        run_dirs: folders of runs with a list of training-set sizes, of one task.
        out: picture to write, PNG or SVG.
    """
    if Path(out).exists():
        raise InvalidInput("out", out, "a file that does not exist yet; nothing is overwritten")
    if Path(out).suffix not in (".png", ".svg"):
        raise InvalidInput("out", out, "a file name that ends in .png or .svg")
    lines: dict[str, tuple[list[int], list[float], list[float], list[float]]] = {}
    tasks, chance, console = [], 0.0, wide_console()
    for run_dir in run_dirs:
        path = Path(run_dir) / "results.json"
        try:
            results = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise InvalidInput("run_dirs", run_dir, "folders with a readable results.json") from error
        tasks.append(results["task"])
        if tasks[-1] != tasks[0]:
            raise InvalidInput("run_dirs", f"{run_dir} with task {tasks[-1]}", f"runs of one task, {tasks[0]}")
        console.print(replica_table(results))
        by_size: dict[int, list[float]] = {}
        for replica in results["replicas"]:
            if replica["train_size"] is None or replica["test_accuracy"] is None:
                raise InvalidInput("run_dirs", run_dir, "runs that were tested and have a training-set size")
            by_size.setdefault(replica["train_size"], []).append(replica["test_accuracy"])
            chance = replica["chance"]
        pairs = results["supervision"]["pairs"]
        name = results["rule"] + (f", {pairs}" if pairs else "")
        sizes = sorted(by_size)
        mean = [sum(by_size[p]) / len(by_size[p]) for p in sizes]
        lines[name] = sizes, mean, [min(by_size[p]) for p in sizes], [max(by_size[p]) for p in sizes]
    learning_curves(lines, chance).savefig(out, dpi=150)
    console.print(f"learning curves (mean, lowest and highest over seeds): {out}")

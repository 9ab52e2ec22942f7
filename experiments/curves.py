"""``rhm curves``: test accuracy against training-set size, from the results of runs."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.figures import Curve, learning_curves
from experiments.run_folder import new_file
from experiments.tables import replica_table, wide_console
from rhm import InvalidInput


def curves(run_dirs: list[str], out: str) -> None:
    """Draw the learning curves of finished runs and print their tables.

    Args:
        run_dirs: folders of runs with a list of training-set sizes, of one task.
        out: picture to write, PNG or SVG.
    """
    new_file("out", out, (".png", ".svg"))
    if not run_dirs:
        raise InvalidInput("run_dirs", run_dirs, "folders of finished runs, one or more")
    lines: dict[str, Curve] = {}
    tasks, chance, console = [], 0.0, wide_console()
    for run_dir in run_dirs:
        try:
            results = json.loads((Path(run_dir) / "results.json").read_text())
            finished = results["status"] == "finished" and None not in [r["train_size"] for r in results["replicas"]]
            pairs, chance = results["supervision"]["pairs"], results["replicas"][0]["chance"]
            tasks.append(results["task"])
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise InvalidInput("run_dirs", run_dir, "folders with a readable results.json") from error
        if not finished:
            raise InvalidInput("run_dirs", run_dir, "finished runs with a training-set size")
        if tasks[-1] != tasks[0]:
            raise InvalidInput("run_dirs", f"{run_dir} with task {tasks[-1]}", f"runs of one task, {tasks[0]}")
        console.print(replica_table(results))
        by_size: dict[int, list[float]] = {}
        for replica in results["replicas"]:
            by_size.setdefault(replica["train_size"], []).append(replica["test_accuracy"])
        name = results["rule"] + (f", {pairs}" if pairs else "")
        if name in lines:  # two runs of one rule are told apart by their folders
            name = f"{name} ({Path(run_dir).name})"
        sizes = sorted(by_size)
        mean = [sum(by_size[p]) / len(by_size[p]) for p in sizes]
        lines[name] = Curve(sizes, mean, [min(by_size[p]) for p in sizes], [max(by_size[p]) for p in sizes])
    learning_curves({"": lines}, {"": chance}).savefig(out, dpi=150)
    console.print(f"learning curves (mean, lowest and highest over seeds): {out}")

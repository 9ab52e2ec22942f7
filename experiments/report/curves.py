"""``rhm curves``: test accuracy against training-set size, from the results of runs."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from experiments.files import new_file
from experiments.report.figures import Curve, learning_curves
from experiments.run.tables import by_size, replica_table, sizes_of
from experiments.terminal import wide_console
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
        name = results["rule"] + (f", {pairs}" if pairs else "")
        if any(line.startswith(name) for line in lines):  # two runs of one rule are told apart by their folders
            name = f"{name} ({Path(run_dir).name})"
        found: dict[str, dict[int, list[float]]] = {}
        for (strings, labels), places in by_size(sizes_of(results)).items():
            line = name if labels is None else f"{name}, {labels:,} labels"
            assert strings is not None
            found.setdefault(line, {})[strings] = [results["replicas"][r]["test_accuracy"] for r in places]
        for line, points in found.items():
            sizes = sorted(points)
            mean = [statistics.fmean(points[p]) for p in sizes]
            lines[line] = Curve(sizes, mean, [min(points[p]) for p in sizes], [max(points[p]) for p in sizes])
    learning_curves({"": lines}, {"": chance}).savefig(out, dpi=150)
    console.print(f"learning curves (mean, lowest and highest over seeds): {out}")

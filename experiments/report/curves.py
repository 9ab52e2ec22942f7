"""``rhm curves``: test accuracy against training-set size, from the results of runs."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

from experiments.files import UNREADABLE, new_file, number_of, read_json, text_of, whole_of, writing
from experiments.report.figures import Curve, learning_curves
from experiments.run.tables import by_size, print_replicas, size_name, sizes_of
from experiments.terminal import wide_console
from rhm import InvalidInput, Task


def curves(run_dirs: list[str], out: str) -> None:
    """Draw the learning curves of finished runs and print their tables.

    Args:
        run_dirs: folders of runs with a list of training-set sizes, of one task.
        out: picture to write, PNG or SVG.
    """
    new_file("out", out, (".png", ".svg"))
    if not run_dirs:
        raise InvalidInput("run_dirs", run_dirs, "folders of finished runs, one or more")
    if len({Path(run_dir).resolve() for run_dir in run_dirs}) < len(run_dirs):
        raise InvalidInput("run_dirs", run_dirs, "different folders")
    runs = [_read(run_dir) for run_dir in run_dirs]
    task, origin, console = runs[0]["task"], runs[0].get("origin", {}), wide_console()
    for run_dir, results in zip(run_dirs, runs, strict=True):
        if results["task"] != task:
            raise InvalidInput("run_dirs", f"{run_dir} with task {results['task']}", f"runs of one task, {task}")
        if results.get("origin", {}) != origin:
            allowed = f"runs of the same statistics, {origin or 'those of a plain grammar'}"
            raise InvalidInput("run_dirs", f"{run_dir} with {results.get('origin') or 'a plain grammar'}", allowed)
    lines: dict[str, Curve] = {}
    for name, results in zip(_names(run_dirs, runs), runs, strict=True):
        print_replicas(console, results)
        found: dict[str, dict[int, list[float]]] = {}
        for (strings, labels), places in by_size(sizes_of(results)).items():
            line = name if labels is None else f"{name}, {labels:,} labels"
            assert strings is not None
            found.setdefault(line, {})[strings] = [results["replicas"][r]["test_accuracy"] for r in places]
        for line, points in found.items():
            sizes = sorted(points)
            mean = [statistics.fmean(points[p]) for p in sizes]
            lines[line] = Curve(sizes, mean, [min(points[p]) for p in sizes], [max(points[p]) for p in sizes])
    chance = runs[0]["replicas"][0]["chance"]
    with writing("out", out, "file"):
        laws = Task(**task).laws if "m" in task and not origin else {}
        learning_curves({"": lines}, {"": chance}, laws={"": laws}).savefig(out, dpi=150)
    console.print(f"learning curves (mean, lowest and highest over seeds): {out}", soft_wrap=True)


def _read(run_dir: str) -> dict[str, Any]:
    """Results that can be drawn."""
    allowed = "folders of finished runs with a training-set size, whose results.json can be read"
    try:
        results: dict[str, Any] = read_json(Path(run_dir) / "results.json")
        if results["status"] != "finished":
            raise ValueError(f"status {results['status']}")
        text_of(results, "rule")
        text_of(results["supervision"], "rule")
        if results["supervision"]["pairs"] is not None:
            text_of(results["supervision"], "pairs")
        chance, seen = chance_of(results), set[tuple[int, ...]]()
        for replica in results["replicas"]:
            number_of(replica, "test_accuracy", most=1)
            if not math.isclose(number_of(replica, "chance"), chance):
                raise ValueError(f"chance is {replica['chance']}, that of the task {chance:g}")
            labels = None if replica.get("label_size") is None else whole_of(replica, "label_size", 1)
            key = whole_of(replica, "train_size", 1), labels or 0, whole_of(replica, "seed")
            if key in seen:
                raise ValueError(f"seed {replica['seed']} of {size_name((key[0], labels))} is there twice")
            seen.add(key)
        if not seen:
            raise ValueError("no replicas")
    except UNREADABLE as error:
        raise InvalidInput("run_dirs", f"{run_dir} ({type(error).__name__}: {error})", allowed) from error
    return results


def chance_of(results: dict[str, Any]) -> float:
    """That of the task's classes, which are balanced where a grammar makes the strings; else what the run says of its first."""
    task = results["task"]
    return Task(**task).chance if "m" in task else number_of(results["replicas"][0], "chance", most=1)


def _names(run_dirs: list[str], runs: list[dict[str, Any]]) -> list[str]:
    """A name for each run: its rule, its pairs and, where others have the same, as much of its folder as tells it from them."""
    rules = [results["rule"] + (f", {pairs}" if (pairs := results["supervision"]["pairs"]) else "") for results in runs]
    parts = [Path(run_dir).resolve().parts for run_dir in run_dirs]
    names = []
    for rule, own in zip(rules, parts, strict=True):
        alike = [other for name, other in zip(rules, parts, strict=True) if name == rule and other != own]
        depth = next(n for n in range(1, len(own) + 1) if all(other[-n:] != own[-n:] for other in alike))
        names.append(f"{rule} ({'/'.join(own[-depth:])})" if alike else rule)
    return names

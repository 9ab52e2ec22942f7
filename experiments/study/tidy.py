"""The results of a study's runs as one table, and what can be computed from it.

Shape suffixes: S seed, P training-set size.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars

from experiments.files import UNREADABLE, number_of, read_json, read_settings, text_of, whole_of
from experiments.study.complexity import Floats, SampleComplexity, neighbours, sample_complexity
from experiments.study.names import cell_label, task_label
from experiments.study.plan import Run
from experiments.study.study import TASK_KEYS
from rhm import Task

GROUP = ["rule", "task", "cell"]
"""Columns that tell learning curves apart."""
NEAR = 1.1
"""Sizes that differ by less than this factor tell the same: seeds scatter P* by more."""
SCHEMA = {
    "run": polars.String,
    "stage": polars.String,
    "rule": polars.String,
    "class": polars.String,
    "supervision": polars.String,
    "pairs": polars.String,
    "top_layer": polars.String,
    "network": polars.String,
    "task": polars.String,
    **dict.fromkeys(TASK_KEYS, polars.Int64),
    "cell": polars.String,
    "vary": polars.String,
    "P": polars.Int64,
    "seed": polars.Int64,
    "train_size": polars.Int64,
    "label_size": polars.Int64,
    "readout_labels": polars.Int64,
    "test_accuracy": polars.Float64,
    "test_error": polars.Float64,
    "chance": polars.Float64,
    "diverged": polars.Boolean,
    "converged": polars.Boolean,
    "n m^L": polars.Float64,
    "v m^3": polars.Float64,
    "steps": polars.Int64,
    "seconds": polars.Float64,
    "operations": polars.Float64,
    "plain": polars.Boolean,
    "masks": polars.String,
    "feedback": polars.String,
}


@dataclass
class Gathered:
    """What was found of a study.

    Attributes:
        table: a row for each replica; columns as in ``SCHEMA`` and ``probe/layerK/levelL``, ``sensitivity/...``.
        missing: runs without results or with those of a stopped run.
        damaged: runs with results that cannot be read, and why.
    """

    table: polars.DataFrame
    missing: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)


def gather(folder: Path, runs: list[Run]) -> Gathered:
    """Read the results of runs; what cannot be read is named and left out.

    Args:
        folder: of the runs.
        runs: those that are expected.
    """
    rows: list[dict[str, Any]] = []
    missing, damaged = [], {}
    for run in runs:
        path = folder / run.name / "results.json"
        if not path.exists():
            missing.append(run.name)
            continue
        try:
            results = read_json(path)
            if results["status"] != "finished":
                missing.append(run.name)
                continue
            rows += _rows(run, results, _ladder(path.parent / "config.yaml", results["rule"]))
        except UNREADABLE as error:
            damaged[run.name] = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    columns: dict[str, Any] = dict(SCHEMA)
    for row in rows:
        columns |= {key: polars.Float64 for key in row if key not in columns}
    return Gathered(polars.DataFrame(rows, schema=columns), missing, damaged)


def _rows(run: Run, results: dict[str, Any], ladder: dict[str, str]) -> list[dict[str, Any]]:
    task, source = Task(**results["task"]), results["supervision"]
    if task != Task(**run.task):
        raise ValueError(f"the task is {task_label(task)}")
    replicas = [(whole_of(replica, "seed"), whole_of(replica, run.vary, 1)) for replica in results["replicas"]]
    if sorted(replicas) != sorted(itertools.product(run.seeds, run.sizes)):
        raise ValueError("replicas are not those of the run: each size with each seed, once")
    rows: list[dict[str, Any]] = []
    for replica, labels in zip(results["replicas"], source["readout_labels"], strict=True):
        accuracy = number_of(replica, "test_accuracy", most=1)
        if not math.isclose(number_of(replica, "chance"), task.chance):
            raise ValueError(f"chance is {replica['chance']}, that of the task {task.chance:g}")
        rows.append(
            {
                "run": run.name,
                "stage": run.stage,
                "rule": run.rule,
                "class": text_of(results, "rule"),
                "supervision": text_of(source, "rule"),
                "pairs": None if source["pairs"] is None else text_of(source, "pairs"),
                "top_layer": str(source["layers"][-1]) if source.get("layers") else None,
                "network": _network(results.get("network")),
                "task": task_label(task),
                **vars(task),
                "cell": cell_label(run.cell),
                "vary": run.vary,
                "P": whole_of(replica, run.vary, 1),
                "seed": whole_of(replica, "seed"),
                "train_size": None if replica["train_size"] is None else whole_of(replica, "train_size"),
                "label_size": None if replica.get("label_size") is None else whole_of(replica, "label_size"),
                "readout_labels": whole_of({"readout_labels": labels}, "readout_labels"),
                "test_accuracy": accuracy,
                "test_error": 1 - accuracy,
                "chance": task.chance,
                "diverged": replica.get("diverged") is True,
                "converged": replica["converged"] if isinstance(replica.get("converged"), bool) else None,
                "n m^L": float(task.supervised_complexity),
                "v m^3": float(task.self_supervised_complexity),
                "steps": whole_of(replica if "steps" in replica else results, "steps"),
                "seconds": number_of(results, "seconds"),
                "operations": _operations(results, replica),
                "plain": not results.get("origin"),
                **ladder,
                **_layer_by_level("probe", replica.get("probe_logistic") or replica.get("probe")),
                **_layer_by_level("probe_baseline", replica.get("probe_baseline")),
                **_sensitivity(results.get("diagnostics"), len(rows)),
            }
        )
    return rows


def _operations(results: dict[str, Any], replica: dict[str, Any]) -> float | None:
    """Of a replica's whole training; None if the run does not say what a string takes."""
    if results.get("operations_per_string") is None:
        return None
    batch = whole_of(results, "samples_seen") / max(1, whole_of(results, "steps"))
    return number_of(results, "operations_per_string") * batch * whole_of(replica if "steps" in replica else results, "steps")


def _network(found: Any) -> str | None:
    """What a run's network was, in words; None where its results do not say it."""
    if not isinstance(found, dict):
        return None
    units, handed_on = (" ".join(map(str, dict.fromkeys(found[key][:-1] or found[key]))) for key in ("units", "handed_on"))
    parts = [text_of(found, "class").removesuffix("Network"), f"{units} {found.get('activation', '')} units"]
    parts += [f"{found['units'][-1]} at the top"] if str(found["units"][-1]) != units else []
    parts += [f"hands on {handed_on}"] if found.get("bottleneck") else []
    parts += ["normalised"] if found.get("bottleneck") or found.get("normalise") else []  # what a bottleneck hands on is
    return ", ".join(parts)


def _ladder(config: Path, rule: str) -> dict[str, str]:
    """Masks and feedback of a run of the mask ladder, from wherever they came: what the run was made with."""
    if rule != "MaskLadder":
        return {}
    settings = read_settings("config", config)["model"]["init_args"]
    return {key: text_of(settings, key) for key in ("masks", "feedback")}


def _layer_by_level(name: str, table: dict[str, Any] | None) -> dict[str, float | None]:
    """``{layer1: {level1: x}}`` as columns; what is not of that form is left out."""
    if not isinstance(table, dict):
        return {}
    return {
        f"{name}/{layer}/{level}": None if value is None else number_of(levels, level, most=1)
        for layer, levels in table.items()
        if re.fullmatch(r"layer\d+", layer) and isinstance(levels, dict)
        for level, value in levels.items()
        if re.fullmatch(r"level\d+", level)
    }


def _sensitivity(diagnostics: Any, r: int) -> dict[str, float | None]:
    """A replica's synonymic sensitivities, which are kept as ``{level1: {layer1: [one for each replica]}}``."""
    table = diagnostics.get("SynonymicSensitivity") if isinstance(diagnostics, dict) else None
    if not isinstance(table, dict):
        return {}
    return {
        f"sensitivity/{layer}/{level}": None if values[r] is None else number_of(values, r)
        for level, layers in table.items()
        if re.fullmatch(r"level\d+", level)
        for layer, values in layers.items()
        if re.fullmatch(r"layer\d+", layer)
    }


def curve(group: polars.DataFrame) -> tuple[Floats, Floats]:
    """Training-set sizes, rising, and test errors ``[seeds, sizes]`` of one rule on one task in one cell."""
    wide = group.pivot("seed", index="P", values="test_error", aggregate_function="mean").sort("P")
    error_PS = wide.drop("P").to_numpy().astype(float)
    whole = ~np.isnan(error_PS).any(1)
    return wide["P"].to_numpy().astype(float)[whole], error_PS[whole].T


def complexities(table: polars.DataFrame, threshold: float) -> dict[tuple[str, str, str], SampleComplexity]:
    """P* for each rule, task and cell, from the runs that are not part of a search."""
    found = {}
    figures = table.filter(~polars.col("stage").str.starts_with("search"))
    for key, group in figures.group_by(GROUP, maintain_order=True):
        size_P, error_SP = curve(group)
        if len(size_P):
            bound = threshold * (1 - group["chance"][0])
            found[str(key[0]), str(key[1]), str(key[2])] = sample_complexity(size_P, error_SP, bound)
    return found


def next_size(size_P: Floats, complexity: SampleComplexity) -> int | None:
    """The size half way, in log P, between the last that fails and the first that passes; None if there is none between."""
    if not complexity.reached:
        return None
    below, above = neighbours(size_P, complexity.value)
    size = round(math.sqrt(below * above))
    return size if below < size < above and above / below > NEAR else None

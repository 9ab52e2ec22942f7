"""Studies without training: results as runs would have written them, from learning curves that are known."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments.study.file import study_yaml
from experiments.study.folder import StudyFolder
from experiments.study.grid import expand
from experiments.study.plan import Plan, Run
from experiments.study.study import Rule, Sizes, Study
from rhm import Task

Accuracy = Callable[[Run, Task, float, np.random.Generator], float]


def sigmoid_curve(p_star: Callable[[Run, Task], float], width: float = 0.25, noise: float = 0.02) -> Accuracy:
    """Accuracies whose error crosses a tenth of the chance error at ``p_star``, with noise."""

    def accuracy(run: Run, task: Task, size: float, rng: np.random.Generator) -> float:
        shift = np.log(9) * width  # the sigmoid is at a tenth so far beyond its middle
        error = (1 - task.chance) / (1 + np.exp((np.log(size / p_star(run, task)) + shift) / width))
        return float(np.clip(1 - error + noise * rng.normal() * error, 0, 1))

    return accuracy


def results(run: Run, accuracy: Accuracy, maps: bool = True, **more: Any) -> dict[str, Any]:
    """``results.json`` of a finished run."""
    task, rng = Task(**run.task), np.random.default_rng(len(run.name))
    siblings = "contrastive" in run.rule or run.rule in ("clapp", "lpl")
    replicas = []
    for seed in run.seeds:
        for size in run.sizes:
            own = accuracy(run, task, size, rng)
            probe = {f"layer{k}": {f"level{l}": own ** abs(k - l) for l in range(task.L + 1)} for k in range(1, task.L + 1)}
            sizes = {"train_size": 4096, "label_size": None, run.vary: size}
            replica = {"seed": seed, **sizes, "test_accuracy": own, "chance": task.chance, "probe": probe}
            replicas.append(replica if maps else {**replica, "probe": {}})
    layers = {f"layer{k}": [float(k)] * len(replicas) for k in range(1, task.L + 1)}
    diagnostics = {"SynonymicSensitivity": {f"level{l}": layers for l in range(1, task.L + 1)}} if maps else {}
    return {
        "rule": "MaskLadder" if run.rule.startswith("rung") else run.rule.title(),
        "task": run.task,
        "supervision": {
            "rule": "none" if siblings else "labels",
            "pairs": "SiblingPairs" if siblings else None,
            "readout_labels": [size for _ in run.seeds for size in run.sizes],
        },
        "replicas": replicas,
        "diagnostics": diagnostics,
        "steps": run.steps,
        "seconds": 12.5,
        "status": "finished",
        **more,
    }


def fake_study(folder: Path, study: Study, accuracy: Accuracy, maps: bool = True) -> list[Run]:
    """A study's folder in which the grid is finished."""
    combinations, skipped = expand(study)
    runs = [c.run("grid", c.sizes, study.seeds, {}) for c in combinations]
    place = StudyFolder(folder)
    for run in runs:
        path = place.runs / run.name / "results.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(results(run, accuracy, maps)), encoding="utf-8")
        given = dict(argument.removeprefix("--").split("=", 1) for argument in run.args)
        settings = {"masks": given.get("model.masks", "constant"), "feedback": given.get("model.feedback", "transposed")}
        (path.parent / "config.yaml").write_text(yaml.safe_dump({"model": {"init_args": settings}}), encoding="utf-8")
    place.study.write_text(study_yaml(study), encoding="utf-8")
    place.plan.write_text(Plan(runs, skipped, []).text(), encoding="utf-8")
    return runs


def ignores_interrupts(folder: str) -> None:
    """A job that ends by itself only after a minute."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path(folder, "begun").touch()
    time.sleep(60)


def ends_its_process(*args: str) -> None:
    """A job that is killed, for want of memory, say."""
    os._exit(9)


# -------------------------------------------------------------------- a study whose answer is known

SIBLINGS, BACKPROP = 900.0, 2.5
NAMES = ["backprop", "sibling_contrastive"]
STUDY = Study([Rule(name) for name in NAMES], [{"L": [3, 4, 5]}], Sizes([32, 128, 512, 2048, 8192, 32768]), "Does it <grow>?")


def p_star(run: Run, task: Task) -> float:
    """The numbers of strings that its two rules need."""
    return SIBLINGS if run.rule == "sibling_contrastive" else BACKPROP * task.supervised_complexity

"""Searches and comparisons whose runs are made up."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import yaml

from experiments.study.job import Failure
from experiments.study.launcher import Launcher


class MadeUpRuns:
    """Stands for ``launch``: runs of search and compare with made-up results, all but those that fail.

    Attributes:
        made: names of the jobs of all calls, but for those with which a rule's rate is searched.
        fails: ends of names.
    """

    def __init__(self, monkeypatch):
        self.made: list[str] = []
        self.fails: tuple[str, ...] = ()
        monkeypatch.setattr("experiments.study.search.launch", self)
        monkeypatch.setattr("experiments.study.compare.launch", self)

    def __call__(self, jobs, folder, launcher, title):
        self.made += [job.name for job in jobs if title != "search"]
        failed = {job.name: Failure("no memory") for job in jobs if job.name.endswith(self.fails)}
        for job in jobs:
            assert pickle.loads(pickle.dumps(job)) == job  # on its way to a worker
            if job.name in failed:
                continue
            run = Path(job.folder) if job.folder else job.args[0].final
            run.mkdir(parents=True, exist_ok=True)
            if title == "rules":
                (run.parent / "chosen.json").write_text('{"rate": 0.1, "step_time_ratio": 1.0}', encoding="utf-8")
            replicas = [{"train_size": size, "test_accuracy": 0.5} for size in (8, 16)]
            known = {
                "rule": "A",
                "supervision": {"rule": "labels", "pairs": None},
                "steps": 2,
                "replicas": replicas,
                "status": "finished",
            }
            (run / "results.json").write_text(json.dumps(known), encoding="utf-8")
            (run / "config.yaml").write_text(
                yaml.safe_dump({"data": {"init_args": {"pairs": None}}, "model": {}}), encoding="utf-8"
            )
        return failed


def in_this_process(monkeypatch) -> None:
    """Searches and comparisons start no process: that workers do what they are given is seen in other tests."""
    for module in "search", "compare":
        monkeypatch.setattr(f"experiments.study.{module}.Launcher", lambda jobs: Launcher("debug", jobs))


def task_file(path: Path, **changes) -> Path:
    small = {"v": 4, "n": 4, "m": 2, "L": 2, "train_size": [8, 16], "test_size": 8, "probe_size": 8, "batch_size": 4}
    data = {"class_path": "RHMDataModule", "init_args": {**small, "seeds": [0, 1], **changes}}
    path.write_text(yaml.safe_dump({"data": data, "trainer": {"max_steps": 2, "accelerator": "cpu"}}), encoding="utf-8")
    return path


def written(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def made_up_run(folder: Path, rule: str = "Backprop", **changes) -> str:
    """A finished run's results, for ``rhm curves``."""
    folder.mkdir(parents=True)
    replicas = [{"seed": s, "train_size": p, "test_accuracy": 0.5, "chance": 0.25} for s in (0, 1) for p in (32, 64)]
    task = {"v": 4, "n": 4, "m": 2, "s": 2, "L": 3}
    content = {"rule": rule, "task": task, "supervision": {"rule": "labels", "pairs": None}, "replicas": replicas}
    (folder / "results.json").write_text(json.dumps({**content, "status": "finished", **changes}), encoding="utf-8")
    return str(folder)

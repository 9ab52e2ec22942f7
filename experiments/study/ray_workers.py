"""Runs on a Ray cluster, through Ray Tune: an optional extra, ``pip install 'rhm-local-learning[ray]'``.

Shape suffixes: R replica.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from pathlib import Path
from typing import Any

import ray
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from experiments.study.job import Job, attempt
from experiments.study.launcher import Launcher, threads_of
from rules import LocalRule

REPORTS = 5
"""How often a run that competes says how far it is: after each fifth, and the least that it trains is one."""


class TuneReport(Callback):
    """Tells Ray Tune the mean test accuracy over replicas at every validation."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, except at the end: a run that has come so far is to be finished."""
        assert isinstance(pl_module, LocalRule)
        if trainer.global_step < trainer.max_steps:
            tune.report({"accuracy": float(pl_module.test_accuracy_R.mean()), "step": trainer.global_step})


class GroupASHA(FIFOScheduler):
    """Asynchronous successive halving (Li et al. 2020, arXiv 1810.05934) among the trials of each group by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: dict[str, ASHAScheduler] = {}

    def _group(self, trial: Any) -> ASHAScheduler:
        name, steps = trial.config["group"], trial.config["steps"]
        if name not in self.groups:
            least = max(1, steps // REPORTS)
            self.groups[name] = ASHAScheduler("step", "accuracy", "max", max_t=steps, grace_period=least, reduction_factor=2)
        return self.groups[name]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._group(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        return str(self._group(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if "accuracy" in result:
            self._group(trial).on_trial_complete(tune_controller, trial, result)


def trial(config: dict[str, Any], jobs: list[Job], session: str) -> None:
    """Do one job in a Ray worker."""
    torch.set_num_threads(config["threads"])
    job = jobs[config["job"]]
    mark = Path(session) / job.file
    mark.with_name(f"{mark.name}.taken").touch()
    attempt(job, mark)


def competing(job: Job) -> Job:
    """A run that reports while it trains."""
    args, folder, more = job.args
    every = max(1, job.steps // REPORTS)
    args = [*args, "--trainer.limit_val_batches=null", f"--trainer.val_check_interval={every}"]
    return dataclasses.replace(job, args=(args, folder, [*more, {"class_path": "experiments.study.ray_workers.TuneReport"}]))


class RayWorkers:
    """A Tuner in a thread of its own.

    Args:
        jobs: what to do.
        session: folder of this start's marks, on a file system that all workers see.
        launcher: how many at a time.
        compete: whether a run may be ended early that is behind others of its group.
    """

    def __init__(self, jobs: list[Job], session: Path, launcher: Launcher, compete: bool):
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its own progress display, which `verbose` then silences
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        self.jobs, self.session = jobs, session
        told = [competing(job) for job in jobs] if compete else jobs
        resources = {"cpu": 1.0, "gpu": 1.0 if ray.cluster_resources().get("GPU") else 0.0}
        threads = threads_of(1)  # here, as Ray sets the variable of its workers
        each = [
            {"job": i, "threads": threads, "group": job.name.rsplit("/", 1)[0], "steps": job.steps}
            for i, job in enumerate(jobs)
        ]
        self.tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trial, jobs=told, session=str(session)), resources),
            param_space=tune.grid_search(each),
            tune_config=tune.TuneConfig(
                max_concurrent_trials=launcher.jobs, scheduler=GroupASHA() if compete else FIFOScheduler()
            ),
            run_config=tune.RunConfig(storage_path=str(session / "ray"), verbose=0),
        )
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._fit, daemon=True)
        self.thread.start()

    def _fit(self) -> None:
        try:
            results = self.tuner.fit()
        except BaseException as error:  # given to the thread that waits
            self.error = error
            return
        for i in range(len(results)):
            result = results[i]
            job = self.jobs[result.config["job"]] if result.config else None
            if job is None or (self.session / f"{job.file}.done").exists() or result.error is not None:
                continue
            if result.metrics and "accuracy" in result.metrics:
                accuracy, step = result.metrics["accuracy"], result.metrics["step"]
                text = f"stopped early: test accuracy {accuracy:.3f} at step {step}, behind others"
                (self.session / f"{job.file}.behind").write_text(text, encoding="utf-8")

    def done(self) -> bool:
        """Whether all trials have ended."""
        if self.error is not None:
            raise self.error
        return not self.thread.is_alive()

    def stop(self) -> None:
        """End all trials that this process has started."""
        ray.shutdown()

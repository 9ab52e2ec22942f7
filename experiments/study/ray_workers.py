"""Runs on a Ray cluster, through Ray Tune: an optional extra, ``pip install 'rhm-local-learning[ray]'``."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from experiments.study.job import Job, attempt
from experiments.study.launcher import Launcher, threads_of
from rhm.names import look_in, looked_in


def trial(config: dict[str, Any], jobs: list[Job], session: str, folder: str) -> None:
    """Do one job in a Ray worker, which is in another folder than the sweep."""
    look_in(folder)
    torch.set_num_threads(config["threads"])
    job = jobs[config["job"]]
    mark = Path(session) / job.file
    mark.with_name(f"{mark.name}.taken").touch()
    attempt(job, mark)


class RayWorkers:
    """A Tuner in a thread of its own.

    Args:
        jobs: what to do.
        session: folder of this start's marks, on a file system that all workers see.
        launcher: how many at a time.
    """

    def __init__(self, jobs: list[Job], session: Path, launcher: Launcher):
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # its own progress display, which `verbose` then silences
        if not ray.is_initialized():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        resources = {"cpu": 1.0, "gpu": 1.0 if ray.cluster_resources().get("GPU") else 0.0}
        threads = threads_of(1)  # here, as Ray sets the variable of its workers
        each = [{"job": i, "threads": threads} for i in range(len(jobs))]
        self.tuner = tune.Tuner(
            tune.with_resources(tune.with_parameters(trial, jobs=jobs, session=str(session), folder=looked_in()), resources),
            param_space=tune.grid_search(each),
            tune_config=tune.TuneConfig(max_concurrent_trials=launcher.jobs),
            run_config=tune.RunConfig(storage_path=str(session / "ray"), verbose=0),
        )
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._fit, daemon=True)
        self.thread.start()

    def _fit(self) -> None:
        try:
            self.tuner.fit()
        except BaseException as error:  # given to the thread that waits
            self.error = error

    def done(self) -> bool:
        """Whether all trials have ended."""
        if self.error is not None:
            raise self.error
        return not self.thread.is_alive()

    def stop(self) -> None:
        """End all trials that this process has started."""
        ray.shutdown()

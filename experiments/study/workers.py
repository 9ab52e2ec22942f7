"""Workers that take one job after another, on this machine or in a Slurm array, both through submitit."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import submitit
import torch

from experiments.study.job import Job, attempt, take
from experiments.study.launcher import Launcher, threads_of
from rhm import InvalidInput
from rhm.names import looked_in, made

YEAR_MINUTES = 365 * 24 * 60
"""More than any worker of this machine needs; submitit asks for a limit."""


class Worker:
    """Does jobs that no other worker has taken, until none is left; what fails is written down.

    A Slurm job that is requeued, for its time is over, goes on with the job that it has taken.
    """

    def __reduce__(self) -> tuple[Any, tuple[str, str, str]]:
        """As a pickle: a worker's process may find another ``experiments`` first, and be in another folder."""
        return made, (__name__, "Worker", looked_in())

    def __call__(self, session: str, jobs: list[Job], cores: int | None, pipe: str | None) -> None:
        """Work.

        Args:
            session: folder of this start's marks: ``NAME.taken``, ``NAME.done`` and ``NAME.failed``.
            jobs: the same list for all workers.
            cores: threads of this worker; as many as it finds if None.
            pipe: the worker ends when it has no writer; when its work is done if None.
        """
        if pipe is not None:
            end_with(pipe)
        if cores is not None:
            torch.set_num_threads(cores)
        me = submitit.JobEnvironment().job_id
        for job in jobs:
            mark = Path(session) / job.file
            if take(mark, me):
                attempt(job, mark)

    def checkpoint(
        self, session: str, jobs: list[Job], cores: int | None, pipe: str | None
    ) -> submitit.helpers.DelayedSubmission:
        """What submitit starts again when a job's time is over."""
        return submitit.helpers.DelayedSubmission(Worker(), session, jobs, cores, pipe)


class SubmititWorkers:
    """So many submitit jobs, each of which works until nothing is left.

    Args:
        jobs: what to do.
        session: folder of this start's marks and logs.
        launcher: how many, and where.
        pipe: of :func:`open_pipe`; workers of this machine end when it has no writer.
    """

    def __init__(self, jobs: list[Job], session: Path, launcher: Launcher, pipe: str):
        count = min(launcher.jobs, len(jobs))
        self.jobs: list[submitit.Job[None]]
        executor = submitit.AutoExecutor(session, cluster=launcher.kind)
        if launcher.kind == "slurm":
            parameters = {"slurm_time": "1-00:00:00", **{_slurm(key): value for key, value in launcher.slurm.items()}}
            if "timeout_min" in parameters:
                del parameters["slurm_time"]
            try:
                executor.update_parameters(name="rhm", slurm_array_parallelism=count, **parameters)
            except (TypeError, ValueError, NameError) as error:
                raise InvalidInput("slurm", error, "parameters of submitit's Slurm executor") from error
            self.jobs = executor.map_array(Worker(), [str(session)] * count, [jobs] * count, [None] * count, [None] * count)
            return
        self.jobs = []
        gpus = torch.cuda.device_count()
        for i in range(count):
            cores, held = None, None
            if launcher.kind == "local":
                visible = {"local_visible_gpus": (i % gpus,)} if gpus else {}
                executor.update_parameters(timeout_min=YEAR_MINUTES, gpus_per_node=min(gpus, 1), **visible)
                cores, held = threads_of((os.cpu_count() or 1) // count), pipe
            with _children_say_nothing():
                self.jobs.append(executor.submit(Worker(), str(session), jobs, cores, held))

    def done(self) -> bool:
        """Whether all workers have ended."""
        for job in self.jobs:
            if isinstance(job, submitit.DebugJob):
                job.exception()  # runs it here
        return all(job.done() for job in self.jobs)

    def stop(self) -> None:
        """End all workers and wait until those of this machine are gone."""
        for job in self.jobs:
            job.cancel(check=False)
        for job in self.jobs:
            if isinstance(job, submitit.LocalJob) and job._process is not None:
                job._process.wait()


@contextlib.contextmanager
def _children_say_nothing() -> Iterator[None]:
    """Processes started here have no standard error: what workers say is in their logs, and an interrupt needs no traceback."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _slurm(key: str) -> str:
    general = ("timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node")
    return key if key in general or key.startswith("slurm_") else f"slurm_{key}"


@contextlib.contextmanager
def open_pipe() -> Iterator[str]:
    """A named pipe that has a writer as long as this process lives and is in this block, however it ends."""
    folder = tempfile.mkdtemp(prefix="rhm-")
    pipe = os.path.join(folder, "open")
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)  # for writing alone it would wait for a reader
    try:
        yield pipe
    finally:
        os.close(writer)
        shutil.rmtree(folder, ignore_errors=True)


def end_with(pipe: str) -> None:
    """End this process as soon as a pipe has no writer; its parent, submitit's controller, may live on."""

    def wait() -> None:
        try:
            reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # else it would wait for a writer that may be gone
            os.set_blocking(reader, True)
            os.read(reader, 1)
        finally:
            os._exit(1)

    threading.Thread(target=wait, daemon=True, name="end with the sweep").start()

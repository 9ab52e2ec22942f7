"""Many runs at once: workers that take one job after another, on this machine or in a Slurm array, both through submitit."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments.checkpoints import checkpoints, step_of
from experiments.run_folder import LiveRun, RunFolder
from experiments.tables import wide_console
from rhm import InvalidInput

LAUNCHERS = ("local", "slurm", "ray", "debug")
POLL_SECONDS = 0.2
YEAR_MINUTES = 365 * 24 * 60
LIVE_SECONDS = 5.0
"""Between two looks whether a run's folder is free."""
STOPPED_EARLY = "stopped early"
"""How the message of a run begins that was behind others."""
RAY_EXTRA = "a launcher whose package is installed: pip install 'rhm-local-learning[ray]'"


@dataclass(frozen=True)
class Job:
    """Something to be done in a process of its own.

    Attributes:
        name: for tables, and for its files.
        function: of a module, so that other processes find it.
        args: of the function.
        folder: run whose checkpoints tell how far it is, if it is a run.
        steps: its length, in whatever all jobs are counted in.
    """

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]
    folder: str | None = None
    steps: int = 1

    @property
    def file(self) -> str:
        """The name as that of a file."""
        return self.name.replace("/", "--")


@dataclass(frozen=True)
class Launcher:
    """Where jobs run.

    Args:
        kind: ``local``: processes of this machine, with a GPU each as far as there are; ``slurm``: an array of Slurm jobs;
            ``ray``: a Ray cluster, through Ray Tune; ``debug``: in this process, one after another.
        jobs: how many at a time. On this machine each has its share of the cores.
        slurm: parameters of submitit's Slurm executor, such as ``{partition: gpu, gpus_per_node: 1}``.

    Raises:
        InvalidInput: an unknown kind, no jobs, a package or program that is not there.
    """

    kind: str = "local"
    jobs: int = 2
    slurm: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in LAUNCHERS:
            raise InvalidInput("launcher", self.kind, f"one of {', '.join(LAUNCHERS)}")
        if self.jobs < 1:
            raise InvalidInput("jobs", self.jobs, "an integer of at least 1")
        if self.kind == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise InvalidInput("launcher", "slurm", "slurm on a machine that has the programs sbatch and srun")
        if self.kind == "ray":
            try:
                importlib.import_module("ray.tune")
            except ImportError:
                raise InvalidInput("launcher", "ray", RAY_EXTRA) from None


def launch(
    jobs: list[Job],
    folder: Path,
    launcher: Launcher,
    title: str,
    compete: bool = False,
    failed: dict[str, str] | None = None,
) -> dict[str, str]:
    """Do all jobs, with one progress display, and return the messages of those that failed, by name.

    Workers take jobs in their order, whoever is free the next one. Logs stay in ``FOLDER/jobs`` if something failed. An
    interrupt ends the workers too.

    Args:
        jobs: what to do.
        folder: shared by all workers.
        launcher: where.
        title: of the progress display.
        compete: whether a launcher that can (Ray) may end a job early that is behind others of its group.
        failed: messages of earlier starts, which are brought up to date, also by an interrupt: a job's goes when it is started
            again and comes when it fails.

    Raises:
        SystemExit: all workers have ended, killed perhaps, before all jobs were begun.
    """
    failed = {} if failed is None else failed
    if not jobs:
        return failed
    session = folder / "jobs" / time.strftime("%Y%m%d-%H%M%S")
    while session.exists():
        session = session.with_name(session.name + "-")
    session.mkdir(parents=True)
    ended = False
    with open_pipe() as pipe:
        if launcher.kind == "ray":
            from experiments.launch_ray import RayWorkers

            workers: Any = RayWorkers(jobs, session, launcher, compete)
        else:
            workers = SubmititWorkers(jobs, session, launcher, pipe)
        try:
            watch(jobs, session, workers, title)
            ended = True
        except BaseException:  # also an interrupt
            workers.stop()
            raise
        finally:
            free = _bring_up_to_date(failed, jobs, session, ended)
    if free:
        print(f"rhm: all workers have ended, and {free} of {len(jobs)} runs were not begun: see {session}", file=sys.stderr)
        print("the same command goes on", file=sys.stderr)
        raise SystemExit(1)
    if not any(job.name in failed for job in jobs):
        shutil.rmtree(session)
    return failed


def _bring_up_to_date(failed: dict[str, str], jobs: list[Job], session: Path, ended: bool) -> int:
    """Put what a session's marks say into the messages; the number of jobs that nobody has taken."""
    free = 0
    for job in jobs:
        taken, done, message = (session / f"{job.file}.{mark}" for mark in ("taken", "done", "failed"))
        if message.exists():
            failed[job.name] = message.read_text()
        elif done.exists() or taken.exists():
            failed.pop(job.name, None)
            if ended and not done.exists():
                failed[job.name] = f"its worker ended before it did; see {session}"
        else:
            free += 1
    return free


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
                cores, held = max(1, (os.cpu_count() or 1) // count), pipe
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


class Worker:
    """Does jobs that no other worker has taken, until none is left; what fails is written down.

    A Slurm job that is requeued, for its time is over, goes on with the job that it has taken.
    """

    def __call__(self, session: str, jobs: list[Job], cores: int | None, pipe: str | None) -> None:
        """Work.

        Args:
            session: folder of this start's marks: ``NAME.taken``, ``NAME.done`` and ``NAME.failed``.
            jobs: the same list for all workers.
            cores: that this worker may use; as many as it finds if None.
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


def take(mark: Path, me: str) -> bool:
    """Whether a job was free, or this worker's own and not ended; now it is this worker's."""
    taken = mark.with_name(f"{mark.name}.taken")
    try:
        with taken.open("x") as file:
            file.write(me)
    except FileExistsError:
        ended = any(mark.with_name(f"{mark.name}.{how}").exists() for how in ("done", "failed"))
        return taken.read_text() == me and not ended
    return True


def attempt(job: Job, mark: Path) -> None:
    """Do a job and leave ``MARK.done`` or ``MARK.failed``."""
    try:
        job.function(*job.args)
    except Exception as error:
        print(f"{job.name}: {type(error).__name__}: {error}", file=sys.stderr)
        mark.with_name(f"{mark.name}.failed").write_text(" ".join(str(error).split())[:300] or type(error).__name__)
    else:
        mark.with_name(f"{mark.name}.done").touch()


def watch(jobs: list[Job], session: Path, workers: Any, title: str) -> None:
    """Show how far all jobs are, until the workers have ended."""
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn()
    with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[running]}"), console=wide_console()) as bar:
        line = bar.add_task(title, total=sum(job.steps for job in jobs), running="")
        last = False
        while not last:
            last = workers.done()
            steps, running, ended, failed = 0.0, [], 0, 0
            for job in jobs:
                if any((session / f"{job.file}.{mark}").exists() for mark in ("done", "failed")):
                    steps, ended = steps + job.steps, ended + 1
                    failed += (session / f"{job.file}.failed").exists()
                elif (session / f"{job.file}.taken").exists():
                    running.append(job.name)
                    steps += _step(job)
            count = f"{title} {ended}/{len(jobs)}" + (f", {failed} failed" if failed else "")
            bar.update(line, completed=steps, description=count, running=" ".join(running[:2]))
            if not last:
                time.sleep(POLL_SECONDS)


def _step(job: Job) -> int:
    """Steps of a run's last checkpoint."""
    found = [] if job.folder is None else checkpoints(RunFolder(job.folder).checkpoints)
    return step_of(found[-1]) if found else 0


def fit(args: list[str], folder: str, more_callbacks: Sequence[Any] = ()) -> None:
    """Make a run, or go on with it, if it is not finished. Its checkpoints go when it is.

    A run that another process is making is waited for: a worker of a sweep that was killed, say.

    Args:
        args: of ``rhm fit``.
        folder: of the run.
        more_callbacks: beside ridge probes; logistic ones take longest.

    Raises:
        RuntimeError: the run was refused; the message says why.
        KeyboardInterrupt: the run was interrupted.
    """
    from experiments.cli import main

    run = RunFolder(folder)
    while not run.finished:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                main(["fit", *fit_arguments(args, folder, more_callbacks)])
        except SystemExit as error:
            if isinstance(error.code, int) and error.code >= 128:  # a signal ended it, and it can go on
                raise KeyboardInterrupt from None
            if not isinstance(error.__context__, LiveRun):
                raise RuntimeError(said.getvalue().strip().splitlines()[-1].removeprefix("rhm: ")) from error
            time.sleep(LIVE_SECONDS)
        else:
            break
        finally:
            print(said.getvalue(), file=sys.stderr, end="")
    shutil.rmtree(run.checkpoints, ignore_errors=True)


def fit_arguments(args: list[str], folder: str, more_callbacks: Sequence[Any]) -> list[str]:
    """A run's arguments with what all runs of a study have in common."""
    probe = {"class_path": "callbacks.LayerwiseLinearProbe", "init_args": {"logistic": False}}
    more = [{"class_path": callback} if isinstance(callback, str) else callback for callback in more_callbacks]
    callbacks = f"--trainer.callbacks={json.dumps([probe, *more])}"
    quiet = ["--tables=false", "--trainer.enable_progress_bar=false", "--trainer.logger=false"]
    return [*args, *quiet, callbacks, f"--run_dir={folder}"]

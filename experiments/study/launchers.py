"""Many jobs at once: workers are started, watched and, by an interrupt, ended."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from experiments.study.job import Failure, Job
from experiments.study.launcher import Launcher
from experiments.study.workers import SubmititWorkers, open_pipe
from experiments.terminal import wide_console

POLL_SECONDS = 0.2
"""Between two looks at the marks of jobs."""


def launch(
    jobs: list[Job],
    folder: Path,
    launcher: Launcher,
    title: str,
    failed: dict[str, Failure] | None = None,
) -> dict[str, Failure]:
    """Do all jobs that are not finished, with one progress display, and return why others have failed, by name.

    Workers take jobs in their order, whoever is free the next one. Logs stay in ``FOLDER/jobs`` if something failed. An
    interrupt ends the workers too.

    Args:
        jobs: what to do.
        folder: shared by all workers.
        launcher: where.
        title: of the progress display.
        failed: of earlier starts, which is brought up to date, also by an interrupt: a job goes when it is started again and
            comes when it fails.

    Raises:
        SystemExit: all workers have ended, killed perhaps, before all jobs were begun.
    """
    failed = {} if failed is None else failed
    finished = [job for job in jobs if job.finished]
    for job in finished:
        failed.pop(job.name, None)
    jobs = [job for job in jobs if job not in finished]
    if not jobs:
        return failed
    session = folder / "jobs" / time.strftime("%Y%m%d-%H%M%S")
    while session.exists():
        session = session.with_name(session.name + "-")
    session.mkdir(parents=True)
    ended = False
    with open_pipe() as pipe:
        if launcher.kind == "ray":
            from experiments.study.ray_workers import RayWorkers  # an optional package

            workers: Any = RayWorkers(jobs, session, launcher)
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


def _bring_up_to_date(failed: dict[str, Failure], jobs: list[Job], session: Path, ended: bool) -> int:
    """Put what a session's marks say into what has failed; the number of jobs that nobody has taken."""
    free = 0
    for job in jobs:
        taken, done, error = (session / f"{job.file}.{mark}" for mark in ("taken", "done", "failed"))
        if error.exists():
            failed[job.name] = Failure(error.read_text(encoding="utf-8"))
        elif done.exists() or taken.exists():
            failed.pop(job.name, None)
            if ended and not done.exists():
                failed[job.name] = Failure(f"its worker ended before it did; see {session}")
        else:
            free += 1
    return free


def watch(jobs: list[Job], session: Path, workers: Any, title: str) -> None:
    """Show how far all jobs are, until the workers have ended."""
    columns = _text("{task.description}"), BarColumn(), _text("{task.percentage:>3.0f} %"), TimeElapsedColumn()
    with Progress(*columns, TimeRemainingColumn(), _text("{task.fields[running]}"), console=wide_console()) as bar:
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
                    steps += job.reached
            count = f"{title} {ended}/{len(jobs)}" + (f", {failed} failed" if failed else "")
            bar.update(line, completed=steps, description=count, running=" ".join(running[:2]))
            if not last:
                time.sleep(POLL_SECONDS)


def _text(form: str) -> TextColumn:
    """A column of names as they are, brackets too."""
    return TextColumn(form, markup=False)

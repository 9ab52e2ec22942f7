"""One run of many: made by a worker, waited for, read."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.explain import in_one_line, refusal
from experiments.files import UNREADABLE, number_of, read_json
from experiments.run.command import run
from experiments.run.folder import LiveRun, RunFolder
from experiments.run.ranks import say
from experiments.settings import ParsingError
from experiments.study.job import Job

LIVE_SECONDS = 5.0
"""Between two looks whether a run's folder is free."""


def make_run(args: list[str], folder: str, more_callbacks: Sequence[Any] = ()) -> None:
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
    own = RunFolder(folder)
    while not own.finished:
        try:
            run("fit", fit_arguments(args, folder, more_callbacks))
        except LiveRun as error:
            say(f"rhm: {error}")
            time.sleep(LIVE_SECONDS)
        except SystemExit as end:
            if isinstance(end.code, int) and end.code >= 128:  # a signal ended it, and it can go on
                raise KeyboardInterrupt from None
            raise RuntimeError(f"ended with exit code {end.code}") from end
        except (ParsingError, ValueError) as error:
            if not isinstance(error, ParsingError) and refusal(error) is None:
                raise
            line = " ".join(in_one_line(error).split())
            say(f"rhm: {line}")
            raise RuntimeError(line) from error
        else:
            break
    shutil.rmtree(own.checkpoints, ignore_errors=True)


def fit_arguments(args: list[str], folder: str, more_callbacks: Sequence[Any]) -> list[str]:
    """A run's arguments with what all runs of a study have in common."""
    probe = {"class_path": "callbacks.LayerwiseLinearProbe", "init_args": {"logistic": False}}
    more = [{"class_path": callback} if isinstance(callback, str) else callback for callback in more_callbacks]
    callbacks = f"--trainer.callbacks+={json.dumps([probe, *more])}"  # beside those of its settings, such as a falling rate
    quiet = ["--tables=false", "--trainer.enable_progress_bar=false", "--trainer.logger=false"]
    return [*args, *quiet, callbacks, f"--run_dir={folder}"]


def job_of(name: str, args: list[str], folder: Path, more_callbacks: Sequence[Any] = (), steps: int = 1) -> Job:
    """A run as a job.

    Args:
        name: of the job.
        args, folder, more_callbacks: see :func:`make_run`.
        steps: its length.
    """
    return Job(name, make_run, (args, str(folder), more_callbacks), str(folder), steps)


def accuracies(folder: Path) -> list[float] | None:
    """Test accuracy of each replica of a finished run; None of any other."""
    try:
        results = read_json(folder / "results.json")
        ended = results["status"] == "finished"
        return [number_of(replica, "test_accuracy", most=1) for replica in results["replicas"]] if ended else None
    except UNREADABLE:
        return None

"""Something to be done in a process of its own: what it is, who has taken it, how it has ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from callbacks.checkpoint_files import checkpoints, step_of
from experiments.files import text_of
from experiments.run.folder import RunFolder

LONGEST_MESSAGE = 300
"""Characters: a key, what it got and what is allowed; a traceback is in the log."""
FAILED, NOTHING_CHOSEN = "failed", "nothing chosen"
"""Why a run has no results: an error; its search has found no settings for it."""


@dataclass(frozen=True)
class Failure:
    """Why a run has no results.

    Attributes:
        message: for a person.
        kind: ``FAILED`` or ``NOTHING_CHOSEN``.
    """

    message: str
    kind: str = FAILED

    @classmethod
    def of(cls, entry: Any) -> Failure:
        """What a file says of a run; a text alone is an error's message.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        if isinstance(entry, str):
            return cls(entry)
        if text_of(entry, "kind") not in (FAILED, NOTHING_CHOSEN):
            raise ValueError(f"kind is {entry['kind']!r}")
        return cls(text_of(entry, "message"), entry["kind"])


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
    def finished(self) -> bool:
        """Whether it is a run that has ended as planned: nothing is left to do."""
        return self.folder is not None and RunFolder(self.folder).finished

    @property
    def file(self) -> str:
        """The name as that of a file."""
        return self.name.replace("/", "--")

    @property
    def reached(self) -> int:
        """Steps of a run's last checkpoint."""
        found = [] if self.folder is None else checkpoints(RunFolder(self.folder).checkpoints)
        return step_of(found[-1]) if found else 0


def take(mark: Path, me: str) -> bool:
    """Whether a job was free, or this worker's own and not ended; now it is this worker's."""
    taken = mark.with_name(f"{mark.name}.taken")
    try:
        with taken.open("x", encoding="utf-8") as file:
            file.write(me)
    except FileExistsError:
        ended = any(mark.with_name(f"{mark.name}.{how}").exists() for how in ("done", "failed"))
        return taken.read_text(encoding="utf-8") == me and not ended
    return True


def attempt(job: Job, mark: Path) -> None:
    """Do a job and leave ``MARK.done`` or ``MARK.failed``."""
    try:
        job.function(*job.args)
    except Exception as error:
        print(f"{job.name}: {type(error).__name__}: {error}", file=sys.stderr)
        mark.with_name(f"{mark.name}.failed").write_text(
            " ".join(str(error).split())[:LONGEST_MESSAGE] or type(error).__name__, encoding="utf-8"
        )
    else:
        mark.with_name(f"{mark.name}.done").touch()

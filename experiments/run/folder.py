"""What a run keeps in its folder, and what it may find there."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from callbacks.checkpoint_files import checkpoints
from datamodules.numbers import said
from experiments.files import alike, check_folder, flatten, read_json, read_settings, write_atomically
from experiments.run.checkpoints import newest_readable
from experiments.run.earlier import completed
from experiments.run.limits import precision_name
from experiments.run.ranks import is_first, say, started_outside
from rhm import InvalidInput
from rules import LocalRule

FREE_KEYS = {
    "run_dir",
    "checkpoint_every",
    "steps_per_call",
    "tables",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.max_time",
    "trainer.callbacks",
    "trainer.limit_val_batches",
    "trainer.val_check_interval",
}
"""Settings that may differ when an unfinished run goes on: they do not change what is learned."""
LEFTOVERS = re.compile(r"\.lock|\..*\.part")
"""Names of files that a run leaves which was killed while it started."""
EVALUATION_KEYS = {f"data.init_args.{key}" for key in ("test_size", "probe_size", "eval_batch_size")}
"""Settings of data and model that may differ when a run is measured again."""


class LiveRun(InvalidInput):
    """A folder to which another process writes."""


class RunFolder:
    """One run, one folder: ``config.yaml``, TensorBoard events, ``checkpoints/``, ``results.json`` and ``probe.png``.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.results = self.path / "results.json"
        self.picture = self.path / "probe.png"
        self.checkpoints = self.path / "checkpoints"
        self.lock = self.path / ".lock"
        self._held: TextIO | None = None

    def check(self, config: dict[str, Any]) -> None:
        """See that a run with these settings may start or go on here.

        Raises:
            InvalidInput: the folder holds a run that has ended, a live one, one with other settings, or something else.
        """
        check_folder("run_dir", self.path)
        if self.done(config["trainer"]["max_steps"]):
            allowed = (
                f"a folder without a finished run, or more than its trainer.max_steps={self.steps}; nothing is overwritten"
            )
            raise InvalidInput("run_dir", self.path, allowed)
        if self.config.exists():
            self.check_settings(config)
        elif self.path.exists() and any(not LEFTOVERS.fullmatch(found.name) for found in self.path.iterdir()):
            raise InvalidInput("run_dir", self.path, "a folder that is new, empty, or holds an unfinished run")
        if self._held is None and is_first() and not started_outside() and self.lock.exists():  # else see start()
            with open(self.lock, encoding="utf-8") as file:
                self._take(file)

    def check_settings(self, config: dict[str, Any]) -> None:
        """See that these settings are those of the run that was begun here, or the same for more steps.

        Raises:
            InvalidInput: it has others.
        """
        longer = self.lengthened(config)
        if longer is not None and "CosineDecay" in _comparable(config):
            got = f"{longer[1]} in {self.path}, which holds a run of {longer[0]}"
            raise InvalidInput("trainer.max_steps", got, "the same: with CosineDecay the rates of a longer run are others")
        free = FREE_KEYS | ({"trainer.max_steps"} if longer else set())
        self._compare(config, lambda key: key in free, "the same settings to go on, or another folder")

    def lengthened(self, config: dict[str, Any]) -> tuple[int, int] | None:
        """The steps of the run that was begun here and those of these settings, if they are more."""
        try:
            before, now = (int(c["trainer"]["max_steps"]) for c in (read_settings("run_dir", self.config), config))
        except (InvalidInput, KeyError, TypeError, ValueError):
            return None  # no run, or one whose settings are refused when they are compared
        return (before, now) if now > before else None

    def check_measured(self, config: dict[str, Any]) -> None:
        """See that these settings are those of the run that is to be measured.

        Raises:
            InvalidInput: the folder holds no run, or one of another rule or other data.
        """
        if not self.config.exists() or not checkpoints(self.checkpoints):
            raise InvalidInput("run_dir", self.path, "a folder with a run's config.yaml and checkpoints")
        self._compare(
            config,
            lambda key: key in EVALUATION_KEYS or key.split(".")[0] not in ("data", "model"),
            "the settings of the run, but for the numbers of strings that it is measured with",
        )

    def _compare(self, config: dict[str, Any], free: Callable[[str], bool], allowed: str) -> None:
        new = flatten(_comparable(config))
        try:
            settings = read_settings("run_dir", self.config)
            old = flatten(_comparable(settings))
            if any(value is not None and not free(key) and key not in old for key, value in new.items()):
                old = flatten(_comparable(completed(self.config, settings)))
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidInput("run_dir", f"{self.path} with an unreadable config.yaml", allowed) from error
        for key in sorted(old.keys() | new.keys()):
            if not free(key) and not alike(old.get(key), new.get(key)):
                got = f"{key}={new.get(key)} in {self.path}, which holds a run with {key}={old.get(key)}"
                raise InvalidInput("run_dir", got, allowed)

    @property
    def finished(self) -> bool:
        """Whether a run has ended here as planned."""
        return self.steps > 0

    @property
    def steps(self) -> int:
        """The ``trainer.max_steps`` to which a run has come to its end here, even if it ended earlier by itself; else 0."""
        try:
            results = read_json(self.results)
            return int(results.get("max_steps") or results["steps"]) if results.get("status") == "finished" else 0
        except (OSError, ValueError, AttributeError, KeyError, TypeError):
            return 0

    def done(self, max_steps: int) -> bool:
        """Whether a run of so many steps, or more, has ended here as planned."""
        return self.finished and self.steps >= max_steps

    @property
    def live(self) -> bool:
        """Whether another process writes here; on a file system without locks, whether one has ever begun to."""
        try:
            with open(self.lock, encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def make(self, config: dict[str, Any], config_yaml: str) -> None:
        """Make the folder and write the settings, once, or again for more steps.

        Raises:
            InvalidInput: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            longer = self.lengthened(config)
            if longer is not None:
                say(f"the run in {self.path} gets {longer[1]:,} steps instead of {longer[0]:,}")
            if longer is not None or not self.config.exists():
                write_atomically(self.config, config_yaml)
        except OSError as error:
            raise InvalidInput("run_dir", f"{self.path} ({error.strerror})", "a folder that can be written") from error

    def start(self, config: dict[str, Any], config_yaml: str, rule: LocalRule) -> Path | None:
        """Lock the folder, write the settings, once, and find the checkpoint to go on from.

        Raises:
            InvalidInput: what :meth:`check` refuses, a folder that cannot be written, checkpoints that cannot be used.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = open(self.lock, "a+", encoding="utf-8")  # noqa: SIM115  (open until the run's end)
            self._take(file)
            self._held = file
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            self.check(config)  # again: the run that held the lock may have finished
            for left in (*self.path.glob(".*.part"), *self.checkpoints.glob(".*.part")):  # by a run that was killed
                left.unlink()
        except OSError as error:
            raise InvalidInput("run_dir", f"{self.path} ({error.strerror})", "a folder that can be written") from error
        saved = newest_readable(self.checkpoints, rule)  # before settings are written: they may be refused
        self.make(config, config_yaml)
        return None if saved is None else saved.path

    def _take(self, file: TextIO) -> None:
        """Lock an open file; the lock ends with the file or the process, so a file that is left over does no harm."""
        for last in *[False] * 5, True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if last:
                    break
                time.sleep(0.05)  # another process may just have looked whether it is locked
            except OSError:  # a file system without locks
                return
        file.seek(0)
        got = f"{self.path}, to which a run writes ({file.read() or 'just started'})"
        file.close()
        raise LiveRun("run_dir", got, "a folder without a live run")

    def release(self) -> None:
        """Unlock the folder."""
        if self._held is not None:
            self._held.close()
            self._held = None


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    """Settings with the precision by its name, the data's numbers in one form and, under a key of its own, the one callback
    that changes what is learned: the others may differ."""
    trainer = config.get("trainer") or {}
    given = trainer.get("callbacks") or []
    decays = [c for c in (given if isinstance(given, list) else [given]) if "CosineDecay" in str(c)]
    precision = {"precision": precision_name(trainer.get("precision"))}
    named = {"trainer": trainer | precision, "data": said(config.get("data"))}
    return config | named | ({"CosineDecay": decays} if decays else {})

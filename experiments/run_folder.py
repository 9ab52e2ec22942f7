"""What a run keeps in its folder, and what it may find there."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import pytorch_lightning as pl
import torch
import torchmetrics
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from callbacks import Diagnostic, LayerwiseLinearProbe
from callbacks.find import callbacks_of
from callbacks.linear_probe import probe_dictionary
from datamodules import RHMDataModule
from experiments.checkpoints import checkpoints, newest_readable, write_atomically
from experiments.ranks import is_first, started_outside
from rhm import InvalidInput
from rules import LocalRule

FREE_KEYS = {
    "run_dir",
    "checkpoint_every",
    "tables",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.max_time",
    "trainer.callbacks",
    "trainer.limit_val_batches",
    "trainer.val_check_interval",
}
"""Settings that may differ when an unfinished run goes on: they do not change what is learned."""
OURS = re.compile(r"\.lock|\..*\.part")
"""Names of files that a run leaves which was killed while it started."""
EVALUATION_KEYS = {f"data.init_args.{key}" for key in ("test_size", "probe_size", "eval_batch_size")}
"""Settings of data and model that may differ when a run is measured again."""


def new_file(key: str, path: str, endings: tuple[str, ...]) -> Path:
    """A path at which a file may be written.

    Raises:
        InvalidInput: there is one already, there is no such folder, or it has another ending.
    """
    target = Path(path)
    if target.exists():
        raise InvalidInput(key, path, "a file that does not exist yet; nothing is overwritten")
    if not target.parent.is_dir():
        raise InvalidInput(key, path, "a file in a folder that exists")
    if target.suffix not in endings:
        raise InvalidInput(key, path, f"a file name that ends in {' or '.join(endings)}")
    return target


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
        self.checkpoints = self.path / "checkpoints"
        self.lock = self.path / ".lock"
        self._held: TextIO | None = None

    def check(self, config: dict[str, Any]) -> None:
        """See that a run with these settings may start or go on here.

        Raises:
            InvalidInput: the folder holds a finished run, a live one, an unfinished one with other settings, or something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InvalidInput("run_dir", self.path, "a folder; this is a file")
        if self.finished:
            raise InvalidInput("run_dir", self.path, "a folder without a finished run; nothing is overwritten")
        if self.config.exists():
            self.check_settings(config)
        elif self.path.exists() and any(not OURS.fullmatch(found.name) for found in self.path.iterdir()):
            raise InvalidInput("run_dir", self.path, "a folder that is new, empty, or holds an unfinished run")
        if self._held is None and is_first() and not started_outside() and self.lock.exists():  # else see start()
            with open(self.lock) as file:
                self._take(file)

    def check_settings(self, config: dict[str, Any]) -> None:
        """See that these settings are those of the run that was begun here.

        Raises:
            InvalidInput: it has others.
        """
        self._compare(config, lambda key: key in FREE_KEYS, "the same settings to go on, or another folder")

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
        try:
            old = flatten(with_decay_apart(yaml.safe_load(self.config.read_text())))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise InvalidInput("run_dir", f"{self.path} with an unreadable config.yaml", allowed) from error
        new = flatten(with_decay_apart(config))
        for key in sorted(old.keys() | new.keys()):
            if not free(key) and old.get(key) != new.get(key):
                got = f"{key}={new.get(key)} in {self.path}, which holds a run with {key}={old.get(key)}"
                raise InvalidInput("run_dir", got, allowed)

    @property
    def finished(self) -> bool:
        """Whether a run has ended here as planned."""
        try:
            return bool(json.loads(self.results.read_text()).get("status") == "finished")
        except (OSError, ValueError):
            return False

    def make(self, config_yaml: str) -> None:
        """Make the folder and write the settings, once.

        Raises:
            InvalidInput: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.config.exists():
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
            file = open(self.lock, "a+")  # noqa: SIM115  (open until the run's end)
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
        self.make(config_yaml)
        return newest_readable(self.checkpoints, rule)

    def _take(self, file: TextIO) -> None:
        """Lock an open file; the lock ends with the file or the process, so a file that is left over does no harm."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            got = f"{self.path}, to which a run writes ({file.read() or 'just started'})"
            file.close()
            raise LiveRun("run_dir", got, "a folder without a live run") from None
        except OSError:  # a file system without locks
            pass

    def release(self) -> None:
        """Unlock the folder."""
        if self._held is not None:
            self._held.close()
            self._held = None


def with_decay_apart(config: dict[str, Any]) -> dict[str, Any]:
    """Settings with the one callback that changes what is learned under a key of its own: the others may differ."""
    given = (config.get("trainer") or {}).get("callbacks") or []
    decays = [c for c in (given if isinstance(given, list) else [given]) if "CosineDecay" in str(c)]
    return config | {"CosineDecay": decays} if decays else config


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


class RunRecord(Callback):
    """Measures a run's time, over all its restarts, and writes ``results.json``.

    Args:
        folder: where to.
    """

    def __init__(self, folder: RunFolder):
        self.folder = folder
        self.before: float = 0.0
        self.started: float | None = None

    @property
    def seconds(self) -> float:
        """Training time so far, with all earlier starts of the run up to their checkpoint."""
        return self.before + (0.0 if self.started is None else time.monotonic() - self.started)

    def state_dict(self) -> dict[str, float]:
        """Kept in checkpoints."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on counting where the checkpoint stopped."""
        self.before = state_dict["seconds"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: tests are not training."""
        self.before, self.started = self.seconds, None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Say what there is of a run that was stopped; it can go on later."""
        if trainer.is_global_zero and trainer.state.fn == TrainerFn.FITTING:
            assert isinstance(pl_module, LocalRule)
            with suppress(OSError):  # a full disk, say: the exception tells it
                self.write(trainer, pl_module, "stopped")

    def write(self, trainer: Trainer, rule: LocalRule, status: str) -> dict[str, Any]:
        """Write ``results.json`` and return its content."""
        results = collect_results(trainer, rule, status, self.seconds)
        write_atomically(self.folder.results, json.dumps(results, indent=1) + "\n")
        return results


def collect_results(trainer: Trainer, rule: LocalRule, status: str, seconds: float) -> dict[str, Any]:
    """Everything a report needs of a run.

    ``samples_seen`` are strings shown to each replica, ``samples_per_second`` strings of all replicas together, ``seconds``
    training time with validation and without the final test, accuracies shares in [0, 1]. ``diagnostics`` has, for each
    diagnostic callback, nested dictionaries with a list over replicas in each.
    """
    data, steps = rule.data, trainer.global_step
    seen = steps * data.batch_size
    probe = next((c for c in callbacks_of(trainer) if isinstance(c, LayerwiseLinearProbe)), None)
    accuracy, diverged_R = getattr(rule, "test_accuracy_R", None), rule.diverged_R
    replicas = []
    described = zip(data.replica_seeds, data.replica_sizes, data.replica_label_sizes, strict=True)
    for r, (seed, size, labelled) in enumerate(described):
        entry: dict[str, Any] = {
            "seed": seed,
            "train_size": size,
            "label_size": labelled,
            "test_accuracy": None if accuracy is None else float(accuracy[r]),
            "chance": data.task.chance,
            "diverged": bool(diverged_R[r]),
            "probe": {},
        }
        if probe is not None and probe.accuracy_KLR is not None:
            entry["probe"] = probe_dictionary(probe.accuracy_KLR, r)
        if probe is not None and probe.logistic_KLR is not None:
            entry["probe_logistic"] = probe_dictionary(probe.logistic_KLR, r)
        replicas.append(entry)
    return {
        "rule": type(rule).__name__,
        "task": vars(data.task),
        "supervision": {
            "rule": rule.supervision,
            "pairs": type(data.pairs).__name__ if rule.uses_pairs else None,
            "readout_labels": readout_labels(data, seen),
        },
        "replicas": replicas,
        "probe_strings": data.probe_range[1] - data.probe_range[0],
        "probe_strings_trained_on": data.probes_trained_on,
        "diagnostics": {type(c).__name__: c.results() for c in callbacks_of(trainer) if isinstance(c, Diagnostic)},
        "steps": steps,
        "samples_seen": seen,
        "seconds": round(seconds, 3),
        "samples_per_second": round(seen * data.replicas / max(seconds, 1e-9), 1),
        "status": status,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "pytorch-lightning": pl.__version__,
            "torchmetrics": torchmetrics.__version__,
        },
        "git_commit": git_commit(),
    }


def readout_labels(data: RHMDataModule, seen: int) -> list[int]:
    """How many different strings, at the most, the readout has seen with their labels, in each replica."""
    sizes = zip(data.replica_sizes, data.replica_label_sizes, strict=True)
    return [min(size or data.stream_length, labelled or seen, seen) if data.labels else 0 for size, labelled in sizes]


def git_commit() -> str | None:
    """The commit of this source tree, or None outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None

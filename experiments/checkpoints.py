"""Checkpoints at step boundaries: written whole or not at all, and looked at before they are used."""

from __future__ import annotations

import inspect
import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from experiments.ranks import is_first
from rhm import InvalidInput
from rules import LocalRule


def write_atomically(path: Path, content: str | bytes | memoryview) -> None:
    """Write a whole file or nothing, and return when it is on the disk.

    Raises:
        OSError: it could not be written; a file that was there before still is.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")  # ranks may write the same settings at once
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too
    finally:
        os.close(folder)


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints whole or not at all.

    What goes wrong is kept and not raised: only the first rank writes, and the others would wait for it without end.

    Attributes:
        error: why the last checkpoint could not be written, or None.
    """

    def __init__(self) -> None:
        self.error: str | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; see ``error``."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        self.error = None
        try:
            Path(path).parent.mkdir(exist_ok=True)
            write_atomically(Path(path), content.getbuffer())
        except OSError as error:
            self.error = error.strerror or str(error)


class StepCheckpoint(Checkpoint):
    """Keeps the last two checkpoints of a run: every so many steps, at the end, and when it is asked to stop.

    Args:
        folder: where to.
        every: steps between checkpoints.
    """

    KEEP = 2

    def __init__(self, folder: Path, every: int):
        self.folder, self.every = folder, every
        self.saved = -1
        self.files = WholeFiles()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Have checkpoints written whole."""
        trainer.strategy.checkpoint_io = self.files

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say in the checkpoint what it is of."""
        assert isinstance(pl_module, LocalRule)
        checkpoint["run"] = description(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is the step's turn."""
        if trainer.global_step % self.every == 0:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final weights."""
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write a checkpoint of this step, then drop the oldest, and any of later steps, which could not be read.

        Raises:
            InvalidInput: on all ranks, if the first could not write; the checkpoints before are kept.
        """
        if self.saved == trainer.global_step:  # not asked of the file system: ranks must agree
            return
        path = self.folder / f"step={trainer.global_step}.ckpt"
        trainer.save_checkpoint(path)
        error = trainer.strategy.broadcast(self.files.error)
        if error is not None:
            allowed = "a folder with room for a checkpoint; those before are kept and the same command goes on from them"
            raise InvalidInput("run_dir", f"{path} ({error})", allowed)
        self.saved = trainer.global_step
        if trainer.is_global_zero:
            upto = [old for old in checkpoints(self.folder) if step_of(old) <= self.saved]
            for old in {*checkpoints(self.folder)} - {*upto[-self.KEEP :]}:
                old.unlink()


def step_of(path: Path) -> int:
    """The step of a checkpoint by its name."""
    return int(path.stem.removeprefix("step="))


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints, the oldest first."""
    return sorted(folder.glob("step=*.ckpt"), key=step_of)


# -------------------------------------------------------------------- what a checkpoint is of


def description(rule: LocalRule) -> dict[str, Any]:
    """The rule, task and network that a checkpoint is of."""
    config = rule.network_config
    network = next(item for item in type(config).__mro__ if item.__module__.startswith("networks."))
    settings = {name: getattr(config, name) for name in inspect.signature(network).parameters}
    return {"rule": type(rule).__name__, "task": dict(vars(rule.data.task)), "network": {network.__name__: settings}}


def newest_readable(folder: Path, rule: LocalRule) -> Path | None:
    """The newest checkpoint that can be read, or None if there is none at all; those that cannot are named on standard error.

    Raises:
        InvalidInput: none can be read, or it is of another rule, task or network.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        try:
            content = read(path)
        except Exception as error:  # whatever a broken file makes of it
            if is_first():
                reason = " ".join(str(error).split())[:80]
                print(f"rhm: warning: {path} cannot be read ({reason}); trying the one before", file=sys.stderr)
        else:
            _check(content, rule, path)
            return path
    if found:
        got = f"{folder} without a checkpoint that can be read"
        raise InvalidInput(
            "run_dir", got, "a run whose checkpoints are whole; nothing was deleted, start anew in another folder"
        )
    return None


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        Exception: of many kinds, if it is cut off or altered.
    """
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:  # torch does not look at checksums
            raise ValueError(f"wrong checksum of {damaged}")
    return TorchCheckpointIO().load_checkpoint(path)


def _check(content: dict[str, Any], rule: LocalRule, path: Path) -> None:
    ours, of = description(rule), content.get("run", {})
    for key in of:  # checkpoints of early versions say nothing
        if of[key] != ours[key]:
            raise InvalidInput("checkpoint", f"{path} of {key} {_words(of[key])}", f"one of {key} {_words(ours[key])}")
    weights, expected = content["state_dict"], rule.state_dict()
    for name in sorted(weights.keys() | expected.keys()):
        shapes = [tuple(state[name].shape) if name in state else None for state in (weights, expected)]
        if shapes[0] != shapes[1]:
            raise InvalidInput("checkpoint", f"{path} with {name} of shape {shapes[0]}", f"shape {shapes[1]}")


def _words(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return " ".join(f"{k} {_words(v)}" if isinstance(v, dict) else f"{k}={v}" for k, v in value.items())

"""Checkpoints at step boundaries: written whole or not at all, and looked at before they are used."""

from __future__ import annotations

import inspect
import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from callbacks.checkpoint_files import Saved, checkpoints, newest, step_of
from experiments.files import write_atomically
from experiments.run.ranks import say
from rhm import InvalidInput
from rules import LocalRule


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


# -------------------------------------------------------------------- what a checkpoint is of


def description(rule: LocalRule) -> dict[str, Any]:
    """The rule, task and network that a checkpoint is of, and what else tells its strings."""
    config = rule.network_config
    network = next(item for item in type(config).__mro__ if item.__module__.startswith("networks."))
    settings = {name: getattr(config, name) for name in inspect.signature(network).parameters}
    of = {"rule": type(rule).__name__, "task": rule.data.task.given, "network": {network.__name__: settings}}
    return of | ({"origin": rule.data.origin} if rule.data.origin else {})


def newest_readable(folder: Path, rule: LocalRule) -> Saved | None:
    """The newest checkpoint that can be read, or None if there is none at all; those that cannot are named on standard error.

    Raises:
        InvalidInput: none can be read, or it is of another rule, task or network.
    """

    def damaged(path: Path, error: Exception) -> None:
        say(f"rhm: warning: {path} cannot be read ({' '.join(str(error).split())[:80]}); trying the one before")

    saved = newest(folder, damaged)
    if saved is not None:
        _check(saved, rule)
    elif checkpoints(folder):
        got = f"{folder} without a checkpoint that can be read"
        raise InvalidInput(
            "run_dir", got, "a run whose checkpoints are whole; nothing was deleted, start anew in another folder"
        )
    return saved


def _check(saved: Saved, rule: LocalRule) -> None:
    path, content = saved
    ours, of = description(rule), content.get("run", {})
    for key in of | ours if of else {}:  # checkpoints of early versions say nothing
        if of.get(key) != ours.get(key):
            raise InvalidInput("checkpoint", f"{path} of {key} {_words(of.get(key))}", f"one of {key} {_words(ours.get(key))}")
    weights, expected = content["state_dict"], rule.state_dict()
    for name in sorted(weights.keys() | expected.keys()):
        shapes = [tuple(state[name].shape) if name in state else None for state in (weights, expected)]
        if shapes[0] != shapes[1]:
            raise InvalidInput("checkpoint", f"{path} with {name} of shape {shapes[0]}", f"shape {shapes[1]}")


def _words(value: Any) -> str:
    if not isinstance(value, dict):
        return "nothing" if value is None else str(value)
    return " ".join(f"{k} {_words(v)}" if isinstance(v, dict) else f"{k}={v}" for k, v in value.items())

"""A callback that sends a signal to its own process: a run that is stopped at a known step."""

from __future__ import annotations

import os
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class SignalAt(Callback):
    """Send a signal after a step.

    Args:
        step: after which.
        signum: which.
        rank: whose process.
        validation: wait for the first batch of the validation after that step.
    """

    def __init__(self, step: int, signum: int, rank: int = 0, validation: bool = False):
        self.step, self.signum, self.rank, self.validation = step, signum, rank, validation

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self.validation:
            self._send(trainer)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.validation:
            self._send(trainer)

    def _send(self, trainer: Trainer) -> None:
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.signum)

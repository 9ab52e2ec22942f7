"""Losses of the training steps, written now and then."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from rhm import InvalidInput
from rules import LocalRule


class StepLog(Callback):
    """Write the losses of every ``every``-th step, as means over replicas; other steps cost nothing.

    Args:
        every: steps from one written step to the next.
    """

    def __init__(self, every: int = 50):
        if every < 1:
            raise InvalidInput("StepLog.every", every, "an integer of at least 1")
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the step's losses if it is their turn."""
        step = trainer.global_step
        if step % self.every == 0 and trainer.loggers:
            assert isinstance(pl_module, LocalRule)
            values = {f"train/{name}": float(value_R.mean()) for name, value_R in pl_module.step_metrics.items()}
            for logger in trainer.loggers:
                logger.log_metrics(values, step)

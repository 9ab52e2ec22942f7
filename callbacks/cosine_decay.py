"""A learning rate that falls to zero over a run: the one callback that touches training, and only its rate."""

from __future__ import annotations

import math

from pytorch_lightning import Callback, LightningModule, Trainer

from rhm import InvalidInput


class CosineDecay(Callback):
    """``lr(t) = lr (floor + (1 - floor) (1 + cos(pi t / T)) / 2)`` at step ``t`` of ``T = trainer.max_steps``
    (Loshchilov, Hutter 2017).

    A function of the step alone, so that a resumed run goes on as it would have.

    Args:
        floor: share of the rate that is left at the end, in [0, 1].

    Raises:
        InvalidInput: a floor outside [0, 1].
    """

    def __init__(self, floor: float = 0.0):
        if not 0 <= floor <= 1:
            raise InvalidInput("CosineDecay.floor", floor, "a number in [0, 1]")
        self.floor = floor

    def before_step(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Set the step's rate."""
        share = self.floor + (1 - self.floor) * (1 + math.cos(math.pi * step / trainer.max_steps)) / 2
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * share

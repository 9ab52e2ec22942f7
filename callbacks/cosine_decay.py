"""A learning rate that rises and then falls to zero over a run: the one callback that touches training, and only its rate."""

from __future__ import annotations

import math

from pytorch_lightning import Callback, LightningModule, Trainer

from rhm import InvalidInput


class CosineDecay(Callback):
    """``lr(t) = lr (floor + (1 - floor) (1 + cos(pi t / T)) / 2)`` at step ``t`` of ``T = trainer.max_steps``
    (Loshchilov, Hutter 2017), times ``min(1, (t + 1) / warm_up)`` (Goyal et al. 2017).

    A function of the step alone, so that a resumed run goes on as it would have.

    Args:
        floor: share of the rate that is left at the end, in [0, 1].
        warm_up: steps in which the rate rises; 0 starts with the whole rate.

    Raises:
        InvalidInput: a floor outside [0, 1], a negative number of steps.
    """

    def __init__(self, floor: float = 0.0, warm_up: int = 0):
        if not 0 <= floor <= 1:
            raise InvalidInput("CosineDecay.floor", floor, "a number in [0, 1]")
        if warm_up < 0:
            raise InvalidInput("CosineDecay.warm_up", warm_up, "a number of steps, at least 0")
        self.floor, self.warm_up = floor, warm_up

    def before_step(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Set the step's rate."""
        share = self.floor + (1 - self.floor) * (1 + math.cos(math.pi * step / trainer.max_steps)) / 2
        share *= min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * share

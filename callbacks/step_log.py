"""What the steps do, written now and then.

Shape suffixes: R replica, W numbers that are written.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from callbacks.tensorboard import log_scalars, mean_and_std
from rhm import InvalidInput
from rules import LocalRule


class StepLog(Callback):
    """Write numbers of every ``every``-th step; other steps cost nothing.

    Tags, for replicas as mean and standard deviation (``..._std``, if there are several):

    - ``train/loss/layer{k}`` and other losses of the rule, means over ranks;
    - ``train/update_norm/layer{k}`` and ``.../readout``: of the gradients that the optimizer got;
    - ``train/learning_rate``, ``train/samples`` that each replica has seen, ``train/samples_per_second`` of all replicas
      together, in time without validation.

    All numbers are computed on the device and read from it at once.

    Args:
        every: steps from one written step to the next.
    """

    def __init__(self, every: int = 50):
        if every < 1:
            raise InvalidInput("StepLog.every", every, "an integer of at least 1")
        self.every = every
        self.last_step, self.last_time, self.paused = 0, 0.0, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.last_step, self.last_time = trainer.global_step, time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.paused = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the clock go on."""
        self.last_time += time.perf_counter() - self.paused

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the step's numbers if it is their turn."""
        step = trainer.global_step
        if step % self.every or not trainer.loggers:
            return
        assert isinstance(pl_module, LocalRule)
        values = mean_and_std(self.measured(trainer, pl_module, outputs["losses"]))
        samples = pl_module.data.batch_size * pl_module.data.replicas
        now = time.perf_counter()
        values["train/samples"] = step * pl_module.data.batch_size
        values["train/samples_per_second"] = (step - self.last_step) * samples / (now - self.last_time)
        values["train/learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        self.last_step, self.last_time = step, now
        log_scalars(trainer, values)

    @staticmethod
    def measured(trainer: Trainer, rule: LocalRule, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Losses and norms of updates, each ``[R]``, on the device."""
        (losses_WR,) = rule.mean_over_ranks([torch.stack([loss_R.float() for loss_R in losses.values()])])
        measured = {f"train/{name}": loss_R for name, loss_R in zip(losses, losses_WR, strict=True)}
        for group, module in zip(trainer.optimizers[0].param_groups, rule.parts, strict=True):
            norm_R = update_norm(module)
            if norm_R is not None:
                measured[f"train/update_norm/{group['name']}"] = norm_R
        return measured


def update_norm(module: nn.Module) -> Tensor | None:
    """Norm ``[R]`` of the gradients of a layer's or the readout's parameters; None without any."""
    squares = [p.grad.float().flatten(1).square().sum(1) for p in module.parameters() if p.grad is not None]
    return torch.stack(squares).sum(0).sqrt() if squares else None

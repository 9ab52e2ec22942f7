"""A run ends when it has converged: each loss of each replica is small, or has not fallen for a while.

Shape suffixes: R replica, W losses of the rule.
"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from rhm import InvalidInput
from rules import LocalRule


class Convergence(Callback):
    """End training once every loss of every replica is under a threshold, or has not improved for a while.

    Looked at are all losses that the rule reports, the readout's among them, each by itself: on the batch of every ``every``-th
    step, smoothed over ``window`` looks: ``m <- m + (l - m) / min(looks, window)``. A loss improves when ``m`` falls below the
    lowest ``m`` so far by a share ``tolerance`` of its size. One that is no longer finite is not waited for. Replicas are
    trained at once, so a run is as long as its slowest one. What was seen is kept in checkpoints: a run that was stopped ends
    at the same step as one that was not.

    A rate that falls with ``trainer.max_steps`` has not fallen when a run ends early.

    Args:
        threshold: a loss has converged while the size of ``m`` is under it; in nats where a loss is a cross-entropy.
        patience: steps without an improvement after which it has, too.
        tolerance: share of the lowest loss that counts as an improvement.
        window: looks over which a loss is smoothed, and the fewest after which a run ends.
        every: steps from look to look.

    Raises:
        InvalidInput: numbers that are none; less patience than a window is long.
    """

    def __init__(
        self, threshold: float = 0.01, patience: int = 1000, tolerance: float = 0.01, window: int = 10, every: int = 50
    ):
        for name, number in ("window", window), ("every", every):
            if number < 1:
                raise InvalidInput(f"Convergence.{name}", number, "an integer of at least 1")
        if patience < window * every:
            raise InvalidInput("Convergence.patience", patience, f"window times every, {window * every} steps, or more")
        if not 0 <= tolerance < 1:
            raise InvalidInput("Convergence.tolerance", tolerance, "a share in [0, 1)")
        self.threshold, self.patience, self.tolerance, self.window, self.every = threshold, patience, tolerance, window, every
        self.looks, self.step = 0, 0
        self.seen: dict[str, Tensor] = {}

    # ---------------------------------------------------------------- what was seen

    def look(self, step: int, loss_WR: Tensor) -> None:
        """Take in the losses of a step."""
        self.looks, self.step = self.looks + 1, step
        if not self.seen:
            self.seen = {"mean": loss_WR.clone(), "lowest": loss_WR.clone(), "since": torch.full_like(loss_WR, step)}
            return
        mean_WR, lowest_WR = self.seen["mean"], self.seen["lowest"]
        mean_WR += (loss_WR - mean_WR) / min(self.looks, self.window)
        better_WR = mean_WR < lowest_WR - self.tolerance * lowest_WR.abs()
        lowest_WR[better_WR] = mean_WR[better_WR]
        self.seen["since"][better_WR] = step

    @property
    def converged_R(self) -> Tensor | None:
        """Which replicas have converged, ``[R]``; None before the first look."""
        if not self.seen:
            return None
        mean_WR = self.seen["mean"]
        small_WR = (mean_WR.abs() < self.threshold) & (self.looks >= self.window)
        return (small_WR | (self.step - self.seen["since"] >= self.patience) | ~mean_WR.isfinite()).all(0)

    def state_dict(self) -> dict[str, Any]:
        """Kept in checkpoints."""
        return {"looks": self.looks, "step": self.step, "seen": self.seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint stopped."""
        self.looks, self.step, self.seen = state_dict["looks"], state_dict["step"], state_dict["seen"]

    # ---------------------------------------------------------------- Lightning's hooks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had converged, and was stopped before its results were written, makes no further step."""
        self.seen = {name: value_WR.to(pl_module.device) for name, value_WR in self.seen.items()}
        self._end(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look, if it is time."""
        if trainer.global_step % self.every:
            return
        assert isinstance(pl_module, LocalRule)
        loss_WR = torch.stack([loss_R.double() for loss_R in outputs["losses"].values()])
        (loss_WR,) = pl_module.mean_over_ranks([loss_WR])
        self.look(trainer.global_step, loss_WR)
        self._end(trainer)

    def _end(self, trainer: Trainer) -> None:
        converged_R = self.converged_R
        if converged_R is not None and bool(converged_R.all()):
            trainer.should_stop = True

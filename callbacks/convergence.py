"""A replica ends when it has converged: each of its losses is small, or has not fallen for a while. A run ends with its last.

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
    """End a replica's training once each of its losses is under a threshold, or has not improved for a while.

    Replicas are trained at once, so a run is as long as its slowest one. Those that have converged keep what they had then, as
    if each were trained alone: a network that is trained on at a large rate may leave what it has found, as Adam divides by
    a gradient that has all but gone.

    Looked at are all losses that the rule reports, the readout's among them, each by itself: on the batch of every ``every``-th
    step, where layers learn in turns of those after the last turn. A loss is small when it was under ``threshold`` in each of
    the last ``window`` looks. Else it is smoothed over as many, ``m <- m + (l - m) / min(looks, window)``, and improves when
    ``m`` falls below the lowest ``m`` so far by a share ``tolerance`` of its size. One that is no longer finite is not waited
    for. What was seen is kept in checkpoints: a run that was stopped ends at the same step as one that was not.

    A rate that falls with ``trainer.max_steps`` has not fallen when a run ends early.

    Args:
        threshold: of the size of a loss; in nats where it is a cross-entropy.
        patience: steps without an improvement after which it has, too.
        tolerance: share of the lowest loss that counts as an improvement.
        window: looks that have to be small, or over which a loss is smoothed.
        every: steps from look to look.

    Attributes:
        ended_R: the step at which each replica has converged, 0 of one that has not; None before the first look.

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
        self.looks = 0
        self.seen: dict[str, Tensor] = {}
        self.ended_R: Tensor | None = None
        self.kept_R: Tensor | None = None
        self.kept: dict[str, Tensor] = {}

    # ---------------------------------------------------------------- what was seen

    def look(self, step: int, loss_WR: Tensor) -> None:
        """Take in the losses of a step."""
        self.looks += 1
        if self.ended_R is None:
            self.seen = {"mean": loss_WR.clone(), "lowest": loss_WR.clone(), "since": torch.full_like(loss_WR, step)}
            self.seen["small"] = torch.zeros_like(loss_WR)
            self.ended_R = torch.zeros(loss_WR.shape[1], dtype=torch.long, device=loss_WR.device)
        mean_WR, lowest_WR, since_WR = self.seen["mean"], self.seen["lowest"], self.seen["since"]
        mean_WR += (loss_WR - mean_WR) / min(self.looks, self.window)
        better_WR = mean_WR < lowest_WR - self.tolerance * lowest_WR.abs()
        lowest_WR[better_WR] = mean_WR[better_WR]
        since_WR[better_WR] = step
        self.seen["small"] = (self.seen["small"] + 1) * (loss_WR.abs() < self.threshold)
        small_WR = self.seen["small"] >= self.window
        converged_R = (small_WR | (step - since_WR >= self.patience) | ~mean_WR.isfinite()).all(0)
        self.ended_R[converged_R & (self.ended_R == 0)] = step

    def state_dict(self) -> dict[str, Any]:
        """Kept in checkpoints."""
        return {"looks": self.looks, "seen": self.seen, "ended_R": self.ended_R}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint stopped."""
        self.looks, self.seen, self.ended_R = state_dict["looks"], state_dict["seen"], state_dict["ended_R"]

    # ---------------------------------------------------------------- what is kept

    def keep(self, rule: LocalRule) -> None:
        """Take down what replicas have that have just converged, and give it back to those that have gone on since."""
        if self.ended_R is None or not bool(self.ended_R.any()):
            return
        before_R = torch.zeros_like(self.ended_R, dtype=torch.bool) if self.kept_R is None else self.kept_R
        self.kept_R = self.ended_R > 0
        more = not torch.equal(before_R, self.kept_R)
        for name, value in rule.state_dict().items():
            if value.shape[:1] == self.ended_R.shape:
                axes = [-1] + [1] * (value.dim() - 1)
                if more:
                    self.kept[name] = torch.where(before_R.view(axes), self.kept.get(name, value), value)
                value.copy_(torch.where(self.kept_R.view(axes), self.kept[name], value))

    # ---------------------------------------------------------------- Lightning's hooks

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A run that had converged, and was stopped before its results were written, makes no further step."""
        if self.ended_R is not None:
            self.seen = {name: value_WR.to(pl_module.device) for name, value_WR in self.seen.items()}
            self.ended_R = self.ended_R.to(pl_module.device)
        self._end(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look, if it is time."""
        assert isinstance(pl_module, LocalRule)
        if trainer.global_step % self.every == 0 and trainer.global_step > pl_module.turns_end:
            loss_WR = torch.stack([loss_R.double() for loss_R in outputs["losses"].values()])
            (loss_WR,) = pl_module.mean_over_ranks([loss_WR])
            self.look(trainer.global_step, loss_WR)
        self._end(trainer, pl_module)

    def _end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LocalRule)
        self.keep(pl_module)
        if self.ended_R is not None and bool(self.ended_R.all()):
            trainer.should_stop = True

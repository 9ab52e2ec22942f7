"""Do all ranks still have the same weights?"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from rhm import InvalidInput


class RankDriftCheck(Callback):
    """Compare the weights and buffers of all ranks, bit for bit, every so many steps and at the end; one small gather.

    Ranks that share a batch must stay equal: gradients, estimates and what a loss compares go over all of them. Costs a pass
    over the weights.

    Args:
        every: steps between two checks.

    Raises:
        RuntimeError: in training, on every rank, with the step and the first tensors that differ.
    """

    def __init__(self, every: int = 100):
        if every < 1:
            raise InvalidInput("RankDriftCheck.every", every, "an integer of at least 1")
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check if it is the step's turn."""
        if trainer.global_step % self.every == 0:
            self.check(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the final weights."""
        self.check(trainer, pl_module)

    def check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise if ranks differ."""
        if trainer.world_size == 1:
            return
        state = pl_module.state_dict()
        here = torch.stack([fingerprint(tensor) for tensor in state.values()])
        same = (trainer.strategy.all_gather(here) == here).all(0)
        if not same.all():
            names = [name for name, agrees in zip(state, same.tolist(), strict=True) if not agrees]
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise RuntimeError(f"ranks differ after step {trainer.global_step}: {shown}")


def fingerprint(tensor: Tensor) -> Tensor:
    """A number that depends on every bit of a tensor and on its place: int64, wraps around."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    bits = tensor.detach().contiguous().view(whole).flatten().long()
    return (bits * (2 * torch.arange(len(bits), device=bits.device) + 1)).sum()

"""What a rule needs of the other ranks where several share a batch.

Shape suffixes: R replica, B batch, D position, C channel.
"""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor

from datamodules import Batch, ReplicaDataModule


class SharedBatch(pl.LightningModule):
    """Each rank has a part of a batch's strings, in order; every collective is one call a step.

    Attributes:
        data: knows which of how many ranks this is.
    """

    data: ReplicaDataModule

    def mean_over_ranks(self, tensors: list[Tensor]) -> list[Tensor]:
        """The mean of each tensor over the ranks, by one reduction; the tensors themselves where there is one rank."""
        if self.data.world == 1 or not tensors:
            return tensors
        flat = self.trainer.strategy.reduce(torch.cat([t.flatten() for t in tensors]), reduce_op="mean")
        parts = flat.split([t.numel() for t in tensors])
        return [part.view_as(t).to(t.dtype) for part, t in zip(parts, tensors, strict=True)]

    def strings_of_all_ranks(self, tensors: list[Tensor]) -> list[Tensor]:
        """Each tensor ``[R, B, ...]`` with the strings of all ranks in the order of the batch, by one gather."""
        if self.data.world == 1 or not tensors:
            return tensors
        strings = [t.transpose(0, 1) for t in tensors]
        flat = self.trainer.strategy.all_gather(torch.cat([t.flatten(1) for t in strings], 1)).flatten(0, 1)
        parts = flat.split([t[0].numel() for t in strings], 1)
        return [p.unflatten(1, t.shape[1:]).transpose(0, 1).to(t.dtype) for p, t in zip(parts, strings, strict=True)]

    def batch_of_all_ranks(self, batch: Batch) -> Batch:
        """The step's strings on all ranks, which every rank can make."""
        return batch if self.data.world == 1 else self.data.train_batch(self.trainer.global_step)

    def share(self, signal_RBDC: Tensor) -> Tensor:
        """This rank's part of a signal ``[R, B, ...]`` for the strings of all ranks, as part of a mean over ranks."""
        if self.data.world == 1:
            return signal_RBDC
        return signal_RBDC.chunk(self.data.world, 1)[self.data.rank] * self.data.world

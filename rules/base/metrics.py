"""Metrics with summed states, so that any number of ranks agree on them exactly.

Shape suffixes: R replica.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric


class ReplicaAccuracy(Metric):
    """Share of right answers, one number for each replica, in [0, 1].

    Args:
        replicas: R.
    """

    higher_is_better = True
    full_state_update = False
    correct_R: Tensor
    total: Tensor

    def __init__(self, replicas: int):
        super().__init__()
        self.add_state("correct_R", torch.zeros(replicas, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Add answers: logits ``[R, ..., N]`` and integer targets ``[R, ...]``."""
        self.correct_R += (logits.argmax(-1) == target).flatten(1).sum(1)
        self.total += target[0].numel()

    def compute(self) -> Tensor:
        """Accuracy ``[R]``."""
        return self.correct_R / self.total

"""Batchwise random magnitude sign feedback: the signs of the weights, random sizes drawn afresh at each step.

Shape suffixes: R replica; the matrices have the shapes of the parameters that they stand for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rhm.hashing import fold, normal
from rules.usf import UniformSignFeedback


class BatchwiseRandomSignFeedback(UniformSignFeedback):
    """Batchwise random magnitude sign feedback (brSF): ``B = |M_t| * sign(W^T)``.

    Random: ``M_t``, a normal random matrix drawn afresh at each step, the same on every rank. See
    :class:`rules.sign_feedback.SignFeedback`.
    """

    source = "Liao, Leibo, Poggio 2016, arXiv 1510.05067"
    key_R: Tensor

    def build(self) -> None:
        super().build()
        self.register_buffer("key_R", self.keys_R("magnitude"))

    def magnitude(self, k: int, name: str) -> Tensor:
        size = super().magnitude(k, name)
        fresh = normal(fold(self.key_R, k, name), tuple(self.parts[k - 1].get_parameter(name).shape[1:]))
        return fresh.abs().to(size.dtype) * size

    @torch.no_grad()
    def after_step(self) -> None:
        self.key_R.copy_(fold(self.key_R, "next step"))

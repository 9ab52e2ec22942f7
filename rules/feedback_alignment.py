"""Feedback alignment: errors go down layer by layer, through fixed random matrices.

Shape suffixes: R replica; the feedback matrices have those of the parameters that they stand for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rhm import InvalidInput
from rules.base.layered_feedback import LayeredFeedback
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.maths.feedback import random_like


class FeedbackAlignment(LayeredFeedback):
    """Feedback alignment (Lillicrap et al. 2016): ``delta_l = D_l B_{l+1} delta_{l+1}``.

    Fixed: ``B``, random, with the standard deviation that the weights have at the start, times ``feedback_scale``.

    Tried: normalised layers or not (.82 and .75 at 1,408 strings), rates 1e-2 and 3e-2, weight decay .3 and 1; the best is in
    the settings file (docs/rules-at-their-best.md).

    Args:
        network, optimizer, clip, form: see :class:`rules.base.layered_feedback.LayeredFeedback`.
        feedback_scale: of ``B``.

    Raises:
        InvalidInput: ``feedback_scale`` not above 0; an unknown form.
    """

    source = "Lillicrap et al. 2016, Nat. Commun. 7:13276"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        form: str = "explicit",
        feedback_scale: float = 1.0,
    ):
        super().__init__(network, optimizer, clip, form)
        if feedback_scale <= 0:
            raise InvalidInput("model.feedback_scale", feedback_scale, "a number above 0")
        self.feedback_scale = feedback_scale

    def build(self) -> None:
        for k, name, matrix in self.carriers():
            self.register_buffer(f"feedback_{k}_{name}", random_like(matrix, self.keys_R(k, name)) * self.feedback_scale)

    def feedback(self, k: int, name: str) -> Tensor:
        return self.get_buffer(f"feedback_{k}_{name}")

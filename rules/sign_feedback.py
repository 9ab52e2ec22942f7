"""Sign-symmetric feedback: the way down knows the signs of the weights, not their sizes.

The matrices have the shapes of the parameters that they stand for.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.feedback_alignment import FeedbackAlignment


class SignFeedback(FeedbackAlignment):
    """``delta_l = D_l B_{l+1} delta_{l+1}`` with ``B = M * sign(W^T)``: feedback alignment with the right signs.

    Fixed or random: the sizes ``M > 0``; a subclass says which. Transported: the signs of the weights, at every step.
    Their mean square is that of the weights at the start, times ``feedback_scale**2``; BioTorch takes Xavier's standard
    deviation. Liao et al. need batch normalisation or the gradient's sign to train deep networks with it;
    here Adam takes that part.

    Args:
        network, optimizer, clip, form, feedback_scale: see :class:`rules.feedback_alignment.FeedbackAlignment`.
    """

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        form: str = "explicit",
        feedback_scale: float = 1.0,
    ):
        super().__init__(network, optimizer, clip, form, feedback_scale)
        self.locality = self.locality.through_output(network)  # the projection's signs go back

    @abstractmethod
    def magnitude(self, k: int, name: str) -> Tensor:
        """``M`` for parameter ``name`` of part ``k``; broadcasts against it."""

    def feedback(self, k: int, name: str) -> Tensor:
        return self.magnitude(k, name) * self.parts[k - 1].get_parameter(name).sign()

"""Gradient-aligned projected error: direct feedback that is turned towards the mean Jacobian of the output.

Shape suffixes: R replica, N classes, F = D * C, positions times channels of a layer.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rules.base.contract import Step, Updates
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.forward_dfa import ForwardDirectFeedback


class GradientAlignedProjectedError(ForwardDirectFeedback):
    """Gradient-aligned projected error (GrAPE, Caillon et al. 2026): ``delta_l = D_l B_l e``, and ``B_l`` descends ``1 - cos``.

    ``J_l = E[v_l t_o^T]`` is the batch's mean of rank-1 estimates of ``d o / d h_l`` by forward-mode derivatives, as in forward
    direct feedback alignment, and the cosine that of two matrices as vectors of all their entries. First the step

        B_l <- B_l + rate |B_l| (J_l / |J_l| - cos B_l / |B_l|),

    which is the cosine's gradient times ``|B_l|^2``, then ``B_l`` takes its old norm again, of which the cosine knows nothing,
    and then ``delta_l`` is made with the turned ``B_l``. So ``B_l`` has the direction of the gradient's matrix, but it is that
    of the *mean* string: the masks above the layer are averaged over inputs.

    The full text was not at hand. From the abstract and what others say of it: rank-1 Jacobians by forward-mode derivatives, a
    cosine loss for each layer's matrix, turned before the update, and rare steps of backpropagation on one batch. Ours, and
    perhaps not the authors': one cosine for a whole matrix, the mean over the batch inside it, the factor ``|B_l|^2`` and the
    fixed norm. There are no steps of backpropagation here. An earlier version (2024), as a reviewer reads it, only scales
    ``B_l``.

    Kind: the first (direct feedback, no symmetric error network, no settling).

    Args:
        network, optimizer, clip, feedback_scale, form: see :class:`rules.base.direct_feedback.DirectFeedback`.
        rate: of the turn.

    Raises:
        InvalidInput: ``rate`` not in (0, 1]; ``feedback_scale`` not above 0; an unknown form.
    """

    source = "Caillon, Fagnou, Delattre, Allauzen 2026, openreview kasbbmwk3s"
    locality = replace(ForwardDirectFeedback.locality, batch=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        feedback_scale: float = 1.0,
        form: str = "explicit",
        rate: float = 0.02,
    ):
        super().__init__(network, optimizer, clip, feedback_scale, form, rate)
        self.turn, self.rate = rate, 1.0  # what is tracked is the turned matrix itself

    def layer_updates(self, step: Step) -> Updates:
        here = self.mean_jacobians(step)
        estimates = dict(zip(here, self.mean_over_ranks(list(here.values())), strict=True))
        return Updates(self.direct_updates(step, list(self.tracked(estimates).values())), estimates)

    def tracked(self, estimates: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each ``B_l`` after its turn."""
        return {name: turned(self.get_buffer(name), jacobian, self.turn) for name, jacobian in estimates.items()}


def turned(feedback_RNF: Tensor, jacobian_RNF: Tensor, rate: float) -> Tensor:
    """A matrix one step up its cosine with another, of the norm that it had: ``[R, N, F]``."""
    size_R11 = feedback_RNF.flatten(1).norm(dim=1)[:, None, None]
    own = feedback_RNF / size_R11
    other = jacobian_RNF.to(own.dtype) / jacobian_RNF.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None]
    cosine_R11 = (own * other).flatten(1).sum(1)[:, None, None]
    moved = own + rate * (other - cosine_R11 * own)
    return size_R11 * moved / moved.flatten(1).norm(dim=1)[:, None, None]

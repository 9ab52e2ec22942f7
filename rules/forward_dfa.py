"""Forward direct feedback alignment: direct feedback that learns the mean Jacobian of the output by forward-mode derivatives.

Shape suffixes: R replica, B batch, D position, C channel, N classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rhm import InvalidInput
from rules.base.contract import Locality, Step, Updates
from rules.base.direct_feedback import DirectFeedback
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.maths.feedback import error_correlation
from rules.maths.forward_mode import tangents


class ForwardDirectFeedback(DirectFeedback):
    """Forward direct feedback alignment (FDFA, Bacho, Chu 2024): ``delta_l = D_l B_l e``, ``B_l = E[v_l t_o^T]``.

    One tangent pass a step: noise ``v_l`` is added to the tangent of what each layer hands on, and ``t_o = sum_l J_l v_l`` is
    the change of the logits along all of it, so that ``E[t_o v_l^T] = E[J_l]`` with ``J_l = d o / d h_l``.
    ``B_l`` is the *mean* Jacobian over strings: the transported weights without the string's own masks.

    Random: ``B_l`` at the start (the authors start from 0). Learned: ``B_l <- B_l + rate (estimate - B_l)``, the paper's
    moving average; the authors' code gives the same difference to Adam. ``delta_l`` has ``B_l`` from before the step.
    No layer sees another one's activity or weights, but what ``B_l`` tracks has come through all of them, and all
    units of its own.

    Args:
        network, optimizer, clip, feedback_scale, form: see :class:`rules.base.direct_feedback.DirectFeedback`.
        rate: step of ``B_l`` towards a batch's estimate.

    Raises:
        InvalidInput: ``rate`` not in (0, 1]; ``feedback_scale`` not above 0; an unknown form.
    """

    source = "Bacho, Chu 2024, arXiv 2212.07282"
    locality = Locality(lateral=True, error=True, other_layers=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        feedback_scale: float = 1.0,
        form: str = "explicit",
        rate: float = 0.02,
    ):
        super().__init__(network, optimizer, clip, feedback_scale, form)
        if not 0 < rate <= 1:
            raise InvalidInput("model.rate", rate, "a number in (0, 1]")
        self.rate = rate

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN

    def layer_updates(self, step: Step) -> Updates:
        return Updates(super().layer_updates(step).layers, self.mean_jacobians(step))

    def noises(self, step: Step) -> list[Tensor]:
        """``v_l`` at what each layer hands on, ``[R, B, D, C]``."""
        shapes = [tuple(state.out_RBDC.shape[2:]) for state in step.states]
        return [self.noise(step.batch, f"tangent {k}", shape) for k, shape in enumerate(shapes, 1)]

    def mean_jacobians(self, step: Step) -> dict[str, Tensor]:
        """The batch's estimate of each ``E[J_l]``, ``[R, N, D * C]``, by the name of ``B_l``."""
        noises = self.noises(step)
        tangent_o = self.readout.tangent(tangents(self.network, step.states, noises)[-1].flatten(2)).to(noises[0].dtype)
        return {f"feedback_{k}": error_correlation(tangent_o, noise) for k, noise in enumerate(noises, 1)}

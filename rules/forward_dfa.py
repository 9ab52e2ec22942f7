"""Direct feedback that averages the network's Jacobians, measured by forward-mode derivatives.

Shape suffixes: R replica, B batch, D position, C channel, N classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from networks import LayerUpdate
from rhm import InvalidInput
from rules.dfa import DirectFeedback
from rules.local_rule import Locality, NetworkConfig, OptimizerCallable, Step, default_network


class ForwardDirectFeedback(DirectFeedback):
    """Forward direct feedback alignment (Bacho, Chu 2024): ``delta_l = D_l B_l e`` with ``B_l`` the running mean of
    ``(d o / d h_l)^T``.

    One pass of tangents perturbs every layer's output by normal noise ``v_l`` at once; ``t``, the change of the output ``o``,
    gives ``E[t v_l^T] = E[d o / d h_l]``, and ``B_l += rate (t v_l^T - B_l)``. The mean over strings of the Jacobian is the
    best feedback that knows nothing of the string: what it still lacks are the masks of the layers above.

    Learned: ``B_l``, from a random start. The authors' code lets Adam follow the same difference; we average, as the paper
        writes.

    Args:
        network, optimizer, clip, feedback_scale, form: see :class:`rules.dfa.DirectFeedback`.
        feedback_rate: how far ``B_l`` goes towards a step's estimate.

    Raises:
        InvalidInput: ``feedback_rate`` outside (0, 1].
    """

    source = "Bacho, Chu 2024, arXiv 2212.07282"
    locality = Locality(label=True, output_error=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        feedback_scale: float = 1.0,
        form: str = "explicit",
        feedback_rate: float = 0.01,
    ):
        super().__init__(network, optimizer, clip, feedback_scale, form)
        if not 0 < feedback_rate <= 1:
            raise InvalidInput("model.feedback_rate", feedback_rate, "a number in (0, 1]")
        self.rate = feedback_rate

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        self.estimates = {f"feedback_{k}": jacobian for k, jacobian in enumerate(self._jacobians(step), 1)}
        return super().layer_updates(step)

    def _jacobians(self, step: Step) -> list[Tensor]:
        """A batch's estimate of ``E[d o / d h_l]`` for every layer, ``[R, N, D * C]``."""
        noises: list[Tensor] = []
        tangent = torch.zeros(())
        for k, (layer, state) in enumerate(zip(self.network.layers, step.states, strict=True), 1):
            noises.append(self.noise(step.batch, f"tangent {k}", tuple(state.out_RBDC.shape[2:])))
            tangent = noises[0] if k == 1 else layer.tangent(state, tangent) + noises[-1]
        change_RBN = self.readout.tangent(tangent.flatten(2))
        return [torch.bmm(change_RBN.transpose(1, 2), noise.flatten(2)) / noise.shape[1] for noise in noises]

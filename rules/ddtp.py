"""Direct difference target propagation: direct feedback that learns to undo the way from a layer to the output.

Shape suffixes: R replica, B batch, D position, C channel, N classes, F = D * C.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rhm import InvalidInput
from rules.base.contract import Locality, Step, Updates
from rules.base.direct_feedback import DirectFeedback
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network


class DirectTargetPropagation(DirectFeedback):
    """Direct difference target propagation, linear (DDTP-linear, Meulemans et al. 2020): ``delta_l = D_l Q_l e``.

    A layer's target is ``h_l + Q_l (o' - o)`` with the output's ``o' = o - eta e``, and its weights descend the squared
    distance to it; ``eta`` is left to the learning rate. ``Q_l`` descends the difference reconstruction loss,

        1/2 E |Q_l t - v|^2 + decay/2 |Q_l|^2,    t = J_l v the change of the logits along noise v at h_l alone,

    and so tends to ``E[J_l]^T (E[J_l J_l^T] + decay)^-1``: for one string the damped pseudo-inverse, which sends a Gauss-Newton
    step in the place of a gradient; over strings the masks are averaged. ``h_l`` is what the layer hands on.

    Random: ``Q_l`` at the start. Learned: ``Q_l``, by the optimizer of the weights; the authors train it between their steps,
    with noise of a finite size, of which this is the limit, and let logits pass a sigmoid or softmax on their way.

    Kind: the first (direct feedback; forward passes of noise instead of a symmetric error network; no settling).

    Args:
        network, optimizer, clip, feedback_scale, form: see :class:`rules.base.direct_feedback.DirectFeedback`.
        decay: of ``Q_l``, in its loss.

    Raises:
        InvalidInput: ``decay`` under 0; ``feedback_scale`` not above 0; an unknown form.
    """

    source = "Meulemans, Carzaniga, Suykens, Sacramento, Grewe 2020, arXiv 2006.14331"
    locality = Locality(error=True, other_layers=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        feedback_scale: float = 1.0,
        form: str = "explicit",
        decay: float = 0.1,
    ):
        super().__init__(network, optimizer, clip, feedback_scale, form)
        if decay < 0:
            raise InvalidInput("model.decay", decay, "a number of at least 0")
        self.decay = decay

    def build(self) -> None:
        for k, layer in enumerate(self.network.layers, 1):
            layer.register_parameter("feedback_RNF", nn.Parameter(self.initial_feedback(k)))

    def feedback(self, k: int) -> Tensor:
        return self.network.layers[k - 1].get_parameter("feedback_RNF")

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN

    def layer_updates(self, step: Step) -> Updates:
        updates = super().layer_updates(step).layers
        for k, update in enumerate(updates, 1):
            noise = self.noise(step.batch, f"tangent {k}", tuple(step.states[k - 1].out_RBDC.shape[2:]))
            update["feedback_RNF"] = self.reconstruction_gradient(step, k, noise)
        return Updates(updates)

    def change_of_logits(self, step: Step, k: int, noise_RBDC: Tensor) -> Tensor:
        """``t``, ``[R, B, N]``, along noise at what layer ``k`` from 1 hands on."""
        tangent = noise_RBDC
        for layer, state in zip(list(self.network.layers)[k:], step.states[k:], strict=True):
            tangent = layer.tangent(state, tangent)
        return self.readout.tangent(tangent.flatten(2)).to(noise_RBDC.dtype)

    def reconstruction_gradient(self, step: Step, k: int, noise_RBDC: Tensor) -> Tensor:
        """Of ``1/2 E |Q_k t - v|^2 + decay/2 |Q_k|^2``, ``[R, N, D * C]``."""
        matrix, change = self.feedback(k), self.change_of_logits(step, k, noise_RBDC)
        missed = torch.bmm(change.to(matrix.dtype), matrix) - noise_RBDC.flatten(2)
        return (
            torch.bmm(change.transpose(1, 2) / missed.shape[1], missed.to(change.dtype)).to(matrix.dtype) + self.decay * matrix
        )

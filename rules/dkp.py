"""Direct feedback that learns like the weights of a direct path from each layer to the output.

Shape suffixes: R replica, B batch, D position, C channel, N classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from networks import LayerUpdate
from rhm import InvalidInput
from rules.dfa import DirectFeedback
from rules.local_rule import Locality, NetworkConfig, OptimizerCallable, Step, default_network


class DirectKolenPollack(DirectFeedback):
    """Direct Kolen-Pollack (Webster, Choi, Ahn 2021): direct feedback alignment with ``dB_l = -eta e h_l^T - d B_l``.

    ``delta_l = D_l B_l e``. ``B_l`` gets the update of weights that would lead from the layer straight to the output: Kolen
    and Pollack's rule, for a path that is not there. No proof says that it aligns; the weights decay with the same ``d``.

    Learned: ``B_l``, from a random start.

    Args:
        network, optimizer, clip, feedback_scale, form: see :class:`rules.dfa.DirectFeedback`.
        decay: ``d``, a step's.

    Raises:
        InvalidInput: ``decay`` outside [0, 1).
    """

    source = "Webster, Choi, Ahn 2021"
    locality = Locality(label=True, output_error=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        feedback_scale: float = 1.0,
        form: str = "explicit",
        decay: float = 1e-4,
    ):
        super().__init__(network, optimizer, clip, feedback_scale, form)
        if not 0 <= decay < 1:
            raise InvalidInput("model.decay", decay, "a number in [0, 1)")
        self.decay = decay

    def build(self) -> None:
        for k, layer in enumerate(self.network.layers, 1):
            layer.register_parameter("feedback_RNF", nn.Parameter(self.initial_feedback(k)))

    def feedback(self, k: int) -> Tensor:
        return self.network.layers[k - 1].get_parameter("feedback_RNF")

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        updates, error = super().layer_updates(step), step.readout.error_RBN
        for update, state in zip(updates, step.states, strict=True):
            update["feedback_RNF"] = torch.bmm(error.transpose(1, 2), state.out_RBDC.flatten(2)) / error.shape[1]
        return updates

    @torch.no_grad()
    def after_step(self) -> None:
        for layer in self.network.layers:
            layer.weight_RGFE.mul_(1 - self.decay)
            layer.get_parameter("feedback_RNF").mul_(1 - self.decay)

"""Direct feedback alignment."""

from __future__ import annotations

import torch

from networks import LayerUpdate
from rhm import InvalidInput
from rules.feedback import broadcast_error, random_feedback
from rules.local_rule import Locality, LocalRule, NetworkConfig, OptimizerCallable, Step, default_network


class DirectFeedbackAlignment(LocalRule):
    """Direct feedback alignment (Nokland 2016, eq. 7): ``delta_l = D_l B_l e``.

    Fixed: ``B_l``, a random matrix for each layer with an entry for every position and channel. The layer's own mask ``D_l`` is
    kept; the masks of the layers above, which backpropagation has, are missing.

    Args:
        network, optimizer, clip: see :class:`rules.local_rule.LocalRule`.
        feedback_scale: standard deviation of ``B_l`` times ``sqrt(n)``.

    Raises:
        InvalidInput: ``feedback_scale`` not above 0.
    """

    source = "Nokland 2016, arXiv 1609.01596"
    knowledge = "labels"
    locality = Locality(label=True, output_error=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        feedback_scale: float = 1.0,
    ):
        super().__init__(network, optimizer, clip)
        if feedback_scale <= 0:
            raise InvalidInput("model.feedback_scale", feedback_scale, "a number above 0")
        self.feedback_scale = feedback_scale

    def build(self) -> None:
        for k, layer in enumerate(self.network.layers, 1):
            keys_R, positions = self.keys_R("feedback", k), self.network.positions[k - 1]
            feedback = random_feedback(keys_R, self.data.task.n, positions, layer.out_channels, self.feedback_scale)
            self.register_buffer(f"feedback_{k}", feedback)

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        error = step.readout.error_RBN / step.readout.error_RBN.shape[1]
        updates = []
        for k, (layer, state) in enumerate(zip(self.network.layers, step.states, strict=True), 1):
            signal = broadcast_error(error, self.get_buffer(f"feedback_{k}"), state.out_RBDC.shape)
            updates.append(layer.backward(state, signal)[0])
        return updates

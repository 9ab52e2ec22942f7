"""Direct feedback: the output error, or what stands for it, reaches each hidden layer through one random matrix.

Shape suffixes: R replica, B batch, D position, C channel, N classes, F = D * C.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from networks import LayerUpdate
from rhm import InvalidInput
from rules.base.contract import Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.maths.feedback import broadcast_error, random_feedback
from rules.maths.plasticity import backward_of


class DirectFeedback(LocalRule):
    """``delta_l = D_l B_l t`` with a teaching signal ``t`` of one number a class; a subclass says which.

    Fixed, unless a subclass learns it: ``B_l``, a random matrix for each layer with an entry for every position and channel.
    The layer's own mask ``D_l`` is kept; the masks of the layers above, which backpropagation has, are missing.
    With a bottleneck the signal arrives at the projection and passes it inside the layer.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        feedback_scale: standard deviation of ``B_l`` times ``sqrt(n)``.
        form: ``explicit`` products of local factors, or ``autograd`` of ``<output, signal>``; both give the same update.

    Raises:
        InvalidInput: ``feedback_scale`` not above 0; an unknown form.
    """

    family = "feedback"
    knowledge = "labels"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        feedback_scale: float = 1.0,
        form: str = "explicit",
    ):
        super().__init__(network, optimizer, clip)
        if feedback_scale <= 0:
            raise InvalidInput("model.feedback_scale", feedback_scale, "a number above 0")
        self.feedback_scale, self.backward_layer = feedback_scale, backward_of(form)
        self.locality = self.locality.through_output(network)

    @abstractmethod
    def teaching_signal(self, step: Step) -> Tensor:
        """``t`` of each string, ``[R, B, N]``."""

    def build(self) -> None:
        for k in range(1, len(self.network) + 1):
            self.register_buffer(f"feedback_{k}", self.initial_feedback(k))

    def initial_feedback(self, k: int) -> Tensor:
        """A random ``B_k``, ``[R, N, D * C]``."""
        channels, positions = self.network.layers[k - 1].out_channels, self.network.positions[k - 1]
        return random_feedback(self.keys_R("feedback", k), self.data.task.n, positions, channels, self.feedback_scale)

    def feedback(self, k: int) -> Tensor:
        """``B_k``, ``[R, N, D * C]``."""
        return self.get_buffer(f"feedback_{k}")

    def layer_updates(self, step: Step) -> Updates:
        return Updates(self.direct_updates(step, [self.feedback(k) for k in range(1, len(self.network) + 1)]))

    def direct_updates(self, step: Step, feedback_RNF: list[Tensor]) -> list[LayerUpdate]:
        """``D_l B_l t`` times the presynaptic activity, with one matrix a layer."""
        teaching = self.teaching_signal(step) / step.batch.y_RB.shape[1]  # losses are means over strings
        updates = []
        for layer, state, matrix_RNF in zip(self.network.layers, step.states, feedback_RNF, strict=True):
            signal = broadcast_error(teaching, matrix_RNF, state.out_RBDC.shape)
            updates.append(self.backward_layer(layer, state, signal.to(state.out_RBDC.dtype))[0])
        return updates

    def feedback_and_weights(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {f"layer{k}": (self.feedback(k), weights) for k, weights in enumerate(self.weight_products(), 1)}

"""Direct feedback: the output error, or what stands for it, reaches each hidden layer through one random matrix.

Shape suffixes: R replica, B batch, D position, C channel, N classes.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from networks import LayerUpdate
from rhm import InvalidInput
from rules.feedback import broadcast_error, random_feedback
from rules.local_rule import Locality, LocalRule, NetworkConfig, OptimizerCallable, Step, default_network
from rules.plasticity import backward_of


class DirectFeedback(LocalRule):
    """``delta_l = D_l B_l t`` with a teaching signal ``t`` of one number a class; a subclass says which.

    Fixed, unless a subclass learns it: ``B_l``, a random matrix for each layer with an entry for every position and channel.
    The layer's own mask ``D_l`` is kept; the masks of the layers above, which backpropagation has, are missing.
    With a bottleneck the signal arrives at the projection and passes it inside the layer.

    Args:
        network, optimizer, clip: see :class:`rules.local_rule.LocalRule`.
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
        """``B_k`` of this step, ``[R, N, D * C]``."""
        return self.get_buffer(f"feedback_{k}")

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        teaching = self.teaching_signal(step) / step.batch.y_RB.shape[1]  # losses are means over strings
        updates = []
        for k, (layer, state) in enumerate(zip(self.network.layers, step.states, strict=True), 1):
            signal = broadcast_error(teaching, self.feedback(k), state.out_RBDC.shape)
            updates.append(self.backward_layer(layer, state, signal.to(state.out_RBDC.dtype))[0])
        return updates

    def feedback_and_weights(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {f"layer{k}": (self.feedback(k), weights) for k, weights in enumerate(self.weight_products(), 1)}


class DirectFeedbackAlignment(DirectFeedback):
    """Direct feedback alignment (Nokland 2016, eq. 7): ``delta_l = D_l B_l e``.

    Fixed: ``B_l``, random, see :class:`DirectFeedback`.
    """

    source = "Nokland 2016, arXiv 1609.01596"
    locality = Locality(label=True, output_error=True)

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN


class SignDirectFeedbackAlignment(DirectFeedback):
    """Direct feedback of the error's signs (sDFA): ``delta_l = D_l B_l sign(e)``.

    Fixed: ``B_l``, random, see :class:`DirectFeedback`. The update does not shrink as the error does.
    """

    source = "Nokland 2016, arXiv 1609.01596 with the error's sign"
    locality = Locality(label=True, output_error=True)

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN.sign()


class DirectRandomTargetProjection(DirectFeedback):
    """Direct random target projection (Frenkel et al. 2021): ``delta_l = -D_l B_l y*``.

    ``y*`` is the one-hot class: a layer learns before the network has answered. The minus is the one of ``e = p - y*``. The
    signal does not shrink when the answer is right: ReLU units grow without bound, saturating ones such as tanh do not.
    """

    source = "Frenkel, Lefebvre, Bol 2021, arXiv 1909.01311"
    locality = Locality(label=True)

    def teaching_signal(self, step: Step) -> Tensor:
        return -functional.one_hot(step.batch.y_RB.long(), self.data.task.n).to(step.readout.error_RBN.dtype)

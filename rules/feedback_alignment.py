"""Feedback alignment: errors go down layer by layer, through matrices that are not the transposed weights.

Shape suffixes: R replica, B batch, D position, C channel, N classes; G groups of positions, F inputs, E units.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from networks import LayerUpdate
from rhm import InvalidInput
from rhm.hashing import normal
from rules.local_rule import Locality, LocalRule, NetworkConfig, OptimizerCallable, Step, default_network
from rules.plasticity import backward_of


class LayeredFeedback(LocalRule):
    """``delta_l = D_l B_{l+1} delta_{l+1}``: backpropagation with ``B`` for every transposed weight that carries the error.

    All masks are kept. The matrices of the readout, of the layers above the first and of their bottlenecks' projections are
    replaced; a subclass says by what.

    Args:
        network, optimizer, clip: see :class:`rules.local_rule.LocalRule`.
        form: ``explicit`` products of local factors, or ``autograd``; both give the same update.

    Raises:
        InvalidInput: an unknown form.
    """

    family = "feedback"
    knowledge = "labels"
    locality = Locality(label=True, output_error=True, other_layers=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        form: str = "explicit",
    ):
        super().__init__(network, optimizer, clip)
        self.backward_layer = backward_of(form)

    @abstractmethod
    def feedback(self, k: int, name: str) -> Tensor:
        """The matrix that carries the error down in place of parameter ``name`` of part ``k``: a layer from 1, or the readout.

        It has the parameter's shape; its transpose is applied.
        """

    def carriers(self) -> list[tuple[int, str, Tensor]]:
        """Part, name and value of every parameter that backpropagation would carry the error down through."""
        found = []
        for k, part in enumerate(self.parts, 1):
            for name in ("weight_RGFE", "projection_RGEC", "weight_RFN"):
                matrix = getattr(part, name, None)
                if matrix is not None and (k > 1 or name == "projection_RGEC"):
                    found.append((k, name, matrix))
        return found

    def feedback_and_weights(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {
            f"layer{k}_projection" if name == "projection_RGEC" else f"layer{k - 1}": (self.feedback(k, name), matrix)
            for k, name, matrix in self.carriers()
        }

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        top = len(self.network)
        signal = self.readout.hand_down(step.readout, step.states[-1].out_RBDC.shape, self.feedback(top + 1, "weight_RFN"))
        updates: list[LayerUpdate] = []
        for k in range(top, 0, -1):
            layer, state = self.network.layers[k - 1], step.states[k - 1]
            projection = None if layer.projection_RGEC is None else self.feedback(k, "projection_RGEC")
            update, delta = self.backward_layer(layer, state, signal, projection)
            updates.insert(0, update)
            if k > 1:
                signal = layer.hand_down(delta, signal.shape[1], self.feedback(k, "weight_RGFE"))
        return updates


class FeedbackAlignment(LayeredFeedback):
    """Feedback alignment (Lillicrap et al. 2016): ``delta_l = D_l B_{l+1} delta_{l+1}``.

    Fixed: ``B``, random, with the standard deviation that the weights have at the start, times ``feedback_scale``.

    Args:
        network, optimizer, clip, form: see :class:`LayeredFeedback`.
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


def random_like(matrix: Tensor, keys_R: Tensor) -> Tensor:
    """A random normal matrix of a parameter's shape and, in each replica, mean square."""
    rms_R = matrix.detach().flatten(1).square().mean(1).sqrt()
    return normal(keys_R, tuple(matrix.shape[1:])).to(matrix.dtype) * rms_R.view(-1, *[1] * (matrix.dim() - 1))

"""Feedback layer by layer: errors go down through matrices that need not be the transposed weights.

Shape suffixes: R replica, B batch, D position, C channel, N classes; G groups of positions, F inputs, E units.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from networks import LayerUpdate
from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.maths.plasticity import backward_of


class LayeredFeedback(LocalRule):
    """``delta_l = D_l B_{l+1} delta_{l+1}``: backpropagation with ``B`` for every transposed weight that carries the error.

    All masks are kept. The matrices of the readout, of the layers above the first and of their bottlenecks' projections are
    replaced; a subclass says by what.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        form: ``explicit`` products of local factors, or ``autograd``; both give the same update.

    Raises:
        InvalidInput: an unknown form.
    """

    family = "feedback"
    knowledge = "labels"
    locality = Locality(error=True, other_layers=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        form: str = "explicit",
    ):
        super().__init__(network, optimizer, clip)
        self.backward_layer = backward_of(form)
        self.locality = self.locality.through_output(network, transport=False)

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

    def layer_updates(self, step: Step) -> Updates:
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
        return Updates(updates)

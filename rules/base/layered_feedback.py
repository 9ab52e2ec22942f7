"""Feedback layer by layer: errors go down through matrices that need not be the transposed weights.

Shape suffixes: R replica, B batch, D position, C channel, N classes; G groups of positions, M rows, F inputs, E units.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from networks import LayerUpdate
from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.maths.plasticity import backward_of


class Descent(NamedTuple):
    """The error at a layer.

    Attributes:
        k: number of the layer, from 1.
        signal_RBDC: at what the layer hands on.
        delta_RGME: at the pre-activations, behind the layer's own mask.
        update: of the layer.
    """

    k: int
    signal_RBDC: Tensor
    delta_RGME: Tensor
    update: LayerUpdate


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
        return Updates([descent.update for descent in self.descend(step)][::-1])

    def descend(self, step: Step, masks: list[Tensor] | None = None) -> Iterator[Descent]:
        """The way of the error, from the top layer down.

        Args:
            step: with the error.
            masks: of the layers above the first, ``[R, B, D, E]``, that the error meets on its way; None is each string's own.
                A layer's own update has its own mask.
        """
        top = len(self.network)
        signal = self.readout.hand_down(step.readout, step.states[-1].out_RBDC.shape, self.feedback(top + 1, "weight_RFN"))
        for k in range(top, 0, -1):
            layer, state = self.network.layers[k - 1], step.states[k - 1]
            projection = None if layer.projection_RGEC is None else self.feedback(k, "projection_RGEC")
            update, delta = self.backward_layer(layer, state, signal, projection)
            yield Descent(k, signal, delta, update)
            if k > 1:
                passed = delta if masks is None else layer.by_group(signal * masks[k - 2].to(signal.dtype))
                signal = layer.hand_down(passed, signal.shape[1], self.feedback(k, "weight_RGFE"))

"""Backpropagation: the reference that every local rule is compared with."""

from __future__ import annotations

from networks import LayerUpdate
from rules.local_rule import Locality, LocalRule, Step


class Backprop(LocalRule):
    """Supervised backpropagation (Rumelhart, Hinton, Williams 1986), written layer by layer.

    ``delta_l = D_l W_{l+1}^T D_{l+1} ... W_L^T e``: the output error goes down through the transposed weights and the masks
    ``D = diag(phi'(a))`` that the string itself has set.
    """

    family = "reference"
    source = "Rumelhart, Hinton, Williams 1986"
    knowledge = "labels"
    locality = Locality(label=True, output_error=True, other_layers=True)

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        return self.backpropagate(step, down_to=0)

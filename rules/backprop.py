"""Backpropagation: the reference that every local rule is compared with."""

from __future__ import annotations

import torch

from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network


class Backprop(LocalRule):
    """Supervised backpropagation (Rumelhart, Hinton, Williams 1986), written layer by layer.

    ``delta_l = D_l W_{l+1}^T D_{l+1} ... W_L^T e``: the output error goes down through the transposed weights and the masks
    ``D = diag(phi'(a))`` that the string itself has set.
    """

    family = "reference"
    source = "Rumelhart, Hinton, Williams 1986"
    knowledge = "labels"
    locality = Locality(error=True, other_layers=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
    ):
        super().__init__(network, optimizer, clip)
        self.locality = self.locality.through_output(network)

    def layer_updates(self, step: Step) -> Updates:
        return self.end_to_end(step)

"""Barlow Twins at every layer.

Shape suffixes: R replica, B batch, D pair of a string, C channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rhm import InvalidInput
from rules.base.block import Block
from rules.base.layerwise import LayerwiseRule
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.base.pair import Pair
from rules.maths.losses import barlow_twins


class BarlowTwins(LayerwiseRule):
    """Barlow Twins (Zbontar et al. 2021, eq. 1) at every layer: ``sum_i (1 - C_ii)^2 + redundancy sum_{i != j} C_ij^2``.

    ``C`` correlates the channels of the first side with those of the second, over the batch. No negatives.

    Args:
        network, optimizer, clip, block: see :class:`rules.base.layerwise.LayerwiseRule`.
        redundancy: weight of the entries off the diagonal.

    Raises:
        InvalidInput: ``redundancy`` under 0.
    """

    source = "Zbontar et al. 2021, arXiv 2103.03230"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(),
        redundancy: float = 0.0051,
    ):
        super().__init__(network, optimizer, clip, block)
        if redundancy < 0:
            raise InvalidInput("model.redundancy", redundancy, "a number of at least 0")
        self.redundancy = redundancy

    def pair_loss(self, pair: Pair) -> Tensor:
        return barlow_twins(pair.z1_RBDC, pair.z2_RBDC, self.redundancy)

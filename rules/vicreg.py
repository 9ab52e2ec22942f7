"""Variance-invariance-covariance regularisation at every layer.

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
from rules.maths.losses import vicreg


class VICReg(LayerwiseRule):
    """VICReg (Bardes, Ponce, LeCun 2022, eq. 6) at every layer, see :func:`rules.maths.losses.vicreg`.

    ``s MSE(z1, z2) + v mean_i max(0, 1 - sd_i) + c sum_{i != j} C_ij^2 / C``. No negatives; other strings enter through
    variances.

    Args:
        network, optimizer, clip, block: see :class:`rules.base.layerwise.LayerwiseRule`.
        similarity, variance, covariance: ``s``, ``v`` and ``c``.

    Raises:
        InvalidInput: a negative weight.
    """

    source = "Bardes, Ponce, LeCun 2022, arXiv 2105.04906"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(),
        similarity: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ):
        super().__init__(network, optimizer, clip, block)
        for key, value in ("similarity", similarity), ("variance", variance), ("covariance", covariance):
            if value < 0:
                raise InvalidInput(f"model.{key}", value, "a number of at least 0")
        self.similarity, self.variance, self.covariance = similarity, variance, covariance

    def pair_loss(self, pair: Pair) -> Tensor:
        return vicreg(pair.z1_RBDC, pair.z2_RBDC, self.similarity, self.variance, self.covariance)

"""Slow feature analysis at every layer.

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
from rules.maths.losses import slowness


class SlowFeatureAnalysis(LayerwiseRule):
    """Slow feature analysis (Wiskott, Sejnowski 2002) at every layer: the partner is the next moment.

    ``1 - tr(C^-1 G) / channels``, see :func:`rules.maths.losses.slowness`: slowness under unit variance and decorrelation,
    which LPL keeps by penalties and this rule exactly, through the inverse of the layer's covariance. No negatives.

    Args:
        network, optimizer, clip, block: see :class:`rules.base.layerwise.LayerwiseRule`.
        ridge: added to the covariance, in units of its mean variance.

    Raises:
        InvalidInput: ``ridge`` not above 0: a covariance may be singular.
    """

    source = "Wiskott, Sejnowski 2002, Neural Comput. 14:715"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(),
        ridge: float = 0.01,
    ):
        super().__init__(network, optimizer, clip, block)
        if ridge <= 0:
            raise InvalidInput("model.ridge", ridge, "a number above 0")
        self.ridge = ridge

    def pair_loss(self, pair: Pair) -> Tensor:
        return slowness(pair.z1_RBDC, pair.z2_RBDC, self.ridge)

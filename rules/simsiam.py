"""A predictor and a stopped gradient in place of negatives.

Shape suffixes: R replica, B batch, D pair of a string, C channel, E units of the predictor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rhm import InvalidInput
from rules.base.block import Block
from rules.base.contract import Locality
from rules.base.layerwise import LayerwiseRule
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.base.pair import LossHead, Pair
from rules.maths.losses import batch_norm, negative_cosine, project


class SimSiam(LayerwiseRule):
    """SimSiam (Chen, He 2021, eq. 1 and 2) at every layer: ``-cos(q(z1), stop z2) / 2 - cos(q(z2), stop z1) / 2``.

    ``z`` are the sides behind the head, each channel with mean 0 and variance 1 over the batch. Learned: the weights and
    the predictor ``q``, two matrices with the same batch norm and a relu between them, which belong to the layer. No
    negatives. Batch norm is where the authors' code has it (facebookresearch/simsiam, ``builder.py``: behind the projector,
    without scale and shift, and in the predictor's hidden layer, there with them); without it the rule was at chance here.
    Their projector has three layers.

    A bottleneck as wide as the vocabulary, which other rules on pairs like, makes it unstable: each grammar is solved or
    lost, we think because what siblings tell of one another differs from feature to feature, and a code of the most telling
    one alone has the smallest loss. In layer 2 the participation ratio of the code's covariance falls from 5 to 1.4 and less
    within 150 steps, while the loss falls on, and the code of a single feature is no symbol. Batch norm keeps each channel
    alive and lets all be the same. Layers that hand on all their units, normalised, are stable, those without
    normalisation are not; decay helps with few strings (docs/rules-at-their-best.md).

    Args:
        network, optimizer, clip, block: see :class:`rules.base.layerwise.LayerwiseRule`.
        hidden: width of the predictor's hidden layer.

    Raises:
        InvalidInput: ``hidden`` under 1.
    """

    source = "Chen, He 2021, arXiv 2011.10566"
    locality = Locality(partner=True, batch=True, lateral=True, transport_within_layer=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(),
        hidden: int = 32,
    ):
        super().__init__(network, optimizer, clip, block)
        if hidden < 1:
            raise InvalidInput("model.hidden", hidden, "an integer of at least 1")
        self.hidden = hidden

    def build_head(self, head: LossHead, k: int, channels: int) -> None:
        self.add_matrix(head, "predictor_in_RCE", k, (channels, self.hidden), scale=math.sqrt(2 / channels))
        self.add_matrix(head, "predictor_out_REC", k, (self.hidden, channels), scale=1 / math.sqrt(self.hidden))

    def predict(self, pair: Pair, z_RBDC: Tensor) -> Tensor:
        """``q(z)``."""
        hidden = batch_norm(project(z_RBDC, pair.head.get_parameter("predictor_in_RCE"))).relu()
        return project(hidden, pair.head.get_parameter("predictor_out_REC"))

    def targets(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """What each side is predicted to be, before batch norm; constants."""
        return pair.z1_RBDC.detach(), pair.z2_RBDC.detach()

    def pair_loss(self, pair: Pair) -> Tensor:
        t1, t2 = (batch_norm(target) for target in self.targets(pair))
        forth = negative_cosine(self.predict(pair, batch_norm(pair.z1_RBDC)), t2)
        return (forth + negative_cosine(self.predict(pair, batch_norm(pair.z2_RBDC)), t1)) / 2

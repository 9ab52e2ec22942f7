"""InfoNCE at every layer.

Shape suffixes: R replica, B batch, D pair of a string, C channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rhm import InvalidInput
from rules.layerwise import Block, LayerwiseRule, Pair
from rules.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.losses import bilinear_scores, cosine_scores, info_nce


class LayerwiseContrastive(LayerwiseRule):
    """InfoNCE at every layer (Oord et al. 2018; layerwise: Lowe et al. 2019; NT-Xent with ``cosine``: Chen et al. 2020).

    ``Loss_l = -log exp(u_bb / t) / sum_b' exp(u_bb' / t)`` with ``u = z1^T W_l z2`` (``bilinear``) or the cosine of ``z1`` and
    ``z2`` (``cosine``) for the two sides of a pair; the negatives are the batch's other strings.

    Learned: the weights and, with the bilinear score, the predictor ``W_l``, which belongs to the layer.
    Siblings need the predictor: the left and the right symbol of a tuple predict one another but are not alike, and a cosine
    would call every symbol most like itself. Not known: which pairs, score and temperature the source paper used.

    Args:
        network, optimizer, clip, block: see :class:`rules.layerwise.LayerwiseRule`.
        score: ``bilinear`` or ``cosine``.
        temperature: ``t``.

    Raises:
        InvalidInput: an unknown score; a temperature not above 0; a network without layers that have pairs.
    """

    source = "Oord et al. 2018, arXiv 1807.03748; Lowe et al. 2019, arXiv 1905.11786"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(),  # noqa: B008  (frozen)
        score: str = "bilinear",
        temperature: float = 1.0,
    ):
        super().__init__(network, optimizer, clip, block)
        if score not in ("bilinear", "cosine"):
            raise InvalidInput("model.score", score, "bilinear or cosine")
        if temperature <= 0:
            raise InvalidInput("model.temperature", temperature, "a number above 0")
        self.score, self.temperature = score, temperature

    def build_head(self, head: nn.Module, k: int, channels: int) -> None:
        if self.score == "bilinear":
            self.add_matrix(head, "predictor_RCC", k, (channels, channels), scale=1 / channels)

    def pair_loss(self, pair: Pair) -> Tensor:
        if self.score == "bilinear":
            predictor = pair.head.get_parameter("predictor_RCC") / self.temperature
            return info_nce(bilinear_scores(pair.z1_RBDC, predictor, pair.z2_RBDC))
        return info_nce(cosine_scores(pair.z1_RBDC, pair.z2_RBDC) / self.temperature)

"""Greedy InfoMax: InfoNCE in one direction at every module.

Shape suffixes: R replica, B batch, D pair of a string, C channel.
"""

from __future__ import annotations

from torch import Tensor

from rules.base.contract import Locality
from rules.base.layerwise import LayerwiseRule
from rules.base.pair import LossHead, Pair
from rules.maths.losses import bilinear_scores, info_nce_of_targets


class GreedyInfoMax(LayerwiseRule):
    """Greedy InfoMax (Lowe, O'Connor, Veeling 2019, eq. 4): ``-log exp(z^T W c) / sum_j exp(z_j^T W c)`` at every layer.

    The first side of a pair is the context ``c``, the second the target ``z``; the targets of the other strings of the batch
    are the negatives. Learned: the weights and ``W``, which belongs to the layer. Here ``c`` is a neighbour; the authors
    predict several steps ahead from an autoregressive context at the top module.
    """

    source = "Lowe, O'Connor, Veeling 2019, arXiv 1905.11786"
    locality = Locality(partner=True, batch=True, lateral=True, transport_within_layer=True)

    def build_head(self, head: LossHead, k: int, channels: int) -> None:
        self.add_matrix(head, "predictor_RCC", k, (channels, channels), scale=1 / channels)

    def pair_loss(self, pair: Pair) -> Tensor:
        return info_nce_of_targets(self.scores(pair))

    def scores(self, pair: Pair) -> Tensor:
        return bilinear_scores(pair.z1_RBDC, pair.head.get_parameter("predictor_RCC"), pair.z2_RBDC)

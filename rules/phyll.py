"""Physical local learning: a smooth comparison of the score of a pair with that of another string.

Shape suffixes: R replica, B batch, D pair of a string, C channel.
"""

from __future__ import annotations

from torch import Tensor

from rules.base.contract import Locality
from rules.base.layerwise import LayerwiseRule
from rules.base.pair import LossHead, Pair
from rules.maths.losses import bilinear_scores, other_strings, pair_scores, phyll, project


class PhyLL(LayerwiseRule):
    """PhyLL (Momeni et al. 2023): ``softplus(s_neg - s_pos)`` at every layer.

    The authors compare cosines of a positive and a negative pass with a fixed vector; here ``s = z1^T W z2`` scores a pair
    and, with another string's second side, its negative, never the string itself. Learned: the weights and ``W``, which
    belongs to the layer.
    """

    source = "Momeni et al. 2023, arXiv 2304.11042"
    locality = Locality(partner=True, batch=True, lateral=True, transport_within_layer=True)

    def build_head(self, head: LossHead, k: int, channels: int) -> None:
        self.add_matrix(head, "predictor_RCC", k, (channels, channels), scale=1 / channels)

    def pair_loss(self, pair: Pair) -> Tensor:
        context = project(pair.z1_RBDC, pair.head.get_parameter("predictor_RCC"))
        return phyll(pair_scores(context, pair.z2_RBDC), pair_scores(context, other_strings(pair.z2_RBDC, pair.shift_R())))

    def scores(self, pair: Pair) -> Tensor:
        return bilinear_scores(pair.z1_RBDC, pair.head.get_parameter("predictor_RCC"), pair.z2_RBDC)

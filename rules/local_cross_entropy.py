"""A linear classifier on every layer.

Shape suffixes: R replica, B batch, F all channels of a layer, E outputs of its head.
"""

from __future__ import annotations

from torch import Tensor

from rules.base.contract import Locality
from rules.base.local_label_loss import LocalLabelLoss
from rules.maths.losses import cross_entropy


class LocalCrossEntropy(LocalLabelLoss):
    """A linear classifier on every layer (Mostafa et al. 2018; Belilovsky et al. 2019): ``CE(U_l h_l, y)``.

    Learned: the weights and the classifier ``U_l``, which belongs to the layer.
    """

    source = "Mostafa, Ramesh, Cauwenberghs 2018, arXiv 1711.06756"
    locality = Locality(label=True, lateral=True, transport_within_layer=True)

    def head_width(self) -> int:
        return self.data.task.n

    def label_loss(self, z_RBE: Tensor, out_RBF: Tensor, y_RB: Tensor) -> Tensor:
        return cross_entropy(z_RBE, y_RB)

"""Strings of a class are to be alike in every layer.

Shape suffixes: R replica, B batch, F all channels of a layer, E outputs of its head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rhm import InvalidInput
from rules.base.contract import Locality
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.local_cross_entropy import LocalCrossEntropy
from rules.maths.losses import cross_entropy, similarity_matrix


class SimilarityMatching(LocalCrossEntropy):
    """Local error signals (Nokland, Eidnes 2019, eq. 1 to 3): ``(1 - b) CE(U_l h_l, y) + b MSE(sim(h_l), sim(y))``.

    ``sim`` are the cosines between the strings of a batch, each with its own mean taken out; ``MSE`` is the mean over all
    ``B^2`` of them, as in the authors' code (the paper writes a sum). The authors pass ``h`` through a further layer before
    ``sim``, and convolutions through each channel's deviation over space; here it is the layer's output itself.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        similarity: ``b``.

    Raises:
        InvalidInput: ``similarity`` not in (0, 1].
    """

    source = "Nokland, Eidnes 2019, arXiv 1901.06656"
    locality = Locality(batch=True, label=True, lateral=True, transport_within_layer=True)
    compares_strings = True

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        similarity: float = 0.99,
    ):
        super().__init__(network, optimizer, clip)
        if not 0 < similarity <= 1:
            raise InvalidInput("model.similarity", similarity, "a number in (0, 1]; LocalCrossEntropy is without")
        self.similarity = similarity

    def label_loss(self, z_RBE: Tensor, out_RBF: Tensor, y_RB: Tensor) -> Tensor:
        target = similarity_matrix(functional.one_hot(y_RB.long(), self.data.task.n).to(out_RBF.dtype))
        difference = (similarity_matrix(out_RBF) - target).square().mean((1, 2))
        return (1 - self.similarity) * cross_entropy(z_RBE, y_RB) + self.similarity * difference

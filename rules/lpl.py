"""Latent predictive learning: predict the partner, and keep variance up and correlations down.

Shape suffixes: R replica, B batch, D pair of a string, C channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rhm import InvalidInput
from rules.base.block import Block
from rules.base.layerwise import LayerwiseRule
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.base.pair import Pair, PairGradient
from rules.maths.losses import covariance, lpl, off_diagonal
from rules.maths.plasticity import check_form


class LatentPredictiveLearning(LayerwiseRule):
    """LPL (Halvagal, Zenke 2023, eq. 7 with the published erratum) at every layer.

    ``dz_i = -(z_i - z_i^partner) + hebbian (z_i - mean_i) / (var_i + eps) - decorrelation sum_{k != i} C_ik (z_k - mean_k)``,
    each with its constant, times ``phi'(a)`` and the presynaptic activity: a predictive, a Hebbian and a decorrelating term.
    Means are over the batch's strings and pairs and constants of the gradient.

    As in the authors' network code both sides learn from the prediction; the paper's rule moves only the later one.

    Args:
        network, optimizer, clip, block: see :class:`rules.base.layerwise.LayerwiseRule`.
        hebbian, decorrelation: weights of the two terms beside the prediction's 1.
        form: ``explicit`` products, without a graph, or ``autograd`` of the loss; both give the same update.

    Raises:
        InvalidInput: an unknown form; a negative weight.
    """

    source = "Halvagal, Zenke 2023, Nat. Neurosci. 26:1906"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(),
        hebbian: float = 1.0,
        decorrelation: float = 10.0,
        form: str = "explicit",
    ):
        super().__init__(network, optimizer, clip, block)
        for key, value in ("hebbian", hebbian), ("decorrelation", decorrelation):
            if value < 0:
                raise InvalidInput(f"model.{key}", value, "a number of at least 0")
        check_form(form)
        self.hebbian, self.decorrelation, self.form = hebbian, decorrelation, form

    def pair_loss(self, pair: Pair) -> Tensor:
        return lpl(pair.z1_RBDC, pair.z2_RBDC, self.hebbian, self.decorrelation)

    def pair_gradient(self, pair: Pair) -> PairGradient:
        if self.form == "autograd":
            return super().pair_gradient(pair)
        z1, z2 = pair.z1_RBDC, pair.z2_RBDC
        g1, g2 = self.signal(z1, z2), self.signal(z2, z1)
        return PairGradient(self.pair_loss(pair), g1, g2, {})

    def signal(self, z_RBDC: Tensor, partner_RBDC: Tensor, eps: float = 1e-4) -> Tensor:
        """The gradient of the loss by one side, ``[R, B, D, C]``."""
        rows, channels = z_RBDC.flatten(1, 2), z_RBDC.shape[-1]
        centred = rows - rows.mean(1, keepdim=True)
        samples, cov = rows.shape[1], covariance(centred)
        predictive = 2 * (rows - partner_RBDC.flatten(1, 2)) / (samples * channels)
        variance = cov.diagonal(dim1=1, dim2=2)[:, None]
        hebbian = centred / (variance + eps) / (channels * (samples - 1))
        decorrelation = 2 * torch.bmm(centred, off_diagonal(cov)) / (max(1, channels**2 - channels) * (samples - 1))
        return (predictive - self.hebbian * hebbian + self.decorrelation * decorrelation).view_as(z_RBDC)

"""Strings of a class attract, others repel, in every layer.

Shape suffixes: R replica, B batch, F all channels of a layer, E outputs of its head.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from rhm import InvalidInput
from rules.base.contract import Locality
from rules.base.local_label_loss import LocalLabelLoss
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.maths.losses import supervised_contrastive


class SupervisedContrastive(LocalLabelLoss):
    """Supervised contrastive learning (Khosla et al. 2020, eq. 2) at every layer: all strings of a class are one another's
    positives, all others its negatives. A string that is alone in its class has no term of its own.

    ``-mean_p log exp(u_bp) / sum_{a != b} exp(u_ba)`` with ``u = cos(U_l h_l, U_l h_l') / t``. Learned: the weights and the
    head ``U_l``. The authors have one loss at the top of a deep network and ``t = .1``.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        head: width of ``U_l``.
        temperature: ``t``.

    Raises:
        InvalidInput: ``head`` under 1; a temperature not above 0.
    """

    source = "Khosla et al. 2020, arXiv 2004.11362"
    locality = Locality(batch=True, label=True, lateral=True, transport_within_layer=True)
    compares_strings = True

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        head: int = 32,
        temperature: float = 0.5,
    ):
        super().__init__(network, optimizer, clip)
        if head < 1:
            raise InvalidInput("model.head", head, "an integer of at least 1")
        if temperature <= 0:
            raise InvalidInput("model.temperature", temperature, "a number above 0")
        self.head, self.temperature = head, temperature

    def head_width(self) -> int:
        return self.head

    def label_loss(self, z_RBE: Tensor, out_RBF: Tensor, y_RB: Tensor) -> Tensor:
        z = functional.normalize(z_RBE, dim=-1, eps=1e-6)
        return supervised_contrastive(torch.bmm(z, z.transpose(1, 2)).to(z.dtype) / self.temperature, y_RB)

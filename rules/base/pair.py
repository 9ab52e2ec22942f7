"""A layer's positive pairs as its loss sees them, and what the loss answers.

Shape suffixes: R replica, B batch, D pair of a string, C channel, E channel behind the head.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from networks import LayerUpdate
from rhm.hashing import below, fold
from rules.maths.losses import project


class LossHead(nn.Module):
    """The learned matrices of a layer's loss: a linear head for the sides of its pairs, if there is one, and what a rule adds.

    Args:
        key: keeps the random numbers of a layer's heads apart.

    Attributes:
        head_RCE, second_head_RCE: ``[R, C, E]``, of the first and the second side; the second is None where both have one head,
            both are None where the loss sees the sides themselves.
        own: names of the matrices of the rule.
    """

    head_RCE: nn.Parameter | None
    second_head_RCE: nn.Parameter | None
    HEADS = ("head_RCE", "second_head_RCE")

    def __init__(self, *key: str | int):
        super().__init__()
        self.key = key
        for name in self.HEADS:
            self.register_parameter(name, None)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for name in self.HEADS:
            former = prefix + name.replace("_RCE", "_RCC")  # in checkpoints of runs before they had this name
            if former in state_dict:
                state_dict[prefix + name] = state_dict.pop(former)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def own(self) -> dict[str, nn.Parameter]:
        """The rule's matrices by name."""
        return {name: p for name, p in self.named_parameters() if name not in self.HEADS}

    def forward(self, h1_RBDC: Tensor, h2_RBDC: Tensor) -> tuple[Tensor, Tensor]:
        """The sides as the loss sees them, ``[R, B, D, E]``."""
        if self.head_RCE is None:
            return h1_RBDC, h2_RBDC
        second = self.head_RCE if self.second_head_RCE is None else self.second_head_RCE
        return project(h1_RBDC, self.head_RCE).to(h1_RBDC.dtype), project(h2_RBDC, second).to(h2_RBDC.dtype)

    def backward(
        self, h1_RBDC: Tensor, h2_RBDC: Tensor, g1_RBDE: Tensor, g2_RBDE: Tensor
    ) -> tuple[Tensor, Tensor, LayerUpdate]:
        """Gradients with respect to the sides before the head, from those behind it, and the head's own."""
        if self.head_RCE is None:
            return g1_RBDE, g2_RBDE, {}
        second = self.head_RCE if self.second_head_RCE is None else self.second_head_RCE
        first_RCE, second_RCE = outer(h1_RBDC, g1_RBDE), outer(h2_RBDC, g2_RBDE)
        if self.second_head_RCE is None:
            update = {"head_RCE": first_RCE + second_RCE}
        else:
            update = {"head_RCE": first_RCE, "second_head_RCE": second_RCE}
        return project(g1_RBDE, self.head_RCE.transpose(1, 2)), project(g2_RBDE, second.transpose(1, 2)), update


def outer(x_RBDC: Tensor, y_RBDE: Tensor) -> Tensor:
    """``sum x y^T`` over strings and pairs, ``[R, C, E]``."""
    return torch.bmm(x_RBDC.flatten(1, 2).transpose(1, 2), y_RBDE.flatten(1, 2))


class Pair(NamedTuple):
    """The two sides of a layer's positive pairs.

    Attributes:
        z1_RBDC, z2_RBDC: the sides, behind the head if there is one; other strings of the batch give negatives.
        head: holds the parameters that the loss has for this layer.
        k: number of the layer, from 1.
        key_RB: random bits of the strings, a key for what a loss draws.
        shown: what :meth:`rules.base.layerwise.LayerwiseRule.shown` shows the loss beside the sides.
    """

    z1_RBDC: Tensor
    z2_RBDC: Tensor
    head: LossHead
    k: int
    key_RB: Tensor | None
    shown: tuple[Tensor, ...] = ()

    def shift_R(self, name: str = "negative") -> Tensor:
        """How many places further in the batch the strings' negatives stand: in ``[1, B)``, so none is its own."""
        assert self.key_RB is not None
        return 1 + below(fold(self.key_RB[:, 0], name, self.k), self.z1_RBDC.shape[1] - 1)


class PairGradient(NamedTuple):
    """A loss and its gradients.

    Attributes:
        loss_R: one loss a replica.
        z1_RBDC, z2_RBDC: gradients of the sum over replicas with respect to the sides.
        head: gradients of the rule's matrices by name.
    """

    loss_R: Tensor
    z1_RBDC: Tensor
    z2_RBDC: Tensor
    head: LayerUpdate

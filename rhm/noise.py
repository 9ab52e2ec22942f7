"""Tokens that are replaced by others.

Shape suffixes: R replica, B batch, D position.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rhm.hashing import below, fold, scramble

UNIT = 2**31


def replaced(x_RBD: Tensor, v: int, rate: float, key_RB: Tensor) -> Tensor:
    """Each token, with some probability, another draw from all ``v``, which may be the same again.

    Args:
        x_RBD: tokens.
        v: how many there are.
        rate: the probability, to within ``2**-31``.
        key_RB: random bits, one for each string; they make the draw.
    """
    place_D = scramble(torch.arange(x_RBD.shape[2], device=x_RBD.device))
    hit, drawn = (scramble(fold(key_RB, name)[..., None] + place_D) for name in ("hit", "drawn"))
    return torch.where(below(hit, UNIT) < round(rate * UNIT), below(drawn, v).to(x_RBD.dtype), x_RBD)

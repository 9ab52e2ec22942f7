"""How active a layer is, and what makes it more or less so.

Shape suffixes: R replica, B batch, D position, E units.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def goodness(units_RBDE: Tensor) -> Tensor:
    """Mean square of a position's units, ``[R, B, D]``: Hinton's sum of squares over the number of units."""
    return units_RBDE.square().mean(-1)


def goodness_signal(units_RBDE: Tensor, threshold: float, sign: float) -> tuple[Tensor, Tensor]:
    """``softplus(-sign (G - threshold))`` as a mean over strings and positions, ``[R]``, and its gradient by the units."""
    excess = sign * (goodness(units_RBDE) - threshold)
    strings, positions, units = units_RBDE.shape[1:]
    slope = -sign * torch.sigmoid(-excess) * 2 / (units * strings * positions)
    return functional.softplus(-excess).mean((1, 2)), slope[..., None] * units_RBDE

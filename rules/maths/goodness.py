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


def goodness_signal(
    units_RBDE: Tensor, threshold: float, sign: float, slope: float = 1.0, whole_layer: bool = False
) -> tuple[Tensor, Tensor]:
    """``softplus(-sign slope (G - threshold))`` as a mean over strings and positions, ``[R]``, and its gradient by the units.

    ``G`` is a position's goodness, or, of the whole layer, its mean over positions.
    """
    good_RBD = goodness(units_RBDE)
    good_RBD = good_RBD.mean(2, keepdim=True) if whole_layer else good_RBD
    excess = sign * slope * (good_RBD - threshold)
    strings, positions, units = units_RBDE.shape[1:]
    steepness = -sign * slope * torch.sigmoid(-excess) * 2 / (units * strings * positions)
    return functional.softplus(-excess).mean((1, 2)), steepness[..., None] * units_RBDE

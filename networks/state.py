"""What a layer computed, and what a rule answers.

Shape suffixes: R replica, B batch, D position, C channel; G groups of positions that share weights, M rows of a matrix product
(strings times positions of a group), F inputs of a unit, E units.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

LayerUpdate = dict[str, Tensor]
"""Gradients of one layer by parameter name: the optimizer goes against them."""


class LayerState(NamedTuple):
    """What one layer computed for a batch.

    Attributes:
        input_RGMF: presynaptic activity, the patches that the units see.
        pre_RGME: pre-activation ``a = W x + b``.
        units_RGME: ``phi(a)``.
        scale_RGM1: what the output was multiplied by to normalise it; None if it is not normalised.
        out_RBDC: what the layer hands on, the units or the normalised projection.
    """

    input_RGMF: Tensor
    pre_RGME: Tensor
    units_RGME: Tensor
    scale_RGM1: Tensor | None
    out_RBDC: Tensor

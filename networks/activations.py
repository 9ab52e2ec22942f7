"""Nonlinearities of units, each with its derivative."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class Activation(NamedTuple):
    """A nonlinearity ``phi``.

    Attributes:
        phi: of pre-activations ``a``.
        mask: ``phi'(a)``, the diagonal of the layer's mask ``D``.
        masked: ``phi'(a) x`` of a signal ``x`` and ``a``, in one pass where there is a kernel for it.
        gain: of initial weights, so that units keep the scale of their inputs.
    """

    phi: Callable[[Tensor], Tensor]
    mask: Callable[[Tensor], Tensor]
    masked: Callable[[Tensor, Tensor], Tensor]
    gain: float


ACTIVATIONS = {
    "relu": Activation(
        torch.relu,
        lambda a: (a > 0).to(a.dtype),
        lambda x, a: torch.ops.aten.threshold_backward(x, a, 0),
        math.sqrt(2),
    ),
    "tanh": Activation(torch.tanh, lambda a: 1 - a.tanh().square(), lambda x, a: x * (1 - a.tanh().square()), 1.0),
    "linear": Activation(lambda a: a, torch.ones_like, lambda x, a: x, 1.0),
}

"""Encodings of tokens for a network.

Shape suffixes: R replica, B batch, D position, V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def one_hot(x_RBD: Tensor, v: int, dtype: torch.dtype | None = None) -> Tensor:
    """One-hot vectors of shape ``[..., v]`` on the tokens' device. ``dtype`` defaults to torch's default type."""
    vocabulary_V = torch.arange(v, device=x_RBD.device, dtype=x_RBD.dtype)
    return (x_RBD[..., None] == vocabulary_V).to(dtype or torch.get_default_dtype())


def whitened_one_hot(x_RBD: Tensor, v: int, dtype: torch.dtype | None = None) -> Tensor:
    """``(onehot - 1/v) / sqrt((1/v)(1 - 1/v))``: each coordinate has zero mean and unit variance for uniform tokens.

    With ``v = 1`` there is nothing to tell apart and the code is zero.
    """
    p = 1 / v
    scale = 1 / math.sqrt(p * (1 - p)) if v > 1 else 1.0
    return one_hot(x_RBD, v, dtype).sub_(p).mul_(scale)

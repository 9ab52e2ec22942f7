"""Encodings of tokens for a network.

Shape suffixes: V vocabulary.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def one_hot(x: Tensor, v: int, dtype: torch.dtype | None = None) -> Tensor:
    """One-hot vectors of shape ``[*x.shape, v]`` on the tokens' device. ``dtype`` defaults to torch's default type."""
    vocabulary_V = torch.arange(v, device=x.device, dtype=x.dtype)
    return (x[..., None] == vocabulary_V).to(dtype or torch.get_default_dtype())


def whitened_one_hot(x: Tensor, v: int, dtype: torch.dtype | None = None) -> Tensor:
    """``(onehot - 1/v) / sqrt((1/v)(1 - 1/v))``: each coordinate has zero mean and unit variance for uniform tokens.

    With ``v = 1`` there is nothing to tell apart and the code is zero.
    """
    p = 1 / v
    scale = 1 / math.sqrt(p * (1 - p)) if v > 1 else 1.0
    return one_hot(x, v, dtype).sub_(p).mul_(scale)

"""Encodings of tokens for a network.

Shape suffixes: V vocabulary.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

LARGEST_TABLE = 256
"""Vocabularies up to this size have a table of codes, from which they are read at once."""


def one_hot(x: Tensor, v: int, dtype: torch.dtype | None = None) -> Tensor:
    """One-hot vectors of shape ``[*x.shape, v]`` on the tokens' device. ``dtype`` defaults to torch's default type."""
    vocabulary_V = torch.arange(v, device=x.device, dtype=x.dtype)
    return (x[..., None] == vocabulary_V).to(dtype or torch.get_default_dtype())


def whitened_one_hot(x: Tensor, v: int, dtype: torch.dtype | None = None) -> Tensor:
    """``(onehot - 1/v) / sqrt((1/v)(1 - 1/v))``: each coordinate has zero mean and unit variance for uniform tokens.

    With ``v = 1`` there is nothing to tell apart and the code is zero.
    """
    dtype = dtype or torch.get_default_dtype()
    if v > LARGEST_TABLE or torch.compiler.is_compiling():
        return whitened(x, v, dtype)
    return functional.embedding(x.int(), codes_of(v, dtype, x.device))


def whitened(x: Tensor, v: int, dtype: torch.dtype) -> Tensor:
    """The codes, computed."""
    p = 1 / v
    scale = 1 / math.sqrt(p * (1 - p)) if v > 1 else 1.0
    return one_hot(x, v, dtype).sub_(p).mul_(scale)


@lru_cache(maxsize=32)
def codes_of(v: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The code of each token, ``[v, v]``."""
    with torch.inference_mode(False):  # they serve training, too
        return whitened(torch.arange(v, device=device), v, dtype)

"""Feedback matrices: what carries an output error to a hidden layer instead of transposed weights.

Shape suffixes: R replica, B batch, D position, C channel, N classes, F = D * C.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rhm.hashing import normal


def random_feedback(keys_R: Tensor, classes: int, positions: int, channels: int, scale: float = 1.0) -> Tensor:
    """A normal random matrix for each replica, ``[R, N, D * C]``, of variance ``scale**2 / N``."""
    matrix = normal(keys_R, (classes, positions * channels)) * (scale / math.sqrt(classes))
    return matrix.to(torch.get_default_dtype())


def broadcast_error(error_RBN: Tensor, feedback_RNF: Tensor, shape: torch.Size) -> Tensor:
    """``B e`` for every string, as a layer's output ``[R, B, D, C]`` (Nokland 2016, eq. 7, before the own mask)."""
    return torch.bmm(error_RBN, feedback_RNF).view(shape)


def error_correlation(error_RBN: Tensor, out_RBDC: Tensor) -> Tensor:
    """``E[e h^T]``, a mean over strings of the products of errors and a layer's output: ``[R, N, D * C]``."""
    return torch.bmm(error_RBN.transpose(1, 2) / error_RBN.shape[1], out_RBDC.flatten(2).to(error_RBN.dtype))


def activity_correlation(out_RBDC: Tensor) -> Tensor:
    """``E[h h^T]`` of a layer's channels, a mean over strings and positions: ``[R, C, C]``."""
    rows = out_RBDC.flatten(1, 2)
    return torch.bmm(rows.transpose(1, 2) / rows.shape[1], rows)


def random_like(matrix: Tensor, keys_R: Tensor) -> Tensor:
    """A random normal matrix of a parameter's shape and, in each replica, mean square."""
    rms_R = matrix.detach().flatten(1).square().mean(1).sqrt()
    return normal(keys_R, tuple(matrix.shape[1:])).to(matrix.dtype) * rms_R.view(-1, *[1] * (matrix.dim() - 1))

"""Losses on the two sides of positive pairs, as plain functions of tensors.

Shape suffixes: R replica, B batch (string), D pair of a string, C channel.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cosine_scores(z1_RBDC: Tensor, z2_RBDC: Tensor) -> Tensor:
    """Cosine of each string's first side with each string's second side, pair by pair: ``[R, D, B, B]`` in [-1, 1]."""
    z1, z2 = (functional.normalize(z, dim=-1, eps=1e-6).transpose(1, 2) for z in (z1_RBDC, z2_RBDC))
    return z1 @ z2.transpose(-1, -2)


def project(z_RBDC: Tensor, matrix_RCE: Tensor) -> Tensor:
    """A linear map of the channels, one for each replica: ``[R, B, D, E]``."""
    return torch.bmm(z_RBDC.flatten(1, 2), matrix_RCE).unflatten(1, z_RBDC.shape[1:3])


def bilinear_scores(z1_RBDC: Tensor, predictor_RCC: Tensor, z2_RBDC: Tensor) -> Tensor:
    """``z1^T W z2`` of each string's first side with each string's second side, ``[R, D, B, B]`` (Oord et al. 2018, eq. 3)."""
    return project(z1_RBDC, predictor_RCC).transpose(1, 2) @ z2_RBDC.permute(0, 2, 3, 1)


def info_nce(scores_RDBB: Tensor) -> Tensor:
    """InfoNCE of a matrix of scores (Oord et al. 2018, eq. 4), symmetric in the two sides.

    ``-log exp(u_bb) / sum_b' exp(u_bb')`` and the same with the sides exchanged, averaged. The positives stand on the diagonal;
    a positive's negatives are all others of its row and column, never itself.

    Args:
        scores_RDBB: scores ``u`` of first and second sides, a matrix over strings for each pair of a string.

    Returns:
        one loss a replica, ``[R]``, a mean over strings and pairs; ``log B`` if all scores are equal.
    """
    scores = scores_RDBB.float() if scores_RDBB.dtype == torch.bfloat16 else scores_RDBB
    positive = scores.diagonal(dim1=-2, dim2=-1)
    return ((scores.logsumexp(-1) + scores.logsumexp(-2)) / 2 - positive).mean((1, 2))


def info_nce_of_targets(scores_RDBB: Tensor) -> Tensor:
    """InfoNCE in one direction (Oord et al. 2018, eq. 4): each context, a row, picks its target among the columns; ``[R]``."""
    scores = scores_RDBB.float() if scores_RDBB.dtype == torch.bfloat16 else scores_RDBB
    return (scores.logsumexp(-1) - scores.diagonal(dim1=-2, dim2=-1)).mean((1, 2))

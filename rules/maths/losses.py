"""Losses on the two sides of positive pairs, as plain functions of tensors.

Shape suffixes: R replica, B batch (string), D pair of a string, C channel, E channel behind a head, F features, N classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
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
    loss_R: Tensor = _InfoNCE.apply(_wide(scores_RDBB), True)
    return loss_R


def info_nce_of_targets(scores_RDBB: Tensor) -> Tensor:
    """InfoNCE in one direction (Oord et al. 2018, eq. 4): each context, a row, picks its target among the columns; ``[R]``."""
    loss_R: Tensor = _InfoNCE.apply(_wide(scores_RDBB), False)
    return loss_R


class _InfoNCE(torch.autograd.Function):
    """Loss and slope from the same exponentials; autograd takes two to four times as long.

    ``dLoss_r / du_rdij = (p_ij + q_ij - 2 [i = j]) / (2 D B)`` with ``p`` the softmax of a row and ``q`` that of a column, or
    ``(p_ij - [i = j]) / (D B)`` in one direction.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, scores_RDBB: Tensor, symmetric: bool) -> Tensor:
        p_RDBB, log_sum = _softmax(scores_RDBB, -1)
        if symmetric:
            q_RDBB, log_sum_of_columns = _softmax(scores_RDBB, -2)
            p_RDBB, log_sum = (p_RDBB.add_(q_RDBB)).mul_(0.5), (log_sum + log_sum_of_columns) / 2
        positive = scores_RDBB.diagonal(dim1=-2, dim2=-1)
        p_RDBB.diagonal(dim1=-2, dim2=-1).sub_(1)
        ctx.save_for_backward(p_RDBB.div_(positive[0].numel()))
        return (log_sum - positive).mean((1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_R: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * slope_R[:, None, None, None], None


def _softmax(scores_RDBB: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Softmax along ``dim`` and the logarithm of its denominator."""
    most = scores_RDBB.amax(dim, keepdim=True)
    p_RDBB = (scores_RDBB - most).exp_()
    total = p_RDBB.sum(dim, keepdim=True)
    return p_RDBB.mul_(1 / total), (most + total.log()).squeeze(dim)


def _wide(scores_RDBB: Tensor) -> Tensor:
    return scores_RDBB.float() if scores_RDBB.dtype == torch.bfloat16 else scores_RDBB


def other_strings(z_RBDC: Tensor, shift_R: Tensor) -> Tensor:
    """Each string's negative: the string ``shift`` places further in the batch, ``[R, B, D, C]``.

    Args:
        z_RBDC: one side of the pairs.
        shift_R: int64 in ``[1, B)``, so that no string is its own negative.
    """
    size = z_RBDC.shape[1]
    place_RB = (torch.arange(size, device=z_RBDC.device) + shift_R[:, None]) % size
    return z_RBDC.gather(1, place_RB[:, :, None, None].expand_as(z_RBDC))


def scatter_strings(z_RBDC: Tensor, shift_R: Tensor) -> Tensor:
    """The adjoint of :func:`other_strings`."""
    return other_strings(z_RBDC, z_RBDC.shape[1] - shift_R)


def pair_scores(context_RBDC: Tensor, z_RBDC: Tensor) -> Tensor:
    """``c^T z`` of each string and pair, ``[R, B, D]``."""
    return (context_RBDC * z_RBDC).sum(-1)


def hinge(score_RBD: Tensor, sign: float) -> Tensor:
    """``max(0, 1 - y u)`` for ``y = sign`` (Illing et al. 2021, eq. 3), elementwise."""
    return torch.relu(1 - sign * score_RBD)


def phyll(positive_RBD: Tensor, negative_RBD: Tensor) -> Tensor:
    """``softplus(s_neg - s_pos)``, a mean over strings and pairs, ``[R]`` (Momeni et al. 2023)."""
    return functional.softplus(negative_RBD - positive_RBD).mean((1, 2))


def centred(z_RBDC: Tensor) -> Tensor:
    """Rows of one replica without their mean, ``[R, B * D, C]``: all strings and all pairs of a string are samples."""
    rows = z_RBDC.flatten(1, 2)
    return rows - rows.mean(1, keepdim=True)


def batch_norm(z_RBDC: Tensor, eps: float = 1e-5) -> Tensor:
    """Channels of mean 0 and variance 1 over strings and pairs (Ioffe, Szegedy 2015), without scale and shift."""
    rows = centred(z_RBDC)
    return (rows / (rows.square().mean(1, keepdim=True) + eps).sqrt()).view_as(z_RBDC)


def covariance(rows_RBC: Tensor) -> Tensor:
    """``sum x x^T / (N - 1)`` of centred rows, ``[R, C, C]``."""
    return torch.bmm(rows_RBC.transpose(1, 2), rows_RBC) / (rows_RBC.shape[1] - 1)


def off_diagonal(matrix_RCC: Tensor) -> Tensor:
    """Square matrices with a zero diagonal."""
    return matrix_RCC - torch.diag_embed(matrix_RCC.diagonal(dim1=1, dim2=2))


def invariance(z1_RBDC: Tensor, z2_RBDC: Tensor) -> Tensor:
    """Mean square of the difference of the two sides, ``[R]``."""
    return (z1_RBDC - z2_RBDC).square().mean((1, 2, 3))


def lpl(z1_RBDC: Tensor, z2_RBDC: Tensor, hebbian: float, decorrelation: float, eps: float = 1e-4) -> Tensor:
    """Latent predictive learning (Halvagal, Zenke 2023, with the erratum's decorrelation), ``[R]``.

    ``MSE(z1, z2) - hebbian mean_i log(var_i + eps) + decorrelation sum_{i!=k} C_ik^2 / (C^2 - C)``, the last two as the
    mean over the two sides. Means are constants of the gradient.
    """
    loss_R = invariance(z1_RBDC, z2_RBDC)
    for z in z1_RBDC, z2_RBDC:
        rows = z.flatten(1, 2)
        rows = rows - rows.mean(1, keepdim=True).detach()
        cov, channels = covariance(rows), z.shape[-1]
        spread = (cov.diagonal(dim1=1, dim2=2) + eps).log().mean(1)
        correlation = off_diagonal(cov).square().sum((1, 2)) / max(1, channels**2 - channels)
        loss_R = loss_R - hebbian / 2 * spread + decorrelation / 2 * correlation
    return loss_R


def vicreg(
    z1_RBDC: Tensor, z2_RBDC: Tensor, similarity: float, variance: float, covariance_weight: float, eps: float = 1e-4
) -> Tensor:
    """Variance-invariance-covariance regularisation (Bardes, Ponce, LeCun 2022, eq. 6), ``[R]``.

    ``similarity MSE + variance sum_sides mean_i max(0, 1 - sqrt(var_i + eps)) + covariance sum_sides sum_{i!=j} C_ij^2 / C``.
    As in the authors' code the variance term is the mean over the two sides.
    """
    loss_R = similarity * invariance(z1_RBDC, z2_RBDC)
    for z in z1_RBDC, z2_RBDC:
        cov = covariance(centred(z))
        spread = torch.relu(1 - (cov.diagonal(dim1=1, dim2=2) + eps).sqrt()).mean(1)
        loss_R = loss_R + variance / 2 * spread + covariance_weight * off_diagonal(cov).square().sum((1, 2)) / z.shape[-1]
    return loss_R


def barlow_twins(z1_RBDC: Tensor, z2_RBDC: Tensor, redundancy: float, eps: float = 1e-5) -> Tensor:
    """Barlow Twins (Zbontar et al. 2021, eq. 1): ``sum_i (1 - C_ii)^2 + redundancy sum_{i!=j} C_ij^2``, ``[R]``.

    ``C`` is the correlation of the first side's channels with the second's, over strings and pairs.
    """
    x, y = (batch_norm(z, eps).flatten(1, 2) for z in (z1_RBDC, z2_RBDC))
    cross = torch.bmm(x.transpose(1, 2), y) / x.shape[1]
    on = (1 - cross.diagonal(dim1=1, dim2=2)).square().sum(1)
    return on + redundancy * off_diagonal(cross).square().sum((1, 2))


def negative_cosine(prediction_RBDC: Tensor, target_RBDC: Tensor) -> Tensor:
    """``-cos(q, z)``, a mean over strings and pairs, ``[R]`` (Chen, He 2021, eq. 1)."""
    return -functional.cosine_similarity(prediction_RBDC, target_RBDC, dim=-1, eps=1e-6).mean((1, 2))


def slowness(z1_RBDC: Tensor, z2_RBDC: Tensor, ridge: float) -> Tensor:
    """``1 - tr(C^-1 G) / channels``, ``[R]``: slow feature analysis (Wiskott, Sejnowski 2002) with its constraints inside.

    ``C`` is the covariance of both sides together plus ``ridge`` times its mean variance, ``G`` the covariance of a side with
    its partner, made symmetric. ``C`` is unbiased, over ``2 N - 1``, ``G`` is over ``2 N``: equal sides cost ``1 / (2 N)``. At
    ridge 0 this is, up to that, ``tr(C^-1 Delta) / channels`` with ``Delta = E[(z1 - z2)(z1 - z2)^T] / 2``, and does not change
    if the channels are mixed by an invertible matrix: unit variance and decorrelation hold by definition. With a ridge, a
    channel that has collapsed counts as fast here, where ``Delta`` would call it slow.
    """
    both = centred(torch.cat([z1_RBDC, z2_RBDC], 1))
    cov, channels = covariance(both), both.shape[-1]
    x, y = both.chunk(2, 1)
    partner = (torch.bmm(x.transpose(1, 2), y) + torch.bmm(y.transpose(1, 2), x)) / (2 * x.shape[1])
    floor = ridge * cov.diagonal(dim1=1, dim2=2).mean(1) + 1e-12
    cov = cov + floor[:, None, None] * torch.eye(channels, dtype=cov.dtype, device=cov.device)
    return 1 - torch.linalg.solve(cov, partner).diagonal(dim1=1, dim2=2).sum(1) / channels


def cross_entropy(logits_RBN: Tensor, y_RB: Tensor) -> Tensor:
    """Mean over strings, ``[R]``."""
    return (logits_RBN.logsumexp(-1) - logits_RBN.gather(-1, y_RB.long()[..., None])[..., 0]).mean(1)


def similarity_matrix(rows_RBF: Tensor) -> Tensor:
    """Cosines of all pairs of centred rows, ``[R, B, B]`` (Nokland, Eidnes 2019): each row's own mean is taken out."""
    rows = functional.normalize(rows_RBF - rows_RBF.mean(-1, keepdim=True), dim=-1, eps=1e-6)
    return torch.bmm(rows, rows.transpose(1, 2)).to(rows.dtype)


def supervised_contrastive(scores_RBB: Tensor, y_RB: Tensor) -> Tensor:
    """``L_out`` of Khosla et al. 2020, eq. 2, ``[R]``: all other strings of a string's class are its positives.

    ``-mean_p log(exp(u_bp) / sum_{a != b} exp(u_ba))``, a mean over the strings that have a positive.
    """
    eye = torch.eye(scores_RBB.shape[1], dtype=torch.bool, device=scores_RBB.device)
    log_p = scores_RBB - scores_RBB.masked_fill(eye, -torch.inf).logsumexp(-1, keepdim=True)
    positive = ((y_RB[:, :, None] == y_RB[:, None]) & ~eye).to(scores_RBB.dtype)
    count = positive.sum(-1)
    per_string = -(positive * log_p).sum(-1) / count.clamp_min(1)
    return per_string.sum(1) / (count > 0).sum(1).clamp_min(1)

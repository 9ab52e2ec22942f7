"""K-means of cells that are described by the codes that they stand beside.

Shape suffixes: R replica, S codebooks, Y contexts, T cells, F codes of a tuple, one-hot, D numbers of a description,
K clusters.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def descriptions(counts_RYTT: Tensor, tuples_TF: Tensor) -> Tensor:
    """How often each code stands at each place of a cell's right and left sibling, given the cell, ``[R, T, 2 Y F]``.

    Args:
        counts_RYTT: how often cell ``a`` stood left of cell ``b``.
        tuples_TF: the codes of each cell's tuple, one-hot, one place after another.
    """
    right_RYTF = torch.einsum("ryab,bf->ryaf", counts_RYTT, tuples_TF) / counts_RYTT.sum(3)[..., None].clamp_min(1)
    left_RYTF = torch.einsum("ryab,af->rybf", counts_RYTT, tuples_TF) / counts_RYTT.sum(2)[..., None].clamp_min(1)
    return torch.cat([right_RYTF, left_RYTF], 1).transpose(1, 2).flatten(2)


def distances(all_RTD: Tensor, centres_RSKD: Tensor) -> Tensor:
    """``|d_t - c_k|^2``, ``[R, S, T, K]``."""
    return torch.cdist(all_RTD[:, None], centres_RSKD, compute_mode="donot_use_mm_for_euclid_dist").square()


def seeded(all_RTD: Tensor, chosen_RT: Tensor, gumbel_RSKT: Tensor) -> Tensor:
    """Codes by the nearest of ``K`` cells that are drawn far from one another (k-means++, Arthur, Vassilvitskii 2007).

    Args:
        all_RTD: descriptions.
        chosen_RT: which cells there are.
        gumbel_RSKT: Gumbel noise; the largest sum with a log-probability is a draw.

    Returns:
        ``[R, S, T]``.
    """
    R, S, K, _ = gumbel_RSKT.shape
    replica_R1 = torch.arange(R, device=all_RTD.device)[:, None]
    weight_RST = chosen_RT[:, None].to(all_RTD.dtype).expand(R, S, -1)
    centres: list[Tensor] = []
    for k in range(K):
        drawn_RS = (weight_RST.log() + gumbel_RSKT[:, :, k]).argmax(-1)
        centres.append(all_RTD[replica_R1, drawn_RS])
        far_RST = distances(all_RTD, torch.stack(centres, 2)).amin(-1) * chosen_RT[:, None]
        weight_RST = torch.where(far_RST.sum(-1, keepdim=True) > 0, far_RST, weight_RST)  # all stand on a centre: any
    return distances(all_RTD, torch.stack(centres, 2)).argmin(-1)


def centres(all_RTD: Tensor, codes_RST: Tensor, chosen_RT: Tensor, K: int) -> tuple[Tensor, Tensor]:
    """The mean of each cluster, ``[R, S, K, D]``, and how many cells it has, ``[R, S, K]``."""
    member_RSTK = functional.one_hot(codes_RST, K).to(all_RTD.dtype) * chosen_RT[:, None, :, None]
    size_RSK = member_RSTK.sum(2)
    return torch.einsum("rstk,rtd->rskd", member_RSTK, all_RTD) / size_RSK[..., None].clamp_min(1), size_RSK


def reassigned(all_RTD: Tensor, codes_RST: Tensor, chosen_RT: Tensor, K: int) -> Tensor:
    """Each cell's nearest mean (Lloyd 1982); the code of a cluster without cells is nobody's. ``[R, S, T]``."""
    centres_RSKD, size_RSK = centres(all_RTD, codes_RST, chosen_RT, K)
    away_RSTK = distances(all_RTD, centres_RSKD).masked_fill((size_RSK == 0)[:, :, None], torch.inf)
    return torch.where(chosen_RT[:, None], away_RSTK.argmin(-1), codes_RST)


def inertia(all_RTD: Tensor, codes_RST: Tensor, chosen_RT: Tensor, K: int) -> Tensor:
    """``sum_t |d_t - c_z(t)|^2`` over the cells that there are, ``[R, S]``."""
    away_RSTK = distances(all_RTD, centres(all_RTD, codes_RST, chosen_RT, K)[0])
    return (away_RSTK.gather(3, codes_RST[..., None])[..., 0] * chosen_RT[:, None]).sum(-1)

"""Exchange clustering: which code each cell should have, given the codes of the cells that it was seen beside.

Counts of siblings, ``C[y, a, b]``: how often cell ``a`` stood left of cell ``b`` in context ``y``. With codes ``z``,
``J[y, k, l]`` is how often code ``k`` stood left of ``l``. All counts are integers in float64.

Shape suffixes: R replica, B string, D position, H pair of siblings, S codebooks, Y contexts, T cells,
N cells that decide, K codes.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

LARGEST_TABLE = 2**23
"""Counts up to which logarithms of the gamma function are looked up: 64 MiB."""


def tally(counts_RYTT: Tensor, codes_RST: Tensor, K: int) -> tuple[Tensor, Tensor, Tensor]:
    """What each cell's right and left siblings say in codes, ``R[y, t, l]`` and ``Q[y, t, k]``, and ``J``."""
    member_RSTK = functional.one_hot(codes_RST, K).to(counts_RYTT.dtype)
    right_RSYTK = torch.einsum("ryab,rsbk->rsyak", counts_RYTT, member_RSTK)
    left_RSYTK = torch.einsum("ryab,rsak->rsybk", counts_RYTT, member_RSTK)
    joint_RSYKK = torch.einsum("rsak,rsyal->rsykl", member_RSTK, right_RSYTK)
    return right_RSYTK, left_RSYTK, joint_RSYKK


class Evidence:
    """``ln G(c + a) - ln G(a)`` of counts ``c``: of ``c`` occurrences of one kind under a pseudo-count ``a``.

    Counts are integers, so that it is looked up, some four times faster than it is computed.

    Args:
        a: pseudo-count.
        largest: that a count can be.
    """

    def __init__(self, a: float, largest: int):
        self.a, self.largest = a, largest

    def __call__(self, count: Tensor) -> Tensor:
        """Of each count, in float64."""
        if self.largest > LARGEST_TABLE:
            return torch.lgamma(count + self.a) - torch.lgamma(torch.full_like(count, self.a))
        return table_of(self.a, self.largest, count.device).take(count.long())


@lru_cache(maxsize=32)
def table_of(a: float, largest: int, device: torch.device) -> Tensor:
    """``ln G(c + a) - ln G(a)`` for ``c`` from 0."""
    with torch.inference_mode(False):
        table = torch.lgamma(torch.arange(largest + 1, dtype=torch.float64, device=device) + a)
        return table - table[0]


def emission(cells: Tensor, count: Tensor) -> Tensor:
    """``ln G(n) - ln G(n + c)``: of ``c`` occurrences of a code that can be any of ``n`` cells; 0 for no cells."""
    some = cells.clamp_min(1)
    return torch.where(cells > 0, torch.lgamma(some) - torch.lgamma(some + count), 0.0)


def cells_of(counts_RYTT: Tensor, codes_RST: Tensor, K: int) -> Tensor:
    """How many of the cells that have been seen have each code, ``[R, S, K]``."""
    member_RSTK = functional.one_hot(codes_RST, K)
    return (member_RSTK * seen(counts_RYTT)[:, None, :, None]).sum(2)


def objective(counts_RYTT: Tensor, codes_RST: Tensor, K: int, evidence: Evidence) -> Tensor:
    """``sum ln G(J + a) - ln G(a) + sum_k e(n_k, J[., k, .] + J[., ., k])``, ``[R, S]``; ``e`` is :func:`emission`.

    Up to a number that all codes share it is the log of the counts' probability, where siblings draw a pair of codes and each
    code one of its ``n`` cells, left and right with the same probabilities, with all these probabilities integrated out:
    under a Dirichlet prior of ``a`` a pair, and a flat one over a code's cells. Of three siblings and more each stands in two
    pairs, and is counted twice.
    """
    joint_RSYKK, cells_RSK = tally(counts_RYTT, codes_RST, K)[2], cells_of(counts_RYTT, codes_RST, K)
    return evidence(joint_RSYKK).sum((2, 3, 4)) + emission(cells_RSK, occurrences(joint_RSYKK)).sum(-1)


def occurrences(joint_RSYKK: Tensor) -> Tensor:
    """How often each code stood on either side of another, ``[R, S, K]``."""
    return joint_RSYKK.sum((2, 4)) + joint_RSYKK.sum((2, 3))


def gains(counts_RYTT: Tensor, codes_RST: Tensor, cells_RSN: Tensor, K: int, evidence: Evidence) -> Tensor:
    """The objective with cell ``n`` in code ``k``, all others as they are, less a number of the cell: ``[R, S, N, K]``.

    The cell's own counts are taken out of ``J``, from its row, its column, and, where it stood beside itself, once and not
    twice; then they are put into row and column ``k``.
    """
    right_RSYTK, left_RSYTK, joint_RSYKK = tally(counts_RYTT, codes_RST, K)
    right_RSYNK, left_RSYNK = of_cells(right_RSYTK, cells_RSN), of_cells(left_RSYTK, cells_RSN)
    itself_RSYN1 = of_itself(counts_RYTT, cells_RSN)
    own_RSNK = functional.one_hot(codes_RST.gather(2, cells_RSN), K).to(joint_RSYKK.dtype)
    own = own_RSNK[:, :, None]
    to_right, to_left = right_RSYNK - itself_RSYN1 * own, left_RSYNK - itself_RSYN1 * own  # beside other cells alone
    rest = without(joint_RSYKK, own, right_RSYNK, left_RSYNK, itself_RSYN1)
    eye_KK = torch.eye(K, dtype=rest.dtype, device=rest.device)
    in_row = rest + to_right[..., None, :] + eye_KK * (to_left + itself_RSYN1)[..., :, None]
    in_column = rest + to_left[..., :, None] * (1 - eye_KK)  # what stands in row and column is in the row
    before = evidence(rest)
    of_pairs = (evidence(in_row) - before).sum((2, 5)) + (evidence(in_column) - before).sum((2, 4))

    one_RSN1 = seen(counts_RYTT)[:, None].expand_as(codes_RST).gather(2, cells_RSN)[..., None].long()
    others_RSNK = cells_of(counts_RYTT, codes_RST, K)[:, :, None] - own_RSNK * one_RSN1
    here_RSN1 = (right_RSYNK.sum((2, 4)) + left_RSYNK.sum((2, 4)))[..., None]
    rest_RSNK = occurrences(joint_RSYKK)[:, :, None] - own_RSNK * here_RSN1
    return of_pairs + emission(others_RSNK + one_RSN1, rest_RSNK + here_RSN1) - emission(others_RSNK, rest_RSNK)


def without(joint_RSYKK: Tensor, own: Tensor, right_RSYNK: Tensor, left_RSYNK: Tensor, itself_RSYN1: Tensor) -> Tensor:
    """``J`` without the counts of cell ``n``, ``[R, S, Y, N, K, K]``: neither in its row, nor its column, nor twice where it
    stood beside itself. ``own``: its code, one-hot, ``[R, S, 1, N, K]``."""
    return (
        joint_RSYKK[:, :, :, None]
        - own[..., :, None] * right_RSYNK[..., None, :]
        - own[..., None, :] * left_RSYNK[..., :, None]
        + (own * itself_RSYN1)[..., :, None] * own[..., None, :]
    )


def drives(counts_RYTT: Tensor, codes_RST: Tensor, cells_RSN: Tensor, K: int, a: float, own_share: bool) -> Tensor:
    """What the siblings' codes say to cell ``n`` of code ``k`` through Bayesian weights, ``[R, S, N, K]``.

    ``sum_yl R[y, n, l] w[y, k, l] + Q[y, n, l] u[y, l, k]`` with ``w[y, k, l] = ln (J[y, k, l] + a) / p_k``, the log of how
    often code ``k`` has a right sibling ``l`` in context ``y``, of all its siblings, ``p_k = sum_yl J[y, k, l] + J[y, l, k] +
    2 a``, and ``u`` the same of left ones. To first order in a cell's counts it is what :func:`gains` is, less ``ln n / (n +
    c)`` of a code's ``n`` cells and ``c`` counts.

    Args:
        a: pseudo-count of a pair of codes in a context.
        own_share: whether ``J`` has the cell's own counts, too.
    """
    right_RSYTK, left_RSYTK, joint_RSYKK = tally(counts_RYTT, codes_RST, K)
    right_RSYNK, left_RSYNK = of_cells(right_RSYTK, cells_RSN), of_cells(left_RSYTK, cells_RSN)
    others = joint_RSYKK[:, :, :, None]
    if not own_share:
        own_RSNK = functional.one_hot(codes_RST.gather(2, cells_RSN), K).to(joint_RSYKK.dtype)
        others = without(joint_RSYKK, own_RSNK[:, :, None], right_RSYNK, left_RSYNK, of_itself(counts_RYTT, cells_RSN))
    share = others + a
    said = (share.log() * right_RSYNK[..., None, :]).sum((2, 5)) + (share.log() * left_RSYNK[..., :, None]).sum((2, 4))
    count_RSN1 = (right_RSYNK.sum((2, 4)) + left_RSYNK.sum((2, 4)))[..., None]
    return said - count_RSN1 * (share.sum((2, 5)) + share.sum((2, 4))).log()


def of_itself(counts_RYTT: Tensor, cells_RSN: Tensor) -> Tensor:
    """How often cell ``n`` stood beside itself, ``[R, S, Y, N, 1]``."""
    return of_cells(counts_RYTT.diagonal(dim1=2, dim2=3)[:, None, :, :, None], cells_RSN)


def of_cells(of_all: Tensor, cells_RSN: Tensor) -> Tensor:
    """The rows of some cells of ``[R, S, Y, T, F]``, ``[R, S, Y, N, F]``; ``S`` may be 1."""
    index = cells_RSN[:, :, None, :, None]
    shape = [*cells_RSN.shape[:2], of_all.shape[2], cells_RSN.shape[2], of_all.shape[4]]
    return of_all.expand(*shape[:3], -1, -1).gather(3, index.expand(shape))


def expected(joint_RYKK: Tensor, y_RB1: Tensor, codes_RBD: Tensor) -> tuple[Tensor, Tensor]:
    """The code that each of two siblings is expected to have by the other's, and whether one can be.

    Args:
        joint_RYKK: how often code ``k`` stood left of ``l`` in context ``y``.
        y_RB1: the context of each string.
        codes_RBD: siblings, two by two.

    Returns:
        Of each sibling the code that most often stood beside the other one's, and whether it did so at least twice as often as
        any other code: both ``[R, B, D]``.
    """
    replica_R11 = torch.arange(len(codes_RBD), device=codes_RBD.device)[:, None, None]
    left_RBHK = joint_RYKK.transpose(2, 3)[replica_R11, y_RB1, codes_RBD[..., 1::2]]
    right_RBHK = joint_RYKK[replica_R11, y_RB1, codes_RBD[..., ::2]]
    beside_RBDK = torch.stack([left_RBHK, right_RBHK], 3).flatten(2, 3)
    (best_RBD, second_RBD), code_RBD = beside_RBDK.topk(2, -1)[0].unbind(-1), beside_RBDK.argmax(-1)
    return code_RBD, (best_RBD > 0) & (2 * second_RBD <= best_RBD)


def seen(counts_RYTT: Tensor) -> Tensor:
    """Which cells have been seen, ``[R, T]``."""
    return counts_RYTT.sum((1, 2)) + counts_RYTT.sum((1, 3)) > 0


def counts_a_cell(counts_RYTT: Tensor) -> Tensor:
    """Mean number of counts, left and right, of the cells that were seen: ``[R]``."""
    return 2 * counts_RYTT.sum((1, 2, 3)) / seen(counts_RYTT).sum(1).clamp_min(1)


def redecide(counts_RYTT: Tensor, codes_RST: Tensor, cells_RSN: Tensor, decide_RSN: Tensor, value_RSNK: Tensor) -> Tensor:
    """The codes after some of the cells named have decided again, all at once: ``argmax_k`` of their values.

    A cell keeps its code if ``decide_RSN`` (of which a dimension may be 1) is false, or if it was never seen.
    """
    best_RSN = value_RSNK.argmax(-1)
    seen_RSN = seen(counts_RYTT)[:, None].expand_as(codes_RST).gather(2, cells_RSN)
    return codes_RST.scatter(2, cells_RSN, best_RSN.where(decide_RSN & seen_RSN, codes_RST.gather(2, cells_RSN)))

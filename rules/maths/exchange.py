"""Exchange clustering: which code each cell should have, given the codes of the cells that it was seen beside.

Counts of siblings, ``C[y, a, b]``: how often cell ``a`` stood left of cell ``b`` in context ``y``. With codes ``z``,
``J[y, k, l]`` is how often code ``k`` stood left of ``l``. All counts are integers in float64.

Shape suffixes: R replica, B string, D position, H pair of siblings, S codebooks, Y contexts, T cells,
N cells that decide, K codes; W shares, F shapes, E evennesses that are tried, C counts from 0.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn import functional

LARGEST_TABLE = 2**23
"""Logarithms of the gamma function that are looked up at the most: 64 MiB."""

SHARES = tuple(2 ** (-i / 4) for i in range(33))
"""Of the pairs of codes, which occur: 1 to 1/256."""

SHAPES = 0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0
"""Of the rates of those that do: from very unequal to nearly equal."""

EVENNESS = 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0
"""Of the probabilities of a code's cells: from any to nearly equal."""


def tally(counts_RYTT: Tensor, codes_RST: Tensor, K: int) -> tuple[Tensor, Tensor, Tensor]:
    """What each cell's right and left siblings say in codes, ``R[y, t, l]`` and ``Q[y, t, k]``, and ``J``."""
    member_RSTK = functional.one_hot(codes_RST, K).to(counts_RYTT.dtype)
    right_RSYTK = torch.einsum("ryab,rsbk->rsyak", counts_RYTT, member_RSTK)
    left_RSYTK = torch.einsum("ryab,rsak->rsybk", counts_RYTT, member_RSTK)
    joint_RSYKK = torch.einsum("rsak,rsyal->rsykl", member_RSTK, right_RSYTK)
    return right_RSYTK, left_RSYTK, joint_RSYKK


class Prior:
    """What is believed of a layer's counts before they are seen, for each codebook: what its counts make most probable.

    A pair of codes occurs at all with a probability ``w``, of :data:`SHARES`. One that does has a rate with the density of a
    gamma variable of shape ``b``, of :data:`SHAPES`, and such a mean that all pairs together are expected as often as they were
    counted, ``N``. So ``J`` counts have the probability

        w C(J) + (1 - w) [J = 0],    ln C(J) = ln G(J + b) - ln G(b) + b ln b / (b + r) + J ln r / (b + r),

    with ``r`` counts expected, ``N / w`` over the number of pairs: negative binomial, without the factorial that the order of
    strings takes out. A code's ``n`` cells have probabilities under a Dirichlet prior of ``d`` a cell, of :data:`EVENNESS`. Of
    three siblings and more each stands in two pairs and is counted twice, so that it is no probability of the strings then.

    Args:
        counts_RYTT, codes_RST, K: of the layer.
        largest: that a count can be.
        spare: whether codes that no cell has are none, and pairs are those of the others.

    Attributes:
        value_RS: the log of the counts' probability, the largest of all ``w``, ``b`` and ``d``.
        share_RS: the ``w`` that has it.
        shape_RS: the ``b``.
        even_RS: the ``d``.
    """

    def __init__(self, counts_RYTT: Tensor, codes_RST: Tensor, K: int, largest: int, spare: bool = False):
        joint_RSYKK, cells_RSK = tally(counts_RYTT, codes_RST, K)[2], cells_of(counts_RYTT, codes_RST, K)
        self.largest, self.spare, self.contexts = largest, spare, joint_RSYKK.shape[2]
        device = joint_RSYKK.device
        share_W1, shape_F, even_E = grid(SHARES, device)[:, None], grid(SHAPES, device), grid(EVENNESS, device)
        met_RS11, N_R111 = (joint_RSYKK > 0).sum((2, 3, 4))[..., None, None], counts_RYTT.sum((1, 2, 3))[:, None, None, None]
        codes_RS11 = ((cells_RSK > 0).sum(-1).clamp_min(1) if spare else torch.full_like(cells_RSK[..., 0], K))[..., None, None]
        pairs_RS11 = self.contexts * codes_RS11.double() ** 2
        rate_RSW1 = (N_R111 / (pairs_RS11 * share_W1)).clamp_min(torch.finfo(torch.float64).tiny)
        met_RSWF = share_W1.log() + shape_F * (shape_F / (shape_F + rate_RSW1)).log()
        none_RSWF = torch.logaddexp(torch.log1p(-share_W1), met_RSWF)
        counted_RSF = torch.stack([self.rising(joint_RSYKK, h).sum((2, 3, 4)) for h in range(len(SHAPES))], -1)
        value_RSWF = counted_RSF[:, :, None] + N_R111 * (rate_RSW1 / (shape_F + rate_RSW1)).log()
        value_RSWF = value_RSWF + met_RS11 * met_RSWF + (pairs_RS11 - met_RS11) * none_RSWF
        of_pairs_RS, at_RS = first_best(value_RSWF.where(N_R111 > 0, 0.0).flatten(2))
        kind_RS = at_RS % len(SHAPES)
        self.share_RS, self.shape_RS = share_W1[:, 0][at_RS // len(SHAPES)], shape_F[kind_RS]
        met_RS1, self.none_RS1 = (of.flatten(2).gather(2, at_RS[..., None]) for of in (met_RSWF, none_RSWF))
        self.met_RS, self.kind_RS = (met_RS1 - self.none_RS1)[..., 0], kind_RS

        count_R1T1 = (counts_RYTT.sum((1, 2)) + counts_RYTT.sum((1, 3)))[:, None, :, None]
        of_cells_R1E = (torch.lgamma(count_R1T1 + even_E) - torch.lgamma(even_E)).where(count_R1T1 > 0, 0.0).sum(2)
        emitted_RSKE = emission(even_E * cells_RSK[..., None], occurrences(joint_RSYKK)[..., None])
        of_codes_RS, at_RS = first_best(emitted_RSKE.sum(2) + of_cells_R1E)
        self.even_RS, self.value_RS = even_E[at_RS], of_pairs_RS + of_codes_RS

    def rising(self, count: Tensor, kind: int) -> Tensor:
        """``ln G(J + b) - ln G(b)`` of counts for the shape of this number."""
        if len(SHAPES) * self.largest > LARGEST_TABLE:
            return rising_factorial(count, grid(SHAPES, count.device)[kind])
        return rising_factorials(self.largest, count.device)[kind].take(count.long())

    @cached_property
    def table_RSC(self) -> Tensor | None:
        """What :meth:`of_pairs` says of counts from 0, if that is no more than what can be looked up."""
        if max(self.kind_RS.numel(), len(SHAPES)) * self.largest > LARGEST_TABLE:
            return None
        table_RSC = rising_factorials(self.largest, self.kind_RS.device)[self.kind_RS] + self.met_RS[..., None]
        table_RSC[..., 0] = 0
        return table_RSC

    def of_pairs(self, count: Tensor) -> Tensor:
        """The log of the probability of counts ``[R, S, ...]`` of a pair of codes over that of none, less its share of ``N``,
        which is the same for all codes."""
        if self.table_RSC is not None:
            return self.table_RSC.gather(2, count.flatten(2).long()).view(count.shape)
        met, shape = (of.view(*of.shape, *[1] * (count.dim() - 2)) for of in (self.met_RS, self.shape_RS))
        return rising_factorial(count, shape) + met * (count > 0)

    def of_codes(self, others_RSNK: Tensor) -> Tensor:
        """The log of the probability that a code's pairs with the others are not met, where a cell is the first that has it.

        Args:
            others_RSNK: how many cells but one have each code.
        """
        used_RSN1 = (others_RSNK > 0).sum(-1, keepdim=True)
        more_RSNK = (2 * used_RSN1 + 1) * (others_RSNK == 0)  # pairs of codes
        return self.spare * self.none_RS1[..., None] * self.contexts * more_RSNK

    def of_cells(self, cells_RSNK: Tensor, count_RSNK: Tensor) -> Tensor:
        """The log of the probability of counts of a code's cells, less what is the same for all codes."""
        return emission(self.even_RS[..., None, None] * cells_RSNK, count_RSNK)


def first_best(value: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of the last dimension, and the first that has it but for rounding: counts may not decide between priors."""
    best = value.amax(-1, keepdim=True)
    return best[..., 0], torch.isclose(value, best, rtol=1e-9, atol=1e-9).to(torch.uint8).argmax(-1)


@lru_cache(maxsize=32)
def grid(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers on a device."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=torch.float64, device=device)


def rising_factorial(count: Tensor, start: Tensor) -> Tensor:
    """``ln G(c + b) - ln G(b)`` of counts ``c``, starting with ``b``."""
    return torch.lgamma(count + start) - torch.lgamma(start)


@lru_cache(maxsize=32)
def rising_factorials(largest: int, device: torch.device) -> Tensor:
    """:func:`rising_factorial` for each of :data:`SHAPES`, of counts from 0. Looked up it is four times as fast."""
    with torch.inference_mode(False):
        return rising_factorial(torch.arange(largest + 1, dtype=torch.float64, device=device), grid(SHAPES, device)[:, None])


def emission(weight: Tensor, count: Tensor) -> Tensor:
    """``ln G(d n) - ln G(d n + c)``: of ``c`` occurrences of a code whose ``n`` cells have the weight ``d n``; 0 for none."""
    some = torch.where(weight > 0, weight, 1.0)
    return torch.where(weight > 0, torch.lgamma(some) - torch.lgamma(some + count), 0.0)


def cells_of(counts_RYTT: Tensor, codes_RST: Tensor, K: int) -> Tensor:
    """How many of the cells that have been seen have each code, ``[R, S, K]``."""
    member_RSTK = functional.one_hot(codes_RST, K)
    return (member_RSTK * seen(counts_RYTT)[:, None, :, None]).sum(2)


def occurrences(joint_RSYKK: Tensor) -> Tensor:
    """How often each code stood on either side of another, ``[R, S, K]``."""
    return joint_RSYKK.sum((2, 4)) + joint_RSYKK.sum((2, 3))


def gains(counts_RYTT: Tensor, codes_RST: Tensor, cells_RSN: Tensor, K: int, prior: Prior) -> Tensor:
    """The log of the counts' probability with cell ``n`` in code ``k``, all others as they are, less a number of the cell.

    ``[R, S, N, K]``; under the prior that is given, which is that of the codes as they are.

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
    before = prior.of_pairs(rest)
    of_pairs = (prior.of_pairs(in_row) - before).sum((2, 5)) + (prior.of_pairs(in_column) - before).sum((2, 4))

    one_RSN1 = seen(counts_RYTT)[:, None].expand_as(codes_RST).gather(2, cells_RSN)[..., None].long()
    others_RSNK = cells_of(counts_RYTT, codes_RST, K)[:, :, None] - own_RSNK * one_RSN1
    here_RSN1 = (right_RSYNK.sum((2, 4)) + left_RSYNK.sum((2, 4)))[..., None]
    rest_RSNK = occurrences(joint_RSYKK)[:, :, None] - own_RSNK * here_RSN1
    emitted = prior.of_cells(others_RSNK + one_RSN1, rest_RSNK + here_RSN1) - prior.of_cells(others_RSNK, rest_RSNK)
    return of_pairs + emitted + one_RSN1 * prior.of_codes(others_RSNK)


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
    2 a``, and ``u`` the same of left ones. To first order in a cell's counts it is what :func:`gains` is where all pairs occur,
    with ``w`` = 1, ``d`` = 1 and ``b = a``, less ``ln n / (n + c)`` of a code's ``n`` cells and ``c`` counts.

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

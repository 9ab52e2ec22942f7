"""The mathematics of linear probes: what is asked, ridge regressions, right answers; for logistic ones see ``logistic.py``.

What a probe answers does not depend on how a unit is scaled, shifted or turned round, on how often it is there, or on units
that are dead: features are standardised, units that do not vary are left out, and copies of a unit share its penalty.

Shape suffixes: R replica, B batch, D position; G groups of positions that share a probe, M rows, F features, T columns of all
targets of a layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric

from rhm import TaskSizes

SMALLEST_RIDGE = 1e-6
"""Of the ridge probes' penalties: sums of products in single precision do not tell smaller ones from none."""
COPIES = 1 - 1e-5
"""Units whose correlation is larger are copies of one another: single precision hardly tells them apart."""
ROUNDING = 4
"""Units of the last digit: a unit whose standard deviation is less does not vary, its arithmetic does."""


@dataclass(frozen=True)
class Target:
    """What is read of one level from one position of a layer.

    A position that covers several symbols of the level is asked for each of them (``slots``); a position below the level is
    asked for the one symbol that it is part of, together with ``sharers - 1`` others. The last ``unasked`` symbols say nothing:
    a probe is fitted on them too, but is not asked where they stand, and does not answer with them.
    """

    level: int
    slots: int
    sharers: int
    symbols: int
    unasked: int = 0

    @property
    def columns(self) -> int:
        """Scores of a probe."""
        return self.slots * self.symbols

    def of(self, symbols_RBD: Tensor, groups: int) -> Tensor:
        """The level's symbols as targets ``[R, G, M, slots]`` for the layer's positions."""
        y = symbols_RBD.long().repeat_interleave(self.sharers, 2).unflatten(2, (-1, self.slots))
        return y.flatten(1, 2)[:, None] if groups == 1 else y.transpose(1, 2)


def targets_of(task: TaskSizes, positions: int) -> list[Target]:
    """The known levels that can be asked at a layer with so many positions: those whose number of symbols divides, or is
    divided."""
    targets = []
    for level in task.levels:
        width = task.width(level)
        if width % positions == 0 or positions % width == 0:
            sizes = max(1, width // positions), max(1, positions // width), task.symbols(level)
            targets.append(Target(level, *sizes, task.unasked(level)))
    return targets


@dataclass(frozen=True)
class Probe:
    """Linear probes of a layer's targets: scores are ``(x - centre) @ weight + bias``.

    Attributes:
        centre_RG1F: subtracted from the features.
        weight_RGFT, bias_RG1T: zero weights for units that do not vary; all zero for a replica whose features are not finite.
    """

    centre_RG1F: Tensor
    weight_RGFT: Tensor
    bias_RG1T: Tensor

    def scores(self, x_RGMF: Tensor) -> Tensor:
        """Of all targets' symbols, side by side, ``[R, G, M, T]``."""
        centred_RGMF = x_RGMF - self.centre_RG1F.to(x_RGMF.dtype)
        return centred_RGMF @ self.weight_RGFT.to(x_RGMF.dtype) + self.bias_RG1T.to(x_RGMF.dtype)

    def baseline(self, x_RGMF: Tensor) -> Tensor:
        """Scores of a ridge probe that looks at nothing: how often each symbol occurs, so that the commonest is its answer."""
        return self.bias_RG1T.expand(-1, -1, x_RGMF.shape[2], -1)


def varies(deviation: Tensor, centre: Tensor, dtype: torch.dtype) -> Tensor:
    """Whether a unit of that mean, kept in that precision, is more than a constant."""
    return deviation > ROUNDING * torch.finfo(dtype).eps * centre.abs()


def copies(correlations: Tensor) -> Tensor:
    """How often each unit is there, itself included, ``[..., F]``: scaled, shifted or with another sign, it is the same one."""
    return (correlations.abs() > COPIES).sum(-1).clamp_min(1)


class RidgeSums:
    """Sums from which the ridge probes of one layer are solved: one Gram matrix, whatever the number of levels.

    They are no metric: every rank sees all strings that probes are fitted on, so there is nothing to bring together.

    Rows are counted from the first one, in units of the first batch's standard deviation, so that sums of products in single
    precision keep the digits of a unit with a large mean or a small scale.

    Args:
        replicas: R.
        groups: 1 if all positions share a probe, else the number of positions.
        features: width of the layer's output.
        targets: what is read.
        ridge: penalty of the squared weights of standardised features, as a share of the rows.
        device: of the features.
    """

    def __init__(self, replicas: int, groups: int, features: int, targets: list[Target], ridge: float, device: torch.device):
        self.targets, self.ridge, self.rows = targets, ridge, 0
        columns = sum(t.columns for t in targets)
        none = torch.zeros((), dtype=torch.float64, device=device)
        self.gram_RGFF = none.new_zeros(replicas, groups, features, features)
        self.cross_RGFT = none.new_zeros(replicas, groups, features, columns)
        self.sum_RG1F = none.new_zeros(replicas, groups, 1, features)
        self.count_RG1T = none.new_zeros(replicas, groups, 1, columns)

    def update(self, x_RGMF: Tensor, y: list[Tensor]) -> None:
        """Add rows of features, and for each target their symbols ``[R, G, M, slots]``."""
        if not self.rows:
            self.precision = x_RGMF.dtype
            self.origin_RG1F = x_RGMF[:, :, :1].double()
            deviation = (x_RGMF - x_RGMF[:, :, :1]).double().std(-2, keepdim=True, correction=0)
            self.unit_RG1F = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
        hot = [functional.one_hot(y_t, t.symbols).flatten(-2) for y_t, t in zip(y, self.targets, strict=True)]
        y_RGMT = torch.cat(hot, -1).to(x_RGMF.dtype)
        z_RGMF = (x_RGMF - self.origin_RG1F.to(x_RGMF.dtype)) / self.unit_RG1F.to(x_RGMF.dtype)
        z_RGFM = z_RGMF.transpose(-1, -2)
        self.gram_RGFF += z_RGFM @ z_RGMF
        self.cross_RGFT += z_RGFM @ y_RGMT
        self.sum_RG1F += z_RGMF.sum(-2, keepdim=True, dtype=torch.float64)
        self.count_RG1T += y_RGMT.sum(-2, keepdim=True, dtype=torch.float64)
        self.rows += x_RGMF.shape[2]

    def solve(self) -> Probe:
        """All probes, by one factorisation."""
        mean_RG1F, share_RG1T = self.sum_RG1F / self.rows, self.count_RG1T / self.rows
        mean_RGF1 = mean_RG1F.transpose(-1, -2)
        covariance_RGFF = self.gram_RGFF / self.rows - mean_RGF1 * mean_RG1F
        covariance_RGFT = self.cross_RGFT / self.rows - mean_RGF1 * share_RG1T
        finite_R111 = self.gram_RGFF.flatten(1).isfinite().all(1).view(-1, 1, 1, 1)
        centre_RG1F = torch.where(finite_R111, self.origin_RG1F + mean_RG1F * self.unit_RG1F, 0.0)
        deviation_RG1F = covariance_RGFF.diagonal(dim1=-2, dim2=-1)[..., None, :].clamp_min(0).sqrt()
        useful_RG1F = varies(deviation_RG1F * self.unit_RG1F, centre_RG1F, self.precision)
        inverse_RGF = torch.where(useful_RG1F, 1 / deviation_RG1F, 0.0)[..., 0, :]
        correlation_RGFF = covariance_RGFF * inverse_RGF[..., None] * inverse_RGF[..., None, :]
        correlation_RGFF = torch.where(finite_R111, correlation_RGFF, 0.0)
        penalised_RGFF = correlation_RGFF + torch.diag_embed(self.ridge * copies(correlation_RGFF))
        factor_RGFF = torch.linalg.cholesky_ex(penalised_RGFF)[0]
        weight_RGFT = torch.cholesky_solve(covariance_RGFT * inverse_RGF[..., None], factor_RGFF)
        weight_RGFT = weight_RGFT * (inverse_RGF / self.unit_RG1F[..., 0, :])[..., None]
        return Probe(centre_RG1F, torch.where(finite_R111, weight_RGFT, 0.0), share_RG1T)


class ProbeCounts(Metric):
    """Right answers of a layer's probes.

    Args:
        replicas: R.
        targets: what is read.
    """

    full_state_update = False
    correct_RT: Tensor
    total_T: Tensor

    def __init__(self, replicas: int, targets: list[Target]):
        super().__init__()
        self.targets = targets
        self.add_state("correct_RT", torch.zeros(replicas, len(targets), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total_T", torch.zeros(len(targets), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, scores_RGMT: Tensor, y: list[Tensor]) -> None:
        """Add answers: the scores of all targets' symbols, side by side, and the true symbols ``[R, G, M, slots]``."""
        parts = scores_RGMT.split([t.columns for t in self.targets], -1)
        for j, (part, y_t, target) in enumerate(zip(parts, y, self.targets, strict=True)):
            asked = target.symbols - target.unasked
            right = part.unflatten(-1, (target.slots, target.symbols))[..., :asked].argmax(-1) == y_t
            self.correct_RT[:, j] += right.flatten(1).sum(1)
            self.total_T[j] += (y_t[0] < asked).sum()  # as many in each replica

    def compute(self) -> Tensor:
        """Accuracy ``[R, targets]``."""
        return self.correct_RT / self.total_T

"""Multinomial logistic regressions of a layer's targets, many at once, each with directions and steps of its own.

Shape suffixes: R replica; G groups of positions that share a probe, M rows, F features, T columns of all targets; U different
rows, I inputs: the features and, last, a one for the constant; N symbols, A all regressions with so many, Q those of them that
have not converged, W those of these whose step does not yet lead down.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from callbacks.probes import Probe, Target, copies, varies

TOLERANCE = 1e-4
"""Of a regression's mean loss: the largest slope in a standardised weight that counts as converged; scikit-learn's."""
MEMORY = 10
"""Steps that L-BFGS remembers."""
FLATTEST = 1e-4
"""Variance added to each direction of the features, so that units that depend on one another, or are dead, have one too."""
STEEPEST = 0.5
"""Bound of the curvature of a softmax loss in features of variance one (Boehning 1992)."""
HALVINGS = 20
"""Of a step that does not lead down, before it counts as none."""
DECREASE = 1e-4
"""Share of the decrease that the slope promises which a step has to bring (Armijo)."""
ROUNDING = 16
"""Units of the last digit: losses that differ by less are compared by their slopes instead (Hager, Zhang 2005)."""


def fit_logistic(
    x_RGMF: Tensor, y: list[Tensor], targets: list[Target], penalty: float, iterations: int
) -> tuple[Probe, Tensor]:
    """Regressions of one layer's targets, for all levels and slots at once.

    Replicas and groups one after another, as each has other rows and is done after another number of iterations: so a replica
    has exactly the probes that it would have alone. Equal rows, of which a layer with few inputs has many, are counted once.

    Args:
        x_RGMF: features.
        y: for each target its symbols ``[R, G, M, slots]``.
        targets: what is read.
        penalty: of the squared weights of standardised features; none for the constant.
        iterations: of L-BFGS, at the most.

    Returns:
        the probes, and each replica's largest slope at the end ``[R]``: more than ``TOLERANCE`` where iterations ran out.
    """
    finite_R111 = x_RGMF.flatten(1).isfinite().all(1).view(-1, 1, 1, 1)
    x_RGMF = torch.where(finite_R111, x_RGMF, 0.0)
    centre_RG1F = x_RGMF.mean(-2, keepdim=True, dtype=torch.float64)
    places = list(itertools.product(range(x_RGMF.shape[0]), range(x_RGMF.shape[1])))
    found = [_fit(x_RGMF[r, g], centre_RG1F[r, g], [y_t[r, g] for y_t in y], targets, penalty, iterations) for r, g in places]
    weight_RGFT, bias_RG1T, slope_RG = (torch.stack(part).unflatten(0, x_RGMF.shape[:2]) for part in zip(*found, strict=True))
    return Probe(centre_RG1F, weight_RGFT, bias_RG1T), slope_RG.amax(1)


def _fit(
    x_MF: Tensor, centre_1F: Tensor, y: list[Tensor], targets: list[Target], penalty: float, iterations: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights ``[F, T]`` of centred features, constants ``[1, T]``, and the largest slope, of one replica and group.

    L-BFGS works on directions of the features that are uncorrelated and of one scale, in which the loss is about as steep
    everywhere. In double precision where single precision gets no further, such as with next to no penalty and symbols that can
    be told apart.
    """
    rows_UF, place_M, number_U = x_MF.unique(dim=0, return_inverse=True, return_counts=True)
    share_U = number_U.double() / len(x_MF)
    centred_UF = rows_UF.double() - centre_1F
    deviation_1F = (share_U @ centred_UF.square()).sqrt()[None]
    scale_1F = torch.where(varies(deviation_1F, centre_1F, x_MF.dtype), deviation_1F, torch.inf)
    z_UF = centred_UF / scale_1F
    correlation_FF = z_UF.mT @ (share_U[:, None] * z_UF)
    penalty_F = penalty * copies(correlation_FF).double()
    flattest_FF = FLATTEST * torch.eye(z_UF.shape[1], dtype=z_UF.dtype, device=z_UF.device)
    factor_FF = torch.linalg.cholesky(correlation_FF + flattest_FF)
    directions_UF = torch.linalg.solve_triangular(factor_FF, z_UF.mT, upper=False).mT
    back_FF = torch.linalg.solve_triangular(factor_FF, flattest_FF / FLATTEST, upper=False).mT
    penalty_II = functional.pad(back_FF.mT @ (penalty_F[:, None] * back_FF), (0, 1, 0, 1))
    x_UI = functional.pad(directions_UF, (0, 1), value=1.0)
    columns: list[Tensor] = [x_MF.new_zeros(0)] * sum(t.slots for t in targets)
    symbols = [(slot, t.symbols) for t, y_t in zip(targets, y, strict=True) for slot in y_t.unbind(-1)]
    slope = z_UF.new_zeros(())
    for N in {n for _, n in symbols}:
        own = [q for q, (_, n) in enumerate(symbols) if n == N]
        hot_NQM = torch.stack([functional.one_hot(symbols[q][0], N).mT for q in own], 1)
        counts_NQU = z_UF.new_zeros(N, len(own), len(z_UF)).index_add_(2, place_M, hot_NQM.double())
        seen_NQI = counts_NQU @ x_UI / len(x_MF)
        theta_NQI = torch.zeros_like(seen_NQI)
        for dtype in (torch.float32, torch.float64):
            parts = x_UI, share_U[:, None] * x_UI, share_U, penalty_II
            rows = Rows(*(part.to(dtype) for part in parts))
            theta_NQI, slope_Q = descend(rows, seen_NQI.to(dtype), theta_NQI.to(dtype), iterations)
            if slope_Q.max() <= TOLERANCE:
                break
        slope = torch.maximum(slope, slope_Q.max().double())
        for q, theta_NI in zip(own, theta_NQI.double().unbind(1), strict=True):
            theta_IN = theta_NI.mT
            columns[q] = torch.cat([back_FF @ theta_IN[:-1] / scale_1F.mT, theta_IN[-1:]])
    theta_IT = torch.cat(columns, -1)
    return theta_IT[:-1], theta_IT[-1:], slope


@dataclass(frozen=True)
class Rows:
    """What regressions on the same rows have in common.

    Attributes:
        x_UI: different rows.
        weighted_UI: the same, each times its share.
        share_U: how often each is there, of all.
        penalty_II: of the weights: half the curvature of its square.
    """

    x_UI: Tensor
    weighted_UI: Tensor
    share_U: Tensor
    penalty_II: Tensor

    @property
    def curvature(self) -> float:
        """A bound of the curvature of a loss with its penalty, in any direction."""
        return STEEPEST + 2 * float(torch.linalg.matrix_norm(self.penalty_II))

    def loss_and_slope(self, seen_NQI: Tensor, theta_NQI: Tensor) -> tuple[Tensor, Tensor]:
        """Mean losses ``[Q]`` with their penalties, and their gradients ``[N, Q, I]``.

        Args:
            seen_NQI: means over all rows of an input where the symbol is N, else 0.
            theta_NQI: weights and, last, constants.
        """
        scores_NQU = theta_NQI @ self.x_UI.mT
        log_chances_NQU = scores_NQU.log_softmax(0)  # along the first axis by far the fastest
        normaliser_QU = scores_NQU[0] - log_chances_NQU[0]
        pull_NQI = theta_NQI @ self.penalty_II
        expected_NQI = log_chances_NQU.exp_() @ self.weighted_UI
        linear_Q = ((pull_NQI - seen_NQI) * theta_NQI).sum((0, -1))
        return normaliser_QU @ self.share_U + linear_Q, expected_NQI - seen_NQI + 2 * pull_NQI


class Steps:
    """What L-BFGS remembers of each regression: its last steps and the changes of slope along them (Nocedal 1980).

    Args:
        theta_NQI: where the regressions start.
        curvature: of the losses, at the most.
    """

    def __init__(self, theta_NQI: Tensor, curvature: float):
        self.scale_Q = theta_NQI.new_full(theta_NQI.shape[1:2], 1 / curvature)
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def direction(self, slope_NQI: Tensor) -> Tensor:
        """Where to go from a slope: down, by the inverse curvature that the steps have shown."""
        shares, direction_NQI = [], slope_NQI
        for step_NQI, change_NQI, inverse_Q in reversed(self.pairs):
            share_Q = inverse_Q * (step_NQI * direction_NQI).sum((0, -1))
            direction_NQI = direction_NQI - share_Q[:, None] * change_NQI
            shares.append(share_Q)
        direction_NQI = self.scale_Q[:, None] * direction_NQI
        for (step_NQI, change_NQI, inverse_Q), share_Q in zip(self.pairs, reversed(shares), strict=True):
            rest_Q = share_Q - inverse_Q * (change_NQI * direction_NQI).sum((0, -1))
            direction_NQI = direction_NQI + rest_Q[:, None] * step_NQI
        return -direction_NQI

    def add(self, step_NQI: Tensor, change_NQI: Tensor) -> None:
        """Remember a step; where rounding has hidden the curvature, as none."""
        curvature_Q, square_Q = (step_NQI * change_NQI).sum((0, -1)), change_NQI.square().sum((0, -1))
        seen_Q = curvature_Q > torch.finfo(square_Q.dtype).eps * square_Q
        inverse_Q = torch.where(seen_Q, 1 / torch.where(seen_Q, curvature_Q, 1.0), 0.0)
        self.scale_Q = torch.where(seen_Q, curvature_Q / torch.where(seen_Q, square_Q, 1.0), self.scale_Q)
        self.pairs = [*self.pairs, (step_NQI, change_NQI, inverse_Q)][-MEMORY:]

    def keep(self, kept_Q: Tensor) -> None:
        """Forget the regressions that are done."""
        self.scale_Q = self.scale_Q[kept_Q]
        self.pairs = [(step[:, kept_Q], change[:, kept_Q], inverse[kept_Q]) for step, change, inverse in self.pairs]


def descend(rows: Rows, seen_NAI: Tensor, theta_NAI: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Weights after L-BFGS, and each regression's largest slope there ``[A]``; one that has converged costs nothing more."""
    theta_NAI = theta_NAI.clone()
    left_Q = torch.arange(theta_NAI.shape[1], device=theta_NAI.device)
    slope_A, moved_Q = theta_NAI.new_zeros(len(left_Q)), torch.ones_like(left_Q, dtype=torch.bool)
    seen_NQI, at_NQI, steps = seen_NAI, theta_NAI.clone(), Steps(theta_NAI, rows.curvature)
    loss_Q, slope_NQI = rows.loss_and_slope(seen_NQI, at_NQI)
    for iteration in range(iterations + 1):
        slope_A[left_Q] = slope_NQI.abs().amax((0, -1))
        theta_NAI[:, left_Q] = at_NQI
        kept_Q = (slope_A[left_Q] > TOLERANCE) & moved_Q
        if iteration == iterations or not kept_Q.any():
            break
        if not kept_Q.all():
            left_Q, loss_Q = left_Q[kept_Q], loss_Q[kept_Q]
            seen_NQI, at_NQI, slope_NQI = (part[:, kept_Q] for part in (seen_NQI, at_NQI, slope_NQI))
            steps.keep(kept_Q)
        next_NQI, next_loss_Q, next_slope_NQI = step_down(rows, seen_NQI, at_NQI, loss_Q, slope_NQI, steps)
        steps.add(next_NQI - at_NQI, next_slope_NQI - slope_NQI)
        moved_Q = (next_NQI != at_NQI).any(-1).any(0)
        at_NQI, loss_Q, slope_NQI = next_NQI, next_loss_Q, next_slope_NQI
    return theta_NAI, slope_A


def step_down(
    rows: Rows, seen_NQI: Tensor, at_NQI: Tensor, loss_Q: Tensor, slope_NQI: Tensor, steps: Steps
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, losses and slopes after a step of each regression, halved until it leads down; none where it never does."""
    direction_NQI = steps.direction(slope_NQI)
    promised_Q = (slope_NQI * direction_NQI).sum((0, -1))
    rounding_Q = ROUNDING * torch.finfo(loss_Q.dtype).eps * loss_Q.abs()
    new_NQI, new_loss_Q, new_slope_NQI = at_NQI.clone(), loss_Q.clone(), slope_NQI.clone()
    todo, length = torch.arange(len(loss_Q), device=loss_Q.device), 1.0
    for _ in range(HALVINGS):
        tried_NWI = at_NQI[:, todo] + length * direction_NQI[:, todo]
        tried_loss_W, tried_slope_NWI = rows.loss_and_slope(seen_NQI[:, todo], tried_NWI)
        onward_W = (tried_slope_NWI * direction_NQI[:, todo]).sum((0, -1))
        down_W = (tried_loss_W <= (loss_Q + DECREASE * length * promised_Q)[todo]) | (
            (tried_loss_W <= (loss_Q + rounding_Q)[todo]) & (onward_W <= (1 - 2 * DECREASE) * -promised_Q[todo])
        )
        new_NQI[:, todo[down_W]], new_slope_NQI[:, todo[down_W]] = tried_NWI[:, down_W], tried_slope_NWI[:, down_W]
        new_loss_Q[todo[down_W]] = tried_loss_W[down_W]
        todo, length = todo[~down_W], length / 2
        if not len(todo):
            break
    return new_NQI, new_loss_Q, new_slope_NQI

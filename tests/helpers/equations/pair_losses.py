"""The losses of the layerwise self-supervised rules, as published: loops over strings and pairs, one number for one layer of one replica.

Each function is told how the loss stands before any parameter is moved (:class:`Told`), takes from it what the equation holds
fixed, and returns the loss as a function of the two sides and of the loss's own parameters.

Shape suffixes: B batch (string), D pair of a string, C channel, E channel of the context or of a hidden layer, M rows (strings
times pairs).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from equations.case import Case
from equations.network import Array, Parameters

Loss = Callable[[Array, Array, Parameters], float]
"""Of the two sides ``[B, D, C]`` and the loss's parameters by name."""


class Told(NamedTuple):
    """What an equation is told of one layer of one replica.

    Attributes:
        case: the step, with the rule's settings.
        k: number of the layer, from 1.
        top: number of the highest layer that has pairs.
        shift: how many places further in the batch a string's negative stands, by what it is a negative for.
        coin_B: 1 for the positive term, 0 for the negative one.
        one_BDC, two_BDC: the sides, behind the head, before any parameter is moved.
        own: the loss's parameters before they are moved.
        slow: the sides that a slow copy makes, before the head's matrices; None if no rule asks for it.
        context_BE: the output of the highest layer that has pairs.
    """

    case: Case
    k: int
    top: int
    shift: Callable[[str], int]
    coin_B: Array
    one_BDC: Array
    two_BDC: Array
    own: Parameters
    slow: tuple[Array, Array] | None
    context_BE: Array


def cosine(a: Array, b: Array) -> float:
    """0 for a vector of zeros, such as the projection of a position whose units are all off."""
    lengths = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / lengths if lengths > 0 else 0.0


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def pick(scores: Array, right: int) -> float:
    """``-log exp(u_right) / sum_j exp(u_j)``."""
    largest = scores.max()
    return float(largest + math.log(np.exp(scores - largest).sum()) - scores[right])


# -------------------------------------------------------------------- InfoNCE


def info_nce(told: Told) -> Loss:
    """Oord et al. 2018, eq. 4, in both directions: each side picks its partner among the other sides of all strings.

    ``u = z1^T W z2 / t``, or the cosine over ``t``. In the highest layer that has pairs, with ``label_context``, the class joins
    the side that picks: ``u = (z1 + V_y)^T W z2 / t`` for ``z1``, ``u = (z2 + V_y)^T W^T z1 / t`` for ``z2``.
    """
    case, cosines = told.case, told.case.setting("score", "bilinear") == "cosine"
    shown = case.setting("label_context", False) and told.k == told.top
    temperature = case.setting("temperature", 1.0)

    def loss(one_BDC: Array, two_BDC: Array, own: Parameters) -> float:
        strings, pairs, _ = one_BDC.shape
        total = 0.0
        for d in range(pairs):
            for b in range(strings):
                z1, z2 = one_BDC[b, d], two_BDC[b, d]
                if cosines:
                    forth = np.array([cosine(z1, other) for other in two_BDC[:, d]])
                    back = np.array([cosine(z2, other) for other in one_BDC[:, d]])
                else:
                    label = own["label_RNC"][case.y_B[b]] if shown else 0.0
                    forth = two_BDC[:, d] @ ((z1 + label) @ own["predictor_RCC"])
                    back = one_BDC[:, d] @ (own["predictor_RCC"] @ (z2 + label))
                for scores in forth, back:
                    total += pick(scores / temperature, b) / (2 * strings * pairs)
        return total

    return loss


def greedy_info_max(told: Told) -> Loss:
    """Lowe et al. 2019, eq. 4: the context ``z1`` picks its ``z2`` among those of all strings, by ``z_j^T W c``."""

    def loss(one_BDC: Array, two_BDC: Array, own: Parameters) -> float:
        strings, pairs, _ = one_BDC.shape
        total = 0.0
        for d in range(pairs):
            for b in range(strings):
                context = one_BDC[b, d] @ own["predictor_RCC"]
                total += pick(two_BDC[:, d] @ context, b) / (strings * pairs)
        return total

    return loss


# -------------------------------------------------------------------- one other string


def phyll(told: Told) -> Loss:
    """``softplus(s- - s+)``, ``s = z1^T W z2``; in ``s-`` the second side is that of the string ``shift`` places further."""
    shift = told.shift("negative")

    def loss(one_BDC: Array, two_BDC: Array, own: Parameters) -> float:
        strings, pairs, _ = one_BDC.shape
        total = 0.0
        for b in range(strings):
            for d in range(pairs):
                context = one_BDC[b, d] @ own["predictor_RCC"]
                difference = context @ two_BDC[(b + shift) % strings, d] - context @ two_BDC[b, d]
                total += softplus(difference) / (strings * pairs)
        return total

    return loss


def clapp_terms(told: Told, one_BDC: Array, two_BDC: Array, w_pred: Array) -> list[tuple[int, int, int, float, float, float]]:
    """String ``b`` of the context, pair ``d``, string ``o`` of the predicted side, ``y``, weight, and ``u = z^T W_pred c``.

    Illing et al. 2021, eq. 3: ``y = 1`` for the string's own partner; ``y = -1`` for the same pair of the string ``shift`` places
    further. Both terms, or the one that the string's coin says at twice the weight; a mean over strings and pairs.
    """
    strings, pairs, _ = one_BDC.shape
    shift, terms = told.shift("negative"), []
    for b in range(strings):
        for y, o in ((1.0, b), (-1.0, (b + shift) % strings)):
            weight = 1.0 if told.case.setting("both_terms", True) else 2.0 * (told.coin_B[b] == (y > 0))
            for d in range(pairs):
                u = one_BDC[b, d] @ w_pred @ two_BDC[o, d]
                terms.append((b, d, o, y, weight / (strings * pairs), float(u)))
    return terms


def clapp(told: Told) -> Loss:
    """``max(0, 1 - y u)`` of all terms. With a matrix for retrodiction it is the value, and no gradient of it is the update."""

    def loss(one_BDC: Array, two_BDC: Array, own: Parameters) -> float:
        terms = clapp_terms(told, one_BDC, two_BDC, own["prediction_RCC"])
        return sum(weight * max(0.0, 1 - y * u) for _, _, _, y, weight, u in terms)

    return loss


def clapp_signals(told: Told) -> tuple[Array, Array, Parameters]:
    """Against Illing et al. 2021, eq. 6 to 8, with ``gamma = y 1[y u < 1]`` and matrices for each direction.

    At the predicted side ``gamma W_pred c``, at the context ``gamma W_retro z``; ``dW_pred = gamma z c^T``,
    ``dW_retro = gamma c z^T``. Here ``prediction_RCC`` is ``W_pred^T`` (context, predicted), ``retrodiction_RCC`` is ``W_retro^T``
    (predicted, context).

    Returns:
        the signals at the two sides, and the two matrices' gradients.
    """
    one, two = told.one_BDC, told.two_BDC
    w_pred = told.own["prediction_RCC"]
    w_retro = told.own.get("retrodiction_RCC", w_pred.T)
    at_one, at_two = np.zeros_like(one), np.zeros_like(two)
    own = {name: np.zeros_like(matrix) for name, matrix in told.own.items()}
    for b, d, o, y, weight, u in clapp_terms(told, one, two, w_pred):
        gamma = y * weight if y * u < 1 else 0.0
        c, z = one[b, d], two[o, d]
        for j in range(len(z)):
            at_two[o, d, j] -= gamma * sum(w_pred[i, j] * c[i] for i in range(len(c)))
            at_one[b, d, j] -= gamma * sum(w_retro[i, j] * z[i] for i in range(len(z)))
        own["prediction_RCC"] -= gamma * np.outer(c, z)
        if "retrodiction_RCC" in own:
            own["retrodiction_RCC"] -= gamma * np.outer(z, c)
    return at_one, at_two, own


def clapp_plus_plus(told: Told) -> Loss:
    """``max(0, 1 - u+) + max(0, 1 + u-)``, ``u = z^T B_d c`` with a matrix for each pair of a string.

    ``own``: ``c`` is the first side, ``z`` the second. ``top``: ``c`` is the whole output of the highest layer that has pairs, held
    fixed, and ``z`` each of the two sides with matrices of its own, their mean; in that layer itself ``own``. ``both``: the sum.
    A negative has the ``z`` of the string ``shift`` places further, drawn apart for each of the three.
    """
    context = told.case.setting("context", "both")
    own_too = context != "top" or told.k == told.top
    held_BE = told.context_BE.copy()

    def hinges(contexts: list[Array], matrix_DEC: Array, side_BDC: Array, name: str) -> float:
        """``contexts``: of each pair of a string, ``[B, E]``."""
        strings, pairs, _ = side_BDC.shape
        shift, total = told.shift(name), 0.0
        for d in range(pairs):
            predicted = contexts[d] @ matrix_DEC[d]
            for b in range(strings):
                positive, negative = predicted[b] @ side_BDC[b, d], predicted[b] @ side_BDC[(b + shift) % strings, d]
                total += (max(0.0, 1 - positive) + max(0.0, 1 + negative)) / (strings * pairs)
        return total

    def loss(one_BDC: Array, two_BDC: Array, own: Parameters) -> float:
        pairs, total = one_BDC.shape[1], 0.0
        if own_too:
            total += hinges([one_BDC[:, d] for d in range(pairs)], own["prediction_RDCC"], two_BDC, "own")
        if context != "own" and told.k < told.top:
            for name, side in ("top_first_RDEC", one_BDC), ("top_second_RDEC", two_BDC):
                total += hinges([held_BE] * pairs, own[name], side, name) / 2
        return total

    return loss


# -------------------------------------------------------------------- no negatives


def rows_of(side_BDC: Array) -> Array:
    return side_BDC.reshape(-1, side_BDC.shape[-1])


def covariances(x_MC: Array, y_MC: Array, samples: int) -> Array:
    """``sum_n (x_ni - mean_i)(y_nj - mean_j) / samples``."""
    total = np.zeros((x_MC.shape[1], y_MC.shape[1]))
    for x, y in zip(x_MC - x_MC.mean(0), y_MC - y_MC.mean(0), strict=True):
        total += np.outer(x, y)
    return total / samples


def apart(matrix: Array) -> float:
    """``sum_{i != j} C_ij^2``."""
    return sum(matrix[i, j] ** 2 for i in range(len(matrix)) for j in range(len(matrix)) if i != j)


def latent_prediction(told: Told) -> Loss:
    """Halvagal, Zenke 2023, eq. 7 with the erratum: ``MSE - a mean_i log(var_i + eps) + d sum_{i != k} C_ik^2 / (M^2 - M)``.

    The last two are means over the two sides; ``eps = 1e-4``. The batch's means are held fixed.
    """
    hebbian, decorrelation = told.case.setting("hebbian", 1.0), told.case.setting("decorrelation", 10.0)
    means = [rows_of(side).mean(0) for side in (told.one_BDC, told.two_BDC)]

    def loss(one_BDC: Array, two_BDC: Array, own: Parameters) -> float:
        sides = rows_of(one_BDC), rows_of(two_BDC)
        channels = sides[0].shape[1]
        total = float(np.mean((sides[0] - sides[1]) ** 2))
        for side, mean in zip(sides, means, strict=True):
            cov = sum(np.outer(x - mean, x - mean) for x in side) / (len(side) - 1)
            total -= hebbian * sum(math.log(cov[i, i] + 1e-4) for i in range(channels)) / channels / 2
            total += decorrelation * apart(cov) / (channels**2 - channels) / 2
        return total

    return loss


def vicreg(told: Told) -> Loss:
    """Bardes et al. 2022, eq. 6: ``s MSE + v mean_i max(0, 1 - sqrt(var_i + 1e-4)) + c sum_{i != j} C_ij^2 / M``.

    The second is the mean over the two sides, the third the sum.
    """
    similarity, variance, covariance = (
        told.case.setting(name, default) for name, default in (("similarity", 25.0), ("variance", 25.0), ("covariance", 1.0))
    )

    def loss(one_BDC: Array, two_BDC: Array, own: Parameters) -> float:
        sides = rows_of(one_BDC), rows_of(two_BDC)
        channels = sides[0].shape[1]
        total = similarity * float(np.mean((sides[0] - sides[1]) ** 2))
        for side in sides:
            cov = covariances(side, side, len(side) - 1)
            total += variance / 2 * sum(max(0.0, 1 - math.sqrt(cov[i, i] + 1e-4)) for i in range(channels)) / channels
            total += covariance * apart(cov) / channels
        return total

    return loss


def barlow_twins(told: Told) -> Loss:
    """Zbontar et al. 2021, eq. 1: ``sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2``, ``C`` the correlation of the two sides.

    Variances have 1e-5 added, as in the authors' batch normalisation.
    """
    redundancy = told.case.setting("redundancy", 0.0051)

    def loss(one_BDC: Array, two_BDC: Array, own: Parameters) -> float:
        x, y = ((rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5) for rows in (rows_of(one_BDC), rows_of(two_BDC)))
        cross = sum(np.outer(a, b) for a, b in zip(x, y, strict=True)) / len(x)
        return sum((1 - cross[i, i]) ** 2 for i in range(len(cross))) + redundancy * apart(cross)

    return loss


def slow_features(told: Told) -> Loss:
    """Wiskott, Sejnowski 2002: ``1 - tr(C^-1 G) / M``: ``C`` the covariance of all sides, ``G`` that of a side with its partner.

    ``G_ij = sum_n (x_ni y_nj + y_ni x_nj) / 2N`` about the mean of all sides; ``C`` has ``ridge`` times its mean variance added to
    its diagonal.
    """
    ridge = told.case.setting("ridge", 0.01)

    def loss(one_BDC: Array, two_BDC: Array, own: Parameters) -> float:
        x, y = rows_of(one_BDC), rows_of(two_BDC)
        both = np.concatenate([x, y])
        cov, mean, channels = covariances(both, both, len(both) - 1), both.mean(0), x.shape[1]
        partner = np.zeros_like(cov)
        for a, b in zip(x - mean, y - mean, strict=True):
            partner += (np.outer(a, b) + np.outer(b, a)) / (2 * len(x))
        floor = ridge * sum(cov[i, i] for i in range(channels)) / channels
        inverse = np.linalg.inv(cov + floor * np.eye(channels))
        return 1 - sum(inverse[i] @ partner[:, i] for i in range(channels)) / channels

    return loss


def batch_norm(rows_MC: Array) -> Array:
    """Each channel with mean 0 and variance 1 over all rows, 1e-5 added to the variance."""
    found = np.zeros_like(rows_MC)
    for c in range(rows_MC.shape[1]):
        mean = sum(rows_MC[:, c]) / len(rows_MC)
        variance = sum((x - mean) ** 2 for x in rows_MC[:, c]) / len(rows_MC)
        found[:, c] = [(x - mean) / math.sqrt(variance + 1e-5) for x in rows_MC[:, c]]
    return found


def predicted_targets(told: Told) -> Loss:
    """Chen, He 2021, eq. 1 and 2: ``-cos(q(z1), t2) / 2 - cos(q(z2), t1) / 2``, ``q`` two matrices with batch norm and relu between.

    Sides and targets are batch normalised first, each by itself, over strings and pairs. The targets are held fixed: SimSiam's are
    the sides themselves; BYOL's (Grill et al. 2020) come from a slow copy of the layer and its head.
    """
    targets = [batch_norm(rows_of(side)) for side in told.slow or (told.one_BDC.copy(), told.two_BDC.copy())]

    def loss(one_BDC: Array, two_BDC: Array, own: Parameters) -> float:
        total = 0.0
        for side, target in (one_BDC, targets[1]), (two_BDC, targets[0]):
            hidden = np.maximum(batch_norm(batch_norm(rows_of(side)) @ own["predictor_in_RCE"]), 0)
            for row, wanted in zip(hidden, target, strict=True):
                total -= cosine(row @ own["predictor_out_REC"], wanted) / (2 * len(target))
        return total

    return loss

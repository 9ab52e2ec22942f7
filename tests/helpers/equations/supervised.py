"""Oracles of the layerwise supervised controls and of Forward-Forward: each layer's loss, its gradient by finite differences.

All below a layer is held fixed, and so is the batch.

Shape suffixes: B batch (string), D position, C channel, F all channels of a layer, E outputs of a head.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from equations import draws
from equations.case import Answer, Case, Equation, with_readout
from equations.layerwise import LOCAL, NARROW, TANH, inputs, settings
from equations.network import Array, Parameters, numeric_gradient
from equations.pair_losses import cosine, pick, softplus

# -------------------------------------------------------------------- a head on every layer

LabelLoss = Callable[[Case, Array, Array], float]
"""Of a layer's whole output ``[B, F]`` and the head's ``[B, E]``."""


def with_heads(loss: LabelLoss) -> Callable[[Case], Answer]:
    """The oracle of a loss of what each layer hands on, all positions side by side, and of ``U_l h_l``."""

    def says(case: Case) -> Answer:
        layers: list[Parameters] = []
        losses: dict[str, float] = {}
        for k, (layer, part) in enumerate(zip(case.network.layers, case.parts, strict=False), 1):
            (h,) = inputs(case, k)

            def value(layer=layer, part=part, h=h) -> float:
                flat = layer.forward(h).out_BDC.reshape(len(h), -1)
                return loss(case, flat, flat @ part["label_head_RFE"])

            losses[f"loss/layer{k}"] = value()
            layers.append(numeric_gradient(value, part))
        return with_readout(case, layers, losses=losses)

    return says


def cross_entropy(case: Case, out_BF: Array, z_BE: Array) -> float:
    """``-log softmax(U_l h_l)_y``, a mean over strings (Mostafa et al. 2018)."""
    return sum(pick(z, y) for z, y in zip(z_BE, case.y_B, strict=True)) / len(z_BE)


def similarity_matching(case: Case, out_BF: Array, z_BE: Array) -> float:
    """Nokland, Eidnes 2019, eq. 1 to 3: ``(1 - b) CE + b mean_ab (sim(h_a, h_b) - sim(y_a, y_b))^2``.

    ``sim`` is the cosine of two vectors less their own means; the mean is over all ``B^2`` pairs of strings.
    """
    b, strings = case.setting("similarity", 0.99), range(len(out_BF))
    classes = np.eye(case.network.n)[case.y_B]
    h, y = ([row - row.mean() for row in rows] for rows in (out_BF, classes))
    difference = sum((cosine(h[i], h[j]) - cosine(y[i], y[j])) ** 2 for i in strings for j in strings) / len(out_BF) ** 2
    return (1 - b) * cross_entropy(case, out_BF, z_BE) + b * difference


def supervised_contrastive(case: Case, out_BF: Array, z_BE: Array) -> float:
    """Khosla et al. 2020, eq. 2: ``-mean_p log exp(u_bp) / sum_{a != b} exp(u_ba)``, ``u`` the cosine over ``t``.

    ``p`` are the other strings of the class of ``b``; a mean over the strings that have any.
    """
    temperature, terms = case.setting("temperature", 0.5), []
    for b in range(len(z_BE)):
        others = [a for a in range(len(z_BE)) if a != b]
        scores = np.array([cosine(z_BE[b], z_BE[a]) / temperature for a in others])
        positives = [j for j, a in enumerate(others) if case.y_B[a] == case.y_B[b]]
        if positives:
            terms.append(sum(pick(scores, j) for j in positives) / len(positives))
    assert 0 < len(terms) < len(z_BE), "a batch without strings that are alone in their class, or of nothing else, tells little"
    return sum(terms) / len(terms)


# -------------------------------------------------------------------- Forward-Forward


def forward_forward(case: Case) -> Answer:
    """Hinton 2022: ``softplus(-c (G+ - t)) + softplus(c (G- - t))``, ``G`` the mean of squared units, of a layer or of a position.

    ``G+`` is that of the string shown with its class, ``G-`` with a wrong one; a mean over strings and, where each has a goodness
    of its own, positions. The readout sees the string without a class.
    """
    threshold, slope, size = case.setting("threshold", 1.0), case.setting("slope", 8.0), len(case.x_BD)
    whole = case.setting("whole_layer", True)
    wrong_B = draws.wrong_class(case.key_B, case.y_B, case.network.n)
    assert all(wrong != y for wrong, y in zip(wrong_B, case.y_B, strict=True))
    shown = [(1, case.network.encode(case.x_BD, case.y_B)), (-1, case.network.encode(case.x_BD, wrong_B))]
    layers: list[Parameters] = []
    losses: dict[str, float] = {}
    for k, (layer, part) in enumerate(zip(case.network.layers, case.parts, strict=False), 1):

        def value(layer=layer, shown=shown) -> float:
            total = 0.0
            for sign, h in shown:
                units_BDE = layer.forward(h).units_BDE
                for b in range(size):
                    scenes = [units_BDE[b].reshape(-1)] if whole else units_BDE[b]
                    for units in scenes:
                        goodness = sum(unit**2 for unit in units) / len(units)
                        total += softplus(-sign * slope * (goodness - threshold)) / (size * len(scenes))
            return total

        losses[f"loss/layer{k}"] = value()
        layers.append(numeric_gradient(value, part))
        shown = [(sign, layer.forward(h).out_BDC) for sign, h in shown]
    return with_readout(case, layers, losses=losses)


# -------------------------------------------------------------------- the settings files

DENSE = ("--model.network=DenseNetwork", *NARROW)
SLOT = ("--model.network.label_slot=true", "--model.network.normalise=true")
SHARED = ("--model.network.width=6",)

EQUATIONS: dict[str, Equation] = {
    "local_cross_entropy": settings(with_heads(cross_entropy), NARROW, LOCAL, DENSE, TANH, small=SHARED),
    "similarity_matching": settings(
        with_heads(similarity_matching), NARROW, LOCAL, (*DENSE, "--model.similarity=0.8"), small=SHARED
    ),
    "supervised_contrastive": settings(
        with_heads(supervised_contrastive),
        NARROW,
        LOCAL,
        (*DENSE, "--model.temperature=0.3", "--data.batch_size=8"),  # classes of one, two and three strings
        small=(*SHARED, "--model.head=3"),
    ),
    "forward_forward": settings(
        forward_forward,
        ("--model.threshold=0.7", "--model.whole_layer=false", "--model.slope=3"),
        ("--model.network=LocallyConnectedNetwork", "--model.network.width=4", *SLOT),
        ("--model.network=DenseNetwork", "--model.network.width=5", *SLOT),
        small=SHARED,
    ),
}

"""The oracle of signal propagation: each layer's loss, its gradient by finite differences.

Shape suffixes: B batch, D position, C channel, N classes.
"""

from __future__ import annotations

import math

import numpy as np

from equations.case import Answer, Case, Equation, with_readout
from equations.layerwise import inputs
from equations.network import PHI, Array, Parameters, numeric_gradient
from equations.pair_losses import pick


def meeting(case: Case, h_BDC: Array, t_NDC: Array) -> float:
    """Kohan et al. 2022: ``CE(softmax_n(h . t^n), y)``, the product a mean over positions of sums over channels over ``sqrt(C)``."""
    total, (positions, channels) = 0.0, h_BDC.shape[1:]
    for h_DC, y in zip(h_BDC, case.y_B, strict=True):
        scores = [sum(h_DC[d] @ t_DC[d] for d in range(positions)) / (positions * math.sqrt(channels)) for t_DC in t_NDC]
        total += pick(np.array(scores), y) / len(h_BDC)
    return total


def sigprop(case: Case) -> Answer:
    """Strings and classes pass the same layer; its loss sees both, all below it is fixed."""
    layers: list[Parameters] = []
    losses: dict[str, float] = {}
    below: Array | None = None
    for k, (layer, part) in enumerate(zip(case.network.layers, case.parts, strict=False), 1):
        (h,) = inputs(case, k)
        shape = layer.forward(h).out_BDC.shape

        def targets(layer=layer, part=part, below=below, shape=shape) -> Array:
            if below is None:
                return PHI[layer.activation](part["target_RNF"]).reshape(-1, *shape[1:])
            return layer.forward(below).out_BDC

        def value(layer=layer, h=h, targets=targets) -> float:
            return meeting(case, layer.forward(h).out_BDC, targets())

        losses[f"loss/layer{k}"] = value()
        layers.append(numeric_gradient(value, part))
        below = targets()
    return with_readout(case, layers, losses=losses)


EQUATIONS = {
    "sigprop": Equation(
        sigprop,
        variants=(
            ("--model.network.activation=tanh",),
            ("--model.network=LocallyConnectedNetwork", "--model.network.width=4"),
            ("--model.network=DenseNetwork", "--model.network.width=4"),
        ),
        rtol=1e-6,
        small=("--model.network.width=4",),
    )
}

"""The oracle of local learning by synchronization.

Shape suffixes: B batch, F all channels of a layer, N classes.
"""

from __future__ import annotations

import math

import numpy as np

from equations.case import Answer, Case, with_readout
from equations.layerwise import LOCAL, NARROW, TANH, inputs, settings
from equations.network import Parameters, numeric_gradient
from equations.pair_losses import pick
from equations.supervised import DENSE, SHARED


def lls(case: Case) -> Answer:
    """Apolinario et al. 2025: ``CE(C h / |h| / temperature, y)`` of each layer's output with fixed class vectors ``C``."""
    layers: list[Parameters] = []
    losses: dict[str, float] = {}
    for k, (layer, part) in enumerate(zip(case.network.layers, case.parts, strict=False), 1):
        (h,) = inputs(case, k)

        def value(layer=layer, h=h, k=k) -> float:
            total = 0.0
            for out, y in zip(layer.forward(h).out_BDC.reshape(len(h), -1), case.y_B, strict=True):
                length = math.sqrt(sum(x * x for x in out))
                scores_N = np.array([row @ out / length for row in case.buffers[f"class_vectors_{k}"]])
                total += pick(scores_N / case.setting("temperature", 1.0), y) / len(h)
            return total

        losses[f"loss/layer{k}"] = value()
        layers.append(numeric_gradient(value, part))
    return with_readout(case, layers, losses=losses)


EQUATIONS = {"lls": settings(lls, NARROW, LOCAL, (*DENSE, "--model.temperature=0.3"), TANH, small=SHARED)}

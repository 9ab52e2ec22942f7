"""The oracle of SoftHebb, whose update is no gradient: loops over strings, positions and units.

Shape suffixes: G groups of positions that share weights, F inputs, E units.
"""

from __future__ import annotations

import math

import numpy as np

from equations.case import Answer, Case, Equation, with_readout
from equations.network import Parameters
from equations.references import NETWORKS


def softhebb(case: Case) -> Answer:
    """Moraitis et al. 2022, eq. 4: ``dW_ik = s_k y_k (x_i - u_k W_ik)``, ``u = W^T x``, ``y = softmax(u / t)``; against it.

    ``s_k = -1`` for all units but the one with the largest ``u`` if losers unlearn (Journe et al. 2023), else 1. A mean over strings
    and the positions that share weights. Biases and projections do not learn, and ``u`` is without the bias.
    """
    temperature, unlearn = case.setting("temperature", 1.0), case.setting("losers_unlearn", False)
    layers: list[Parameters] = []
    for layer, run in zip(case.network.layers, case.runs(), strict=True):
        weight_GFE = layer.parameters["weight_RGFE"]
        against = np.zeros_like(weight_GFE)
        batch, positions, inputs = run.x_BDF.shape
        rows = batch if len(weight_GFE) > 1 else batch * positions
        for b in range(batch):
            for d in range(positions):
                g, x = d if len(weight_GFE) > 1 else 0, run.x_BDF[b, d]
                u = [sum(weight_GFE[g, i, k] * x[i] for i in range(inputs)) for k in range(weight_GFE.shape[2])]
                total = sum(math.exp(u_k / temperature) for u_k in u)
                for k, u_k in enumerate(u):
                    s = -1 if unlearn and u_k < max(u) else 1
                    y = math.exp(u_k / temperature) / total
                    against[g, :, k] -= s * y * (x - u_k * weight_GFE[g, :, k]) / rows
        layers.append({"weight_RGFE": against})
    return with_readout(case, layers)


UNLEARN = "--model.losers_unlearn=true"

EQUATIONS: dict[str, Equation] = {
    "softhebb": Equation(
        softhebb, variants=((UNLEARN,), ("--model.temperature=0.4",), *((*network, UNLEARN) for network in NETWORKS))
    )
}

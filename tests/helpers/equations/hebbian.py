"""The oracle of SoftHebb, whose update is no gradient: loops over strings, positions and units.

Shape suffixes: C channel; G groups of positions that share weights, F inputs, E units.
"""

from __future__ import annotations

import math
from copy import deepcopy

import numpy as np

from equations.case import Answer, Case, Equation, State, with_readout
from equations.network import Array, Parameters, PlainCompetition
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
    return with_readout(case, layers, moments(case))


def moments(case: Case) -> dict[str, Array]:
    """Of a competitive layer's input: each channel's mean, and mean square distance from the mean that is tracked."""
    found, h = {}, case.network.encode(case.x_BD)
    for k, (layer, run) in enumerate(zip(case.network.layers, case.runs(), strict=True)):
        if isinstance(layer, PlainCompetition):
            columns = [h[..., c].flatten().tolist() for c in range(h.shape[2])]
            means = [sum(column) / len(column) for column in columns]
            squares = [
                sum((value - mean) ** 2 for value in column) / len(column)
                for column, mean in zip(columns, layer.mean_C, strict=True)
            ]
            found |= {f"network.layers.{k}.mean_RC": np.array(means), f"network.layers.{k}.variance_RC": np.array(squares)}
        h = run.out_BDC
    return found


def descent(case: Case, answer: Answer) -> State:
    """``w_k - eta |1 - |w_k||^q g_k / max |g|`` for each unit ``k``, Adam's first step for the readout; moments go a tenth of the
    way, as batch norm's.

    The largest entry is that of a layer; ``w_k`` are all weights of a unit (at a position, where positions have their own).
    """
    lr, eta, power = (case.arguments["optimizer"]["init_args"][name] for name in ("lr", "eta", "norm_power"))
    parts, buffers = deepcopy(case.parts), deepcopy(case.buffers)
    for part, gradients in zip(parts[:-1], answer.gradients[:-1], strict=True):
        weight, gradient = part["weight_RGFE"], gradients["weight_RGFE"]
        largest = max(abs(float(g)) for g in gradient.flatten())
        for g in range(weight.shape[0]):
            for k in range(weight.shape[2]):
                length = math.sqrt(sum(w**2 for w in weight[g, :, k]))
                weight[g, :, k] = weight[g, :, k] - eta * abs(1 - length) ** power * gradient[g, :, k] / largest
    for name, gradient in answer.gradients[-1].items():
        parts[-1][name] -= lr * gradient / (np.abs(gradient) + 1e-8)
    for name, value in answer.estimates.items():
        buffers[name] += 0.1 * (value - buffers[name])
    return State(parts, buffers)


UNLEARN = "--model.losers_unlearn=true"

EQUATIONS: dict[str, Equation] = {
    "softhebb": Equation(
        softhebb,
        descent,
        variants=(
            (UNLEARN,),
            ("--model.temperature=0.4", "--model.network.power=0.7"),
            *(("--model.network=HierarchicalNetwork", *network, UNLEARN) for network in NETWORKS),
        ),
        own_optimizer=True,
    )
}

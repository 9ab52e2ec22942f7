"""The oracle of difference target propagation.

Shape suffixes: B batch, D position, C channel, F inputs of a unit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from equations.case import Answer, Case, Equation, with_readout
from equations.network import PHI, Array, Parameters, numeric_gradient
from equations.references import NETWORKS


def inverse(case: Case, k: int, z_BDC: Array) -> Array:
    """``g_k = phi(V h + c)`` at each position: the patch below it, one after the other as positions of the layer below."""
    part, patch = case.parts[k - 1], case.network.layers[k - 1].patch
    below = case.network.layers[k - 2]
    phi = PHI["linear" if below.normalise else below.activation]
    (batch, positions), rows = z_BDC.shape[:2], []
    for b in range(batch):
        for d in range(positions):
            g = d if len(part["inverse_RGEF"]) > 1 else 0
            rows.append(phi(z_BDC[b, d] @ part["inverse_RGEF"][g] + part["inverse_bias_RG1F"][g, 0]))
    return np.array(rows).reshape(batch, positions * patch, -1)


def undone(case: Case, k: int, x_BDC: Array) -> Callable[[], float]:
    """``1/2 |g(f(x)) - x|^2``, a mean over strings."""
    z_BDC = case.network.layers[k - 1].forward(x_BDC).out_BDC
    return lambda: float(((inverse(case, k, z_BDC) - x_BDC) ** 2).sum() / (2 * len(x_BDC)))


def dtp(case: Case) -> Answer:
    """Lee et al. 2015: ``h'_{l-1} = h_{l-1} + g_l(h'_l) - g_l(h_l)``, and each layer goes towards its target."""
    runs, reach = case.runs(), case.setting("reach", 0.1)
    target = runs[-1].out_BDC.copy()
    for b, e_N in enumerate(case.answered(runs).error_BN):
        target[b] -= reach * (case.network.readout["weight_RFN"] @ e_N).reshape(target[b].shape)
    layers: list[Parameters] = []
    losses: dict[str, float] = {}
    for k in range(case.depth, 0, -1):
        layer, run = case.network.layers[k - 1], runs[k - 1]
        gradients = layer.backward(run, (run.out_BDC - target) / (reach * len(target)))[0]
        if k > 1:
            below = runs[k - 2].out_BDC
            loss = undone(case, k, below + case.setting("sigma", 0.1) * case.noise(f"inverse {k}", below.shape[1:]))
            losses[f"loss/inverse{k}"] = loss()
            own = {name: case.parts[k - 1][name] for name in ("inverse_RGEF", "inverse_bias_RG1F")}
            gradients |= numeric_gradient(loss, own, eps=1e-5)
            target = below + inverse(case, k, target) - inverse(case, k, run.out_BDC)
        layers.insert(0, gradients)
    return with_readout(case, layers, losses=losses)


EQUATIONS = {"dtp": Equation(dtp, variants=(*NETWORKS, ("--model.reach=0.5", "--model.sigma=0.3")), rtol=1e-6)}

"""The oracle of equilibrium propagation.

Shape suffixes: B batch, D position, C channel, N classes.
"""

from __future__ import annotations

import numpy as np

from equations.case import Answer, Case, Equation
from equations.network import Array


def sweep(case: Case, s: list[Array], nudge: float) -> list[Array]:
    """``s_l <- tanh(W_l s_{l-1} + b_l + W_{l+1}^T s_{l+1})`` for one layer after the other; the top layer hears its loss."""
    settled, below = [], case.network.encode(case.x_BD)
    for k, layer in enumerate(case.network.layers):
        above = np.zeros_like(s[k])
        if k + 1 < len(s):
            above = case.network.layers[k + 1].hand_down(s[k + 1])
        else:
            for b, e_N in enumerate(case.network.answer(s[k], case.y_B).error_BN):
                above[b] = -nudge * (case.network.readout["weight_RFN"] @ e_N).reshape(s[k][b].shape)
        settled.append(np.tanh(layer.forward(below, above).a_BDE))
        below = settled[-1]
    return settled


def equilibrium_propagation(case: Case) -> Answer:
    """Scellier, Bengio 2017: ``-dE/dW = s_l s_{l-1}^T`` at two rests, their difference over ``2 nudge``; a mean over strings."""
    nudge, batch = case.setting("nudge", 0.2), len(case.y_B)
    free = [run.out_BDC for run in case.runs()]
    for _ in range(case.setting("free_steps", 20)):
        free = sweep(case, free, 0)
    ends = {}
    for sign in (1, -1):
        ends[sign] = free
        for _ in range(case.setting("nudged_steps", 8)):
            ends[sign] = sweep(case, ends[sign], sign * nudge)
    found = []
    for k, layer in enumerate(case.network.layers):
        gradients = dict.fromkeys(("weight_RGFE", "bias_RG1E"), 0.0)
        for sign, s in ends.items():
            below = case.network.encode(case.x_BD) if k == 0 else s[k - 1]
            product = layer.hebbian(layer.forward(below), -sign * s[k] / (2 * nudge * batch))
            gradients = {name: gradients[name] + product[name] for name in gradients}
        found.append(gradients)
    answered = case.network.answer(free[-1], case.y_B)
    readout = case.network.readout_gradients(free[-1], answered.error_BN)
    further = sweep(case, free, 0)
    moved = sum(((after - before) ** 2).sum() for after, before in zip(further, free, strict=True))
    unsettled = float(np.sqrt(moved / sum((s**2).sum() for s in free)))
    return Answer([*found, readout], {}, {"loss/unsettled": unsettled, "loss/readout": float(answered.loss_B.mean())})


FEW = ("--model.free_steps=3", "--model.nudged_steps=2")
EQUATIONS = {
    "equilibrium_propagation": Equation(
        equilibrium_propagation,
        variants=(
            (*FEW, "--model.nudge=0.05"),
            (*FEW, "--model.network=LocallyConnectedNetwork", "--model.network.width=5"),
            (*FEW, "--model.network=DenseNetwork", "--model.network.width=5"),
        ),
        rtol=1e-8,  # settling adds up
    )
}

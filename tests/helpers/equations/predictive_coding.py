"""The oracle of predictive coding.

Shape suffixes: B batch, D position, C channel, N classes.
"""

from __future__ import annotations

import numpy as np

from equations.case import Answer, Case, Equation, with_readout
from equations.network import Array, Run
from equations.references import NETWORKS


def energy(case: Case, z: list[Array]) -> float:
    """``sum_l 1/2 |z_l - f_l(z_{l-1})|^2 + nudge CE(z_L)``, a sum over strings."""
    below, total = case.network.encode(case.x_BD), 0.0
    for layer, activity in zip(case.network.layers, z, strict=True):
        total += ((activity - layer.forward(below).out_BDC) ** 2).sum() / 2
        below = activity
    return total + case.setting("nudge", 1.0) * case.network.answer(z[-1], case.y_B).loss_B.sum()


def slopes(case: Case, z: list[Array]) -> tuple[list[Array], list[Array], list[Run]]:
    """``dF/dz`` of each layer, its errors, and its predictions' runs."""
    inputs = [case.network.encode(case.x_BD), *z[:-1]]
    runs = [layer.forward(below) for layer, below in zip(case.network.layers, inputs, strict=True)]
    errors = [activity - run.out_BDC for activity, run in zip(z, runs, strict=True)]
    found = [error.copy() for error in errors]
    for b, e_N in enumerate(case.network.answer(z[-1], case.y_B).error_BN):
        found[-1][b] += case.setting("nudge", 1.0) * (case.network.readout["weight_RFN"] @ e_N).reshape(z[-1][b].shape)
    for k in range(1, len(z)):
        layer = case.network.layers[k]
        _, delta = layer.backward(runs[k], errors[k])
        found[k - 1] -= layer.hand_down(delta)
    return found, errors, runs


def predictive_coding(case: Case) -> Answer:
    """Whittington, Bogacz 2017: activities go down ``F``, and then ``dW_l = -J_W^T eps_l / nudge``, a mean over strings."""
    z, batch, nudge = [run.out_BDC.copy() for run in case.runs()], len(case.y_B), case.setting("nudge", 1.0)
    start = np.sqrt(sum((slope**2).sum() for slope in slopes(case, z)[0]))
    for _ in range(case.setting("steps", 20)):
        z = [a - case.setting("rate", 0.2) * slope for a, slope in zip(z, slopes(case, z)[0], strict=True)]
    found, errors, runs = slopes(case, z)
    layers = [
        layer.backward(run, -error / (nudge * batch))[0]
        for layer, run, error in zip(case.network.layers, runs, errors, strict=True)
    ]
    unsettled = float(np.sqrt(sum((slope**2).sum() for slope in found)) / start)
    return with_readout(case, layers, losses={"loss/energy": energy(case, z) / batch, "loss/unsettled": unsettled})


FEW = ("--model.steps=3",)
EQUATIONS = {
    "predictive_coding": Equation(
        predictive_coding,
        variants=(
            *((*network, *FEW) for network in NETWORKS),
            (*FEW, "--model.rate=0.05", "--model.nudge=0.3"),
        ),
        rtol=1e-8,  # settling adds up
    )
}

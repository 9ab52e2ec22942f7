"""The oracle of direct difference target propagation.

Shape suffixes: B batch, D position, C channel, N classes, F all channels of a layer.
"""

from __future__ import annotations

import numpy as np

from equations.case import Answer, Case, Equation, with_readout
from equations.feedback import DIRECT, direct, error_of
from equations.network import Array, numeric_gradient


def changes(case: Case, k: int, noise_BDC: Array) -> Array:
    """How the logits change, ``[B, N]``, along noise at layer ``k`` alone."""
    change, runs = noise_BDC, case.runs()
    for layer, run in zip(case.network.layers[k:], runs[k:], strict=True):
        change = layer.tangent(run, change)
    return np.stack([case.network.readout["weight_RFN"].T @ one.reshape(-1) for one in change])


def reconstruction(case: Case, feedback_NF: Array, change_BN: Array, noise_BDC: Array) -> float:
    """Meulemans et al. 2020, difference reconstruction loss in the limit of small noise: ``1/2 E |Q t - v|^2 + decay/2 |Q|^2``."""
    total = case.setting("decay", 0.1) / 2 * (feedback_NF**2).sum()
    for t_N, v in zip(change_BN, noise_BDC, strict=True):
        total += ((t_N @ feedback_NF - v.reshape(-1)) ** 2).sum() / (2 * len(noise_BDC))
    return float(total)


def ddtp(case: Case) -> Answer:
    """``delta_l = D_l Q_l e``, and ``Q_l`` descends its loss."""
    layers = direct(case, error_of(case), lambda k: case.parts[k - 1]["feedback_RNF"])
    for k, (gradients, run) in enumerate(zip(layers, case.runs(), strict=True), 1):
        noise, own = case.noise(f"tangent {k}", run.out_BDC.shape[1:]), case.parts[k - 1]["feedback_RNF"]
        change = changes(case, k, noise)

        def loss(own: Array = own, change: Array = change, noise: Array = noise) -> float:
            return reconstruction(case, own, change, noise)

        gradients |= numeric_gradient(loss, {"feedback_RNF": own}, eps=1e-4)
    return with_readout(case, layers)


EQUATIONS = {"ddtp": Equation(ddtp, variants=(*DIRECT, ("--model.decay=0.5",)), rtol=1e-6)}

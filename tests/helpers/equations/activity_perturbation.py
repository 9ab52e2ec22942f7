"""The oracle of activity-perturbed forward gradients.

Shape suffixes: B batch, D position, C channel, F all channels of a layer, N classes.
"""

from __future__ import annotations

import numpy as np

from equations.case import Answer, Case, Equation, with_readout
from equations.network import Array, Parameters
from equations.references import NETWORKS


def softmax_error(logits_N: Array, y: int) -> tuple[Array, float]:
    """``softmax(o) - y`` and ``-log softmax(o)_y`` of one string."""
    p_N = np.exp(logits_N - logits_N.max()) / np.exp(logits_N - logits_N.max()).sum()
    return p_N - np.eye(len(p_N))[y], -float(np.log(p_N[y]))


def from_local_losses(case: Case) -> Answer:
    """Ren et al. 2022: ``delta = D v (e . U v)``, one position and one group of channels perturbed at a time."""
    layers: list[Parameters] = []
    losses: dict[str, float] = {}
    for k, (layer, run) in enumerate(zip(case.network.layers, case.runs(), strict=True), 1):
        head, (batch, positions, channels) = case.parts[k - 1]["label_head_RFE"], run.out_BDC.shape
        size, noise_BDC = case.setting("group", None) or channels, case.noise(f"tangent {k}", run.out_BDC.shape[1:])
        signal, dhead, loss = np.zeros_like(run.out_BDC), np.zeros_like(head), 0.0
        for b, y in enumerate(case.y_B):
            flat_F = run.out_BDC[b].reshape(-1)
            error_N, own = softmax_error(flat_F @ head, y)
            loss += own / batch
            dhead += np.outer(flat_F, error_N) / batch
            for d in range(positions):
                for start in range(0, channels, size):
                    moved = np.zeros((positions, channels))
                    moved[d, start : start + size] = noise_BDC[b, d, start : start + size]
                    slope = error_N @ (head.T @ moved.reshape(-1))
                    signal[b] += slope * moved / batch
        layers.append(layer.backward(run, signal)[0] | {"label_head_RFE": dhead})
        losses[f"loss/layer{k}"] = loss
    return with_readout(case, layers, losses=losses)


def from_the_output(case: Case) -> Answer:
    """Ren et al. 2022: ``delta_l = D_l v_l t``, ``t`` the change of the output's loss along the noise of all layers.

    Each layer's noise is carried up by itself here, and the changes are added.
    """
    runs, layers = case.runs(), case.network.layers
    error_BN = case.answered(runs).error_BN
    noises = [case.noise(f"tangent {k}", run.out_BDC.shape[1:]) for k, run in enumerate(runs, 1)]
    slope_B = np.zeros(len(case.y_B))
    for start, noise in enumerate(noises):
        change = noise
        for layer, run in zip(layers[start + 1 :], runs[start + 1 :], strict=True):
            change = layer.tangent(run, change)
        for b in range(len(slope_B)):
            slope_B[b] += error_BN[b] @ (case.network.readout["weight_RFN"].T @ change[b].reshape(-1))
    found = []
    for layer, run, noise in zip(layers, runs, noises, strict=True):
        found.append(layer.backward(run, slope_B[:, None, None] * noise / len(slope_B))[0])
    return with_readout(case, found)


GROUPS = tuple((*network, f"--model.group={size}") for network, size in zip(NETWORKS, (2, 2, 3, 1, 2, 4), strict=True))
EQUATIONS = {
    "activity_perturbation": Equation(from_local_losses, variants=(*GROUPS, ("--model.group=null",))),
    "forward_gradient": Equation(from_the_output, variants=NETWORKS),
}

"""Oracles of the references: backpropagation and random features.

Shape suffixes: B batch, D position, C channel.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np

from equations.case import Answer, Case, Equation, State, with_readout

NETWORKS = (
    ("--model.network.bottleneck=3",),
    ("--model.network.normalise=true",),
    ("--model.network.activation=tanh",),
    ("--model.network=LocallyConnectedNetwork", "--model.network.width=5"),
    ("--model.network=LocallyConnectedNetwork", "--model.network.width=5", "--model.network.bottleneck=3"),
    ("--model.network=DenseNetwork", "--model.network.width=5"),
)
"""Networks on which an equation is tried beside that of its settings file."""


def backprop(case: Case) -> Answer:
    """``delta_l = D_l W_{l+1}^T delta_{l+1}`` from ``e = softmax(o) - y`` down; a mean over strings.

    ``tests/rules/test_equations.py`` compares it with finite differences of the cross-entropy.
    """
    return with_readout(case, [])


def adamw(case: Case, answer: Answer) -> State:
    """The first step of Adam with decoupled weight decay (Loshchilov, Hutter 2019): ``w - lr decay w - lr g / (|g| + eps)``."""
    settings = case.arguments["optimizer"]["init_args"]
    lr, decay = settings["lr"], settings["weight_decay"]
    parts = deepcopy(case.parts)
    for part, gradients in zip(parts, answer.gradients, strict=True):
        for name, gradient in gradients.items():
            part[name] = part[name] - lr * decay * part[name] - lr * gradient / (np.abs(gradient) + 1e-8)
    return State(parts, case.buffers)


def frozen(case: Case) -> Answer:
    """``dW_l = 0``: hidden layers say nothing, or all but the top one."""
    return with_readout(case, [{} for _ in case.network.layers[: -1 if case.setting("top_learns", False) else None]])


EQUATIONS = {
    "backprop": Equation(backprop, variants=(*NETWORKS, ("--model.clip=0.01",))),
    "backprop_bottleneck": Equation(backprop),
    "backprop_decay": Equation(backprop, adamw, own_optimizer=True),
    "frozen": Equation(frozen, variants=(("--data.label_size=16",), ("--data.labels=false",))),
    "frozen_below_top": Equation(frozen, variants=(("--data.label_size=16",), ("--data.labels=false",))),
}

"""The oracle of gradient-aligned projected error.

Shape suffixes: N classes, F all channels of a layer.
"""

from __future__ import annotations

import numpy as np

from equations.case import Answer, Case, Equation, State, descend, with_readout
from equations.feedback import DIRECT, direct, error_of, forward_dfa
from equations.network import Array, numeric_gradient


def cosine(feedback_NF: Array, jacobian_NF: Array) -> float:
    """Of two matrices as vectors of all their entries."""
    product = sum(float(b @ j) for b, j in zip(feedback_NF, jacobian_NF, strict=True))
    return product / float(np.sqrt((feedback_NF**2).sum()) * np.sqrt((jacobian_NF**2).sum()))


def turned(case: Case, estimates: dict[str, Array], k: int) -> Array:
    """``B_k`` after a step against ``1 - cos(B, J)``, whose gradient is taken by finite differences, times ``|B|^2``; its norm is kept."""
    feedback, jacobian = case.buffers[f"feedback_{k}"].copy(), estimates[f"feedback_{k}"]
    slope = numeric_gradient(lambda: 1 - cosine(feedback, jacobian), {"feedback": feedback})["feedback"]
    power = (feedback**2).sum()
    moved = feedback - case.setting("rate", 0.02) * power * slope
    return moved * np.sqrt(power / (moved**2).sum())


def grape(case: Case) -> Answer:
    """Caillon et al. 2026: ``delta_l = D_l B_l e`` with ``B_l`` turned towards the batch's mean of rank-1 Jacobians."""
    estimates = forward_dfa(case).estimates
    return with_readout(case, direct(case, error_of(case), lambda k: turned(case, estimates, k)), estimates)


def after(case: Case, answer: Answer) -> State:
    """Gradient descent, and the turned matrices."""
    state = descend(case, Answer(answer.gradients))
    for name in answer.estimates:
        state.buffers[name] = turned(case, answer.estimates, int(name.removeprefix("feedback_")))
    return state


EQUATIONS = {"grape": Equation(grape, after, variants=(*DIRECT, ("--model.rate=0.3",)), rtol=1e-6)}

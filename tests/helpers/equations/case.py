"""What an oracle is given and what it answers: numbers of one replica, without torch.

Shape suffixes: B batch, D position.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from equations.network import Answered, Array, Parameters, PlainNetwork, Run

LEARNING_RATE = 0.1
"""Of the one step of plain gradient descent whose end state is checked."""


@dataclass
class Case:
    """One step of one replica.

    Attributes:
        network: layers and readout; they share their arrays with ``parts``.
        parts: parameters of the layers and, last, of the readout, by name: all of them, heads and feedback too.
        buffers: of the whole rule, by their full names, such as ``feedback_1`` or ``network.layers.0.code.codes_RST``.
        x_BD, y_B, view_BD: tokens, classes, and tokens of the partners or None.
        key_B: 64 random bits of each string.
        weight_B: what each string counts in losses on labels.
        arguments: the constructor's arguments as the settings file and the command line give them; see :meth:`setting`.
        noise: the rule's own random numbers: a name and a shape give ``[B, *shape]``; they are inputs of an equation.
        keys: the rule's own keys, ``rule.keys_R`` of one replica as an int.
        labels: whether there are labels to train the readout with.
        pairs: the name of the pair scheme and, of synonyms, its level; None without pairs.
        half_BD: which positions the first of two copies of each string shows, and the second hides; None without copies.
    """

    network: PlainNetwork
    parts: list[Parameters]
    buffers: dict[str, Array]
    x_BD: Array
    y_B: Array
    view_BD: Array | None
    key_B: Array
    weight_B: Array
    arguments: dict[str, Any]
    noise: Callable[[str, tuple[int, ...]], Array]
    keys: Callable[..., int]
    labels: bool = True
    pairs: tuple[str, int | None] | None = None
    half_BD: Array | None = None

    def setting(self, name: str, default: Any) -> Any:
        """The rule's argument, or the value that its documentation names for it. ``block.head`` looks into a block."""
        value: Any = self.arguments
        for key in name.split("."):
            if key not in value:
                return default
            value = value[key]
        return value

    @property
    def depth(self) -> int:
        return len(self.network.layers)

    def runs(self) -> list[Run]:
        """The layers' runs for the batch's strings."""
        return self.network.forward(self.x_BD)

    def answered(self, runs: list[Run]) -> Answered:
        """The readout's answer to the strings."""
        return self.network.answer(runs[-1].out_BDC, self.y_B)


@dataclass
class Answer:
    """What a rule must say.

    Attributes:
        gradients: of every part by parameter name; an empty dict for a part that does not learn.
        estimates: the batch's value for each tracked buffer, by the buffer's name.
        losses: for the loggers.
    """

    gradients: list[Parameters]
    estimates: dict[str, Array] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)


@dataclass
class State:
    """Parameters of all parts and buffers of the rule after a step."""

    parts: list[Parameters]
    buffers: dict[str, Array]


def with_readout(
    case: Case, layers: list[Parameters], estimates: dict[str, Array] | None = None, losses: dict[str, float] | None = None
) -> Answer:
    """An answer with what all rules say: layers above the rule's own, and the readout, learn from the readout's loss."""
    runs = case.runs()
    answered = case.answered(runs)
    error, loss = answered.error_BN * case.weight_B[:, None], answered.loss_B * case.weight_B
    upper = case.network.backpropagate(runs, error, down_to=len(layers))
    readout = case.network.readout_gradients(runs[-1].out_BDC, error)
    if not case.labels:
        upper, readout = [{} for _ in upper], {}
    return Answer([*layers, *upper, readout], estimates or {}, {**(losses or {}), "loss/readout": float(loss.mean())})


def descend(case: Case, answer: Answer, rate: float = 0.0) -> State:
    """The state after one step of plain gradient descent, the default of :class:`Equation`.

    Args:
        case: with ``model.clip``, a part's gradient has at most that norm.
        answer: what the rule said.
        rate: step of the tracked buffers towards the batch's estimates.
    """
    parts, buffers = deepcopy(case.parts), deepcopy(case.buffers)
    clip = case.setting("clip", None)
    for part, gradients in zip(parts, answer.gradients, strict=True):
        norm = math.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        scale = 1 if clip is None or norm <= clip else clip / norm
        for name, gradient in gradients.items():
            part[name] -= LEARNING_RATE * scale * gradient
    for name, estimate in answer.estimates.items():
        buffers[name] += rate * (estimate - buffers[name])
    return State(parts, buffers)


@dataclass(frozen=True)
class Equation:
    """The oracle of a settings file.

    Attributes:
        says: what the rule must say of a case.
        after: the state after one step of gradient descent.
        variants: further arguments on the command line under which ``says`` and ``after`` hold.
        rtol: of gradients, estimates, losses and states; above 1e-9 only where the oracle takes finite differences.
        small: arguments of all its cases, the one without further arguments too: sizes that keep finite differences few.
        own_optimizer: the step is the settings file's own optimizer's, not that of plain gradient descent.
    """

    says: Callable[[Case], Answer]
    after: Callable[[Case, Answer], State] = descend
    variants: tuple[tuple[str, ...], ...] = ()
    rtol: float = 1e-9
    own_optimizer: bool = False
    small: tuple[str, ...] = ()


def zeros_like(parameters: Parameters) -> Parameters:
    """A gradient of nothing."""
    return {name: np.zeros_like(array) for name, array in parameters.items()}

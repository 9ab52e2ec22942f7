"""Goodness instead of a backward pass: Forward-Forward.

Shape suffixes: R replica, B batch, D position, C channel; G groups of positions, M rows, E units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules import Batch
from networks import LayerState, LayerUpdate
from rhm import InvalidInput
from rhm.hashing import below, fold
from rules.base.contract import Locality, Step, Updates, add
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.maths.goodness import goodness, goodness_signal


class ForwardForward(LocalRule):
    """Forward-Forward (Hinton 2022): units are to be active for a string with its class, and silent for one with another class.

    ``softplus(-c (G+ - t)) + softplus(c (G- - t))``, ``G = mean h^2`` of the layer's units, at all positions together or at
    each, so that ``t = 1`` is Hinton's threshold, the number of units, for the sum of squares, and his slope ``c`` is that
    number. ``dW = -dLoss/dG 2 h phi'(a) x^T / E``. The class is shown in the input's label slot, at every position; the
    negative class is drawn anew for every string. Layers hand on normalised units, so that the goodness of one layer is not
    that of the layer below.

    The answer to a string is the class with which the goodness of all layers but the first is largest (his section 3.3), or the
    readout's, which, as the probes, sees the string without a class and learns by its own error.

    Hinton's code sends the gradient through units that are off, too; here the mask is kept, as in the text.

    Tried, by goodness of all positions together, at 1,408 and 5,632 strings, L = 3: rates 3e-3 (.44 and .56), 1e-2 (.49 and
    .71) and 2e-2 (.47 and .71), all falling, and there a slope of 24 (.43 and .56).

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`; the network needs ``label_slot`` and
            ``normalise``.
        threshold: ``t``.
        slope: ``c``.
        whole_layer: whether a layer has one goodness for all positions.
        answer: ``goodness`` or ``readout``.

    Raises:
        InvalidInput: ``threshold`` or ``slope`` not above 0; an unknown answer; a network without a label slot, without
            normalisation or with a bottleneck; a task of one class, which has no wrong one; goodness as the answer of a
            single layer.
    """

    family = "supervised layerwise"
    source = "Hinton 2022, arXiv 2212.13345"
    knowledge = "labels"
    locality = Locality(lateral=True, label=True)
    uses_label_slot = True

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        threshold: float = 1.0,
        slope: float = 8.0,
        whole_layer: bool = True,
        answer: str = "goodness",
    ):
        super().__init__(network, optimizer, clip)
        for key, value in ("threshold", threshold), ("slope", slope):
            if value <= 0:
                raise InvalidInput(f"model.{key}", value, "a number above 0")
        if answer not in ("goodness", "readout"):
            raise InvalidInput("model.answer", answer, "goodness or readout")
        self.threshold, self.slope, self.whole_layer, self.answer = threshold, slope, whole_layer, answer

    def build(self) -> None:
        if not self.network_config.label_slot:
            raise InvalidInput("model.network.label_slot", False, "true for ForwardForward, which shows the class in the input")
        if self.network_config.bottleneck is not None:
            raise InvalidInput("model.network.bottleneck", self.network_config.bottleneck, "null for ForwardForward")
        if self.data.task.n < 2:
            raise InvalidInput("data.n", self.data.task.n, "at least 2 for ForwardForward, which shows a wrong class")
        if not self.network_config.normalise:
            raise InvalidInput("model.network.normalise", False, "true for ForwardForward: goodness must not be handed on")
        if self.answer == "goodness" and len(self.network) < 2:
            raise InvalidInput("model.answer", "goodness", "readout for a network of one layer: the first is left out")

    def compute(self, batch: Batch) -> Step:
        """The states of the string without a class; as views those with its class and, after them, with another."""
        assert batch.key_RB is not None
        n, size = self.data.task.n, batch.x_RBD.shape[1]
        y_RB = batch.y_RB.long()
        wrong_RB = (y_RB + 1 + below(fold(batch.key_RB, "wrong class"), n - 1)) % n
        inputs = [self.network.encode(batch.x_RBD, label) for label in (None, y_RB, wrong_RB)]
        halves = zip(
            *(
                layer.split(state, size)
                for layer, state in zip(self.network.layers, self.network.forward_from(0, torch.cat(inputs, 1)), strict=True)
            ),
            strict=True,
        )
        states, views = (list(half) for half in halves)
        return Step(batch, states, views, self.readout(states[-1].out_RBDC, batch.y_RB))

    def layer_updates(self, step: Step) -> Updates:
        assert step.view_states is not None
        updates, losses, size = [], {}, step.batch.x_RBD.shape[1]
        for k, (layer, both) in enumerate(zip(self.network.layers, step.view_states, strict=True), 1):
            update: LayerUpdate = {}
            loss_R = torch.zeros_like(step.readout.loss_RB[:, 0])
            for sign, state in zip((1.0, -1.0), layer.split(both, size), strict=True):
                units = layer.by_position(state.units_RGME, state)
                part_R, signal = goodness_signal(units.to(loss_R.dtype), self.threshold, sign, self.slope, self.whole_layer)
                loss_R = loss_R + part_R
                delta = layer.activation.masked(layer.by_group(signal).to(state.pre_RGME.dtype), state.pre_RGME)
                add(update, layer.hebbian(state, delta))
            updates.append(update)
            losses[f"loss/layer{k}"] = loss_R
        return Updates(updates, losses=losses)

    def answers(self, batch: Batch, states: list[LayerState]) -> Tensor:
        if self.answer == "readout":
            return super().answers(batch, states)
        found = []
        for label in range(self.data.task.n):
            shown = self.network(batch.x_RBD, torch.full_like(batch.y_RB, label))
            found.append(torch.stack([self._goodness(k, state) for k, state in enumerate(shown[1:], 2)]).sum(0))
        return torch.stack(found, -1)

    def _goodness(self, k: int, state: LayerState) -> Tensor:
        """Of layer ``k`` from 1 as a whole, ``[R, B]``."""
        return goodness(self.network.layers[k - 1].by_position(state.units_RGME, state)).mean(2)

"""Goodness instead of a backward pass: Forward-Forward.

Shape suffixes: R replica, B batch, D position, C channel; G groups of positions, M rows, E units.
"""

from __future__ import annotations

import torch

from datamodules import Batch
from networks import LayerUpdate
from rhm import InvalidInput
from rhm.hashing import below, fold
from rules.base.contract import Locality, Step, Updates, add
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.maths.goodness import goodness_signal


class ForwardForward(LocalRule):
    """Forward-Forward (Hinton 2022): units are to be active for a string with its class, and silent for one with another class.

    ``softplus(-(G+ - t)) + softplus(G- - t)``, ``G = mean h^2`` of a position's units, so that ``t = 1`` is Hinton's threshold,
    the number of units, for the sum of squares; his slope is steeper by that number. ``dW = -dLoss/dG 2 h phi'(a) x^T / E``.
    The class is shown in the input's label slot, at every position; the negative class is drawn anew for every string. Layers
    hand on normalised units, so that the goodness of one layer is not that of the layer below. The readout and the probes see
    the string without a class.

    Hinton's code sends the gradient through units that are off, too; here the mask is kept, as in the text.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`; the network needs ``label_slot`` and
        ``normalise``.
        threshold: ``t``.

    Raises:
        InvalidInput: ``threshold`` not above 0; a network without a label slot, without normalisation or with a bottleneck; a
            task of one class, which has no wrong one.
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
    ):
        super().__init__(network, optimizer, clip)
        if threshold <= 0:
            raise InvalidInput("model.threshold", threshold, "a number above 0")
        self.threshold = threshold

    def build(self) -> None:
        if not self.network_config.label_slot:
            raise InvalidInput("model.network.label_slot", False, "true for ForwardForward, which shows the class in the input")
        if self.network_config.bottleneck is not None:
            raise InvalidInput("model.network.bottleneck", self.network_config.bottleneck, "null for ForwardForward")
        if self.data.task.n < 2:
            raise InvalidInput("data.n", self.data.task.n, "at least 2 for ForwardForward, which shows a wrong class")
        if not self.network_config.normalise:
            raise InvalidInput("model.network.normalise", False, "true for ForwardForward: goodness must not be handed on")

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
                part_R, signal = goodness_signal(units.to(loss_R.dtype), self.threshold, sign)
                loss_R = loss_R + part_R
                delta = layer.activation.masked(layer.by_group(signal).to(state.pre_RGME.dtype), state.pre_RGME)
                add(update, layer.hebbian(state, delta))
            updates.append(update)
            losses[f"loss/layer{k}"] = loss_R
        return Updates(updates, losses=losses)

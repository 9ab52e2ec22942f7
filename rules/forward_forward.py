"""Goodness instead of a backward pass: Forward-Forward, and its self-contrastive form without labels.

Shape suffixes: R replica, B batch, D position, C channel; G groups of positions, N rows, E units.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor
from torch.nn import functional

from datamodules import Batch
from networks import Layer, LayerState, LayerUpdate
from rhm import InvalidInput
from rhm.hashing import below, fold
from rules.layerwise import Block, LayerwiseRule, Pair, PairGradient, add
from rules.local_rule import Locality, LocalRule, NetworkConfig, OptimizerCallable, Step, default_network
from rules.losses import other_strings, scatter_strings


def goodness(units_RBDE: Tensor) -> Tensor:
    """Mean square of a position's units, ``[R, B, D]``: Hinton's sum of squares over the number of units."""
    return units_RBDE.square().mean(-1)


def goodness_signal(units_RBDE: Tensor, threshold: float, sign: float) -> tuple[Tensor, Tensor]:
    """``softplus(-sign (G - threshold))`` as a mean over strings and positions, ``[R]``, and its gradient by the units."""
    excess = sign * (goodness(units_RBDE) - threshold)
    strings, positions, units = units_RBDE.shape[1:]
    slope = -sign * torch.sigmoid(-excess) * 2 / (units * strings * positions)
    return functional.softplus(-excess).mean((1, 2)), slope[..., None] * units_RBDE


class ForwardForward(LocalRule):
    """Forward-Forward (Hinton 2022): units are to be active for a string with its class, and silent for one with another class.

    ``softplus(-(G+ - t)) + softplus(G- - t)``, ``G = mean h^2`` of a position's units, so that ``t = 1`` is Hinton's
    threshold, the number of units, for the sum of squares; his slope is steeper by that number. ``dW = -dLoss/dG 2 h phi'(a)
    x^T / E``. The class is shown in the
    input's label slot, at every position; the negative class is drawn anew for every string. Layers hand on normalised units,
    so that the goodness of one layer is not that of the layer below. The readout and the probes see the string without a class.

    Hinton's code sends the gradient through units that are off, too; here the mask is kept, as in the text.

    Args:
        network, optimizer, clip: see :class:`rules.local_rule.LocalRule`; the network needs ``label_slot`` and ``normalise``.
        threshold: ``t``.

    Raises:
        InvalidInput: ``threshold`` not above 0; a network without a label slot, without normalisation or with a bottleneck; a
            task of one class, which has no wrong one.
    """

    family = "supervised layerwise"
    source = "Hinton 2022, arXiv 2212.13345"
    knowledge = "labels"
    locality = Locality(label=True)
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

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        assert step.view_states is not None
        updates, size = [], step.batch.x_RBD.shape[1]
        for k, (layer, both) in enumerate(zip(self.network.layers, step.view_states, strict=True), 1):
            update: LayerUpdate = {}
            loss_R = torch.zeros_like(step.readout.loss_RB[:, 0])
            for sign, state in zip((1.0, -1.0), layer.split(both, size), strict=True):
                units = layer.by_position(state.units_RGNE, state)
                part_R, signal = goodness_signal(units.to(loss_R.dtype), self.threshold, sign)
                loss_R = loss_R + part_R
                delta = layer.activation.masked(layer.by_group(signal).to(state.pre_RGNE.dtype), state.pre_RGNE)
                for name, grad in layer.hebbian(state, delta).items():
                    update[name] = update[name] + grad if name in update else grad
            updates.append(update)
            self.step_metrics[f"loss/layer{k}"] = loss_R
        return updates


class SelfContrastiveForwardForward(LayerwiseRule):
    """Self-contrastive Forward-Forward (Chen et al. 2025): goodness of a pair above, of two strings below a threshold.

    A layer sees two inputs at once, ``a = W x1 + W x2 + b``. Positive: the two sides of a pair; negative: the first side and
    another string's second. ``softplus(t_pos - G+) + softplus(G- - t_neg)`` with ``G`` the mean of ``phi(a)^2``, for siblings
    over the units of a position, for two strings over those of all positions. The other string is drawn anew in every step and
    may be of the same class.

    Where this and the authors' code differ: their positive is a string with itself; they add the bias with each input; they
    add a small penalty on ``G+``; and their thresholds are lower for positives than for negatives (0 and 1 up to 6 and 10).
    Their layers hand on normalised units, as the network's ``normalise`` does; without it a layer has the goodness of the one
    below. With ``HalfPairs`` the two inputs are one string seen through two sets of weights.

    Args:
        network, optimizer, clip, block: see :class:`rules.layerwise.LayerwiseRule`; a head is not used, nor a bottleneck.
        positive_threshold, negative_threshold: ``t_pos`` and ``t_neg``.

    Raises:
        InvalidInput: a block other than the default; a network with a bottleneck; a batch of one string, which has no other.
    """

    source = "Chen et al. 2025, arXiv 2409.11593"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(),
        positive_threshold: float = 1.0,
        negative_threshold: float = 1.0,
    ):
        super().__init__(network, optimizer, clip, block)
        for part in fields(Block):
            if (value := getattr(block, part.name)) != part.default:
                allowed = f"{part.default} with SelfContrastiveForwardForward, whose loss is on the units themselves"
                raise InvalidInput(f"model.block.{part.name}", value, allowed)
        self.thresholds = positive_threshold, negative_threshold

    def build(self) -> None:
        super().build()
        if self.network_config.bottleneck is not None:
            key = "model.network.bottleneck"
            raise InvalidInput(key, self.network_config.bottleneck, "null for SelfContrastiveForwardForward")

    def pair_loss(self, pair: Pair) -> Tensor:
        return self.pair_gradient(pair).loss_R

    def pair_gradient(self, pair: Pair) -> PairGradient:
        """For sides that are pre-activations: the loss and its gradients by them."""
        activation = self.network.layers[pair.k - 1].activation
        shift_R = pair.shift_R()
        loss_R, deltas = torch.zeros_like(pair.z1_RBDC[:, 0, 0, 0]), []
        partners = pair.z2_RBDC, other_strings(pair.z2_RBDC, shift_R)
        for sign, partner, threshold in zip((1.0, -1.0), partners, self.thresholds, strict=True):
            a = pair.z1_RBDC + partner
            part_R, signal = goodness_signal(activation.phi(a), threshold, sign)
            loss_R = loss_R + part_R
            deltas.append(activation.masked(signal, a))
        return PairGradient(loss_R, deltas[0] + deltas[1], deltas[0] + scatter_strings(deltas[1], shift_R), {})

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        updates = []
        activity = self._activity(step, [(k, "head") for k in range(1, self.trained_layers + 1)])
        for k, layer in enumerate(self.network.layers[: self.trained_layers], 1):
            signals, _ = self._signals(step, k, "head", activity)
            update: LayerUpdate = {}
            for state, signal in zip(self._states(step, k), signals, strict=True):
                add(update, layer.hebbian(state, layer.by_group(signal)))
            update["bias_RG1E"] = update["bias_RG1E"] / 2  # a pair has the bias once
            updates.append(update)
        return updates

    def end_to_end(self, step: Step) -> list[LayerUpdate]:
        top, layer = self.trained_layers, self.network.layers[self.trained_layers - 1]
        deltas = [layer.by_group(signal) for signal in self._top_signals(step)[0]]
        update: LayerUpdate = {}
        for state, delta in zip(self._states(step, top), deltas, strict=True):
            add(update, layer.hebbian(state, delta))
        update["bias_RG1E"] = update["bias_RG1E"] / 2
        return [*self._below(step, top, deltas), update]

    def seen(self, layer: Layer, state: LayerState, name: str) -> Tensor:
        """Pre-activations ``[R, B, D, E]`` with half the bias, so that two of them have it once."""
        return layer.by_position(state.pre_RGNE - layer.bias_RG1E / 2, state)

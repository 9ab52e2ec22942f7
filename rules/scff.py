"""Self-contrastive Forward-Forward: goodness of pairs, without labels.

Shape suffixes: R replica, B batch, D position or pair of a string, C channel; G groups of positions, M rows, E units.
"""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from networks import Layer, LayerState, LayerUpdate
from rhm import InvalidInput
from rules.base.block import Block
from rules.base.layerwise import LayerwiseRule
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.base.pair import Pair, PairGradient
from rules.maths.goodness import goodness_signal
from rules.maths.losses import other_strings, scatter_strings


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
        network, optimizer, clip, block: see :class:`rules.base.layerwise.LayerwiseRule`; a head is not used, nor a bottleneck.
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

    def seen(self, layer: Layer, state: LayerState, name: str) -> Tensor:
        """Pre-activations ``[R, B, D, E]`` with half the bias, so that two of them have it once."""
        return layer.by_position(state.pre_RGME - layer.bias_RG1E / 2, state)

    def learn(self, layer: Layer, state: LayerState, signal_RBDC: Tensor) -> tuple[LayerUpdate, Tensor]:
        """The signal is one at pre-activations; a pair has the bias once."""
        delta = layer.by_group(signal_RBDC)
        update = layer.hebbian(state, delta)
        return update | {"bias_RG1E": update["bias_RG1E"] / 2}, delta

"""Self-contrastive Forward-Forward: goodness of pairs, without labels.

Shape suffixes: R replica, B batch, D position or pair of a string, C channel; G groups of positions, M rows, E units.
"""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from networks import MOMENTUM, Layer, LayerState, LayerUpdate, moments
from rhm import InvalidInput
from rules.base.block import Block
from rules.base.contract import Step, Updates
from rules.base.layerwise import LayerwiseRule
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.base.pair import Pair, PairGradient
from rules.maths.goodness import goodness_signal
from rules.maths.losses import other_strings, scatter_strings


class SelfContrastiveForwardForward(LayerwiseRule):
    """Self-contrastive Forward-Forward (Chen et al. 2025): goodness of a pair above, of two strings below a threshold.

    A layer sees two inputs at once, ``a = W x1 + W x2 + 2 b``. Positive: the two sides of a pair; negative: the first side and
    another string's second. ``softplus(t_pos - G+) + softplus(G- - t_neg)`` with ``G`` the mean of ``relu(a)^2``, for siblings
    over the units of a position, for two strings over those of all positions. The other string is drawn anew in every step and
    may be of the same class.

    The authors' pairs are ``SelfPairs``, ``(x, x)`` against ``(x, x')``, and their public code has one ``W`` for both halves
    (of the paper's text no more than the abstract was at hand). With two, ``W1`` and ``W2``, the loss would depend on
    ``W1 - W2`` through ``G-`` alone, be convex in it, and least at 0, as ``x`` and ``x'`` may change places. Siblings may not:
    left and right have weights of their own in a :class:`networks.SiblingNetwork`, which tells ``(A, B)`` from ``(B, A)``.

    Where this and the authors' code differ: they standardise each string's input to a layer, where
    :class:`networks.CompetitiveNetwork`, which has their triangle activation too, standardises channels, and ``normalise``
    hands on units of one length (without either a layer has the goodness of the one below); they add a small penalty on
    ``G+``; their thresholds are lower for positives than for negatives (0 and 1 up to 6 and 10); they train layer after layer.

    Which of these is ahead is in docs/rules-at-their-best.md: siblings with weights of their own, by far. The authors' pairs
    with shared weights are at the level of random layers with normalised units, and above it with competitive layers, but
    behind siblings, above which the top layer learns from labels.

    Args:
        network, optimizer, clip, block: see :class:`rules.base.layerwise.LayerwiseRule`; a head is not used, nor a bottleneck.
        positive_threshold, negative_threshold: ``t_pos`` and ``t_neg``.

    Raises:
        InvalidInput: a block other than the default; a network with a bottleneck; a batch of one string, which has no other.
    """

    source = "Chen et al. 2025, arXiv 2409.11593"
    takes_competition = True

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
        self.rate = MOMENTUM

    def build(self) -> None:
        super().build()
        if self.network_config.bottleneck is not None:
            key = "model.network.bottleneck"
            raise InvalidInput(key, self.network_config.bottleneck, "null for SelfContrastiveForwardForward")

    def pair_loss(self, pair: Pair) -> Tensor:
        return self.pair_gradient(pair).loss_R

    def pair_gradient(self, pair: Pair) -> PairGradient:
        """For sides that are pre-activations: the loss and its gradients by them."""
        shift_R = pair.shift_R()
        loss_R, deltas = torch.zeros_like(pair.z1_RBDC[:, 0, 0, 0]), []
        partners = pair.z2_RBDC, other_strings(pair.z2_RBDC, shift_R)
        for sign, partner, threshold in zip((1.0, -1.0), partners, self.thresholds, strict=True):
            part_R, delta = goodness_signal((pair.z1_RBDC + partner).relu(), threshold, sign)
            loss_R = loss_R + part_R
            deltas.append(delta)
        return PairGradient(loss_R, deltas[0] + deltas[1], deltas[0] + scatter_strings(deltas[1], shift_R), {})

    def seen(self, layer: Layer, state: LayerState, name: str) -> Tensor:
        """Pre-activations ``[R, B, D, E]``."""
        return layer.by_position(state.pre_RGME, state)

    def learn(self, layer: Layer, state: LayerState, signal_RBDC: Tensor) -> tuple[LayerUpdate, Tensor]:
        """The signal is one at pre-activations."""
        delta = layer.by_group(signal_RBDC)
        return layer.hebbian(state, delta), delta

    def layer_updates(self, step: Step) -> Updates:
        return replace(super().layer_updates(step), estimates=moments(self.network.layers, step.states))

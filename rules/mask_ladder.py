"""One rule that takes backpropagation apart: which masks are in the way down, and which matrices.

Shape suffixes: R replica, B batch, D position, C channel, N classes; G groups of positions, N rows, E units.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from networks import Layer, LayerState, LayerUpdate
from rhm import InvalidInput
from rules.feedback import broadcast_error, random_feedback
from rules.feedback_alignment import random_like
from rules.local_rule import Locality, LocalRule, NetworkConfig, OptimizerCallable, Step, default_network

MASKS = ("exact", "batch_mean", "other_string", "constant", "none")
FEEDBACK = ("transposed", "random", "direct")


class MaskLadder(LocalRule):
    """Error feedback with the masks ``D_k`` of the layers above a layer replaced, and the weights that carry it down.

    ``delta_l = D_l F_{l+1} M_{l+1} F_{l+2} ... F_out e``, from backpropagation to direct feedback alignment in eight rungs:

    ==== ============ ========== ==============================================================
    rung masks        feedback
    ==== ============ ========== ==============================================================
    1    exact        transposed backpropagation
    2    batch_mean   transposed each ``D_k`` is its mean over the batch
    3    other_string transposed each ``D_k`` is another string's
    4    constant     transposed direct linear feedback with the true weights
    5    constant     random     direct feedback through a fixed product of random matrices
    6    exact        random     feedback alignment
    7    constant     direct     direct feedback alignment
    8    none         direct     the same without the layer's own mask
    ==== ============ ========== ==============================================================

    Rungs 1 to 4, and 6 and 5, differ in masks alone; 1 and 6, and 4 and 5, in weights alone. The constant is 1/2 with relu,
    the share of units that are on at the start, and 1 otherwise. The layer's own mask is kept in all rungs but the last.

    Fixed: ``random`` and ``direct`` matrices. Batch means and other strings' masks are activity of other strings of the batch.

    Args:
        network, optimizer, clip: see :class:`rules.local_rule.LocalRule`.
        masks: ``exact``, ``batch_mean``, ``other_string``, ``constant`` or ``none``.
        feedback: ``transposed`` (the true weights), ``random`` (one matrix in place of each weight) or ``direct`` (one a
            layer).

    Raises:
        InvalidInput: unknown names; ``direct`` with masks that it has not, ``none`` without ``direct``; a network that
            normalises what
            layers hand on, which is an input-specific mask of its own.
    """

    family = "feedback"
    source = "Delrocq et al. 2026, arXiv 2605.18557 (the question); this suite (the ladder)"
    knowledge = "labels"
    locality = Locality(label=True, output_error=True, other_layers=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        masks: str = "constant",
        feedback: str = "transposed",
    ):
        super().__init__(network, optimizer, clip)
        if masks not in MASKS:
            raise InvalidInput("model.masks", masks, f"one of {', '.join(MASKS)}")
        if feedback not in FEEDBACK:
            raise InvalidInput("model.feedback", feedback, f"one of {', '.join(FEEDBACK)}")
        if feedback == "direct" and masks not in ("constant", "none"):
            raise InvalidInput("model.masks", masks, "constant or none with model.feedback=direct, which passes no other layer")
        if masks == "none" and feedback != "direct":
            raise InvalidInput("model.masks", masks, "none only with model.feedback=direct")
        self.masks, self.path = masks, feedback
        others = masks in ("batch_mean", "other_string")
        self.locality = replace(self.locality, pair=others, other_layers=feedback != "direct")  # type: ignore[misc]

    def build(self) -> None:
        if any(layer.normalise for layer in self.network.layers):
            key = "normalise" if self.network_config.bottleneck is None else "bottleneck"
            got = self.network_config.bottleneck or True
            raise InvalidInput(f"model.network.{key}", got, "null or false for MaskLadder: normalisation is a mask of its own")
        for k, part in enumerate(self.parts[1:], 2):
            if self.path == "random":
                weight = part.get_parameter("weight_RGFE" if k <= len(self.network) else "weight_RFN")
                self.register_buffer(f"feedback_{k}", random_like(weight, self.keys_R(k)))
        if self.path == "direct":
            for k, layer in enumerate(self.network.layers, 1):
                sizes = self.data.task.n, self.network.positions[k - 1], layer.out_channels
                self.register_buffer(f"feedback_{k}", random_feedback(self.keys_R(k), *sizes))

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        top = len(self.network)
        updates: list[LayerUpdate] = []
        error = step.readout.error_RBN / step.readout.error_RBN.shape[1]
        out = step.states[-1].out_RBDC
        if self.path != "direct":
            signal = self.readout.hand_down(step.readout, out.shape, self._carrier(top + 1))
        for k in range(top, 0, -1):
            layer, state = self.network.layers[k - 1], step.states[k - 1]
            if self.path == "direct":
                signal = broadcast_error(error, self.get_buffer(f"feedback_{k}"), state.out_RBDC.shape).to(out.dtype)
            own = layer.by_group(signal)
            updates.insert(0, layer.hebbian(state, own if self.masks == "none" else own * layer.mask(state)))
            if k > 1 and self.path != "direct":
                signal = layer.hand_down(own * self._mask_above(layer, state), signal.shape[1], self._carrier(k))
        return updates

    def _carrier(self, k: int) -> Tensor | None:
        """What carries the signal in place of a part's weights; None for the weights themselves."""
        return None if self.path == "transposed" else self.get_buffer(f"feedback_{k}")

    def _mask_above(self, layer: Layer, state: LayerState) -> Tensor | float:
        """The mask of a layer as the layers below it get it, ``[R, G, N, E]``."""
        if self.masks == "constant":
            return 0.5 if self.network_config.activation == "relu" else 1.0
        mask = layer.mask(state)
        if self.masks == "exact":
            return mask
        mask_RBDE = layer.by_position(mask, state)
        other = mask_RBDE.mean(1, keepdim=True).expand_as(mask_RBDE) if self.masks == "batch_mean" else mask_RBDE.roll(1, 1)
        return layer.by_group(other)

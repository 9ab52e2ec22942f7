"""The mask ladder: from backpropagation to direct feedback in steps, each of which changes one thing.

Shape suffixes: R replica, B batch, D position, C channel, N classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from networks import LayerUpdate
from rhm import InvalidInput
from rules.base.contract import Locality, Step, Updates
from rules.base.layered_feedback import LayeredFeedback
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.maths.feedback import broadcast_error, random_feedback, random_like

MASKS = ("exact", "batch_mean", "other_string", "constant", "none")
FEEDBACK = ("transposed", "random", "direct")
DIRECT_MASKS = ("constant", "none")
RUNGS = (
    ("exact", "transposed"),
    ("batch_mean", "transposed"),
    ("other_string", "transposed"),
    ("constant", "transposed"),
    ("constant", "random"),
    ("exact", "random"),
    ("constant", "direct"),
    ("none", "direct"),
)
"""``masks`` and ``feedback`` of the ladder's rungs, from the first."""


class MaskLadder(LayeredFeedback):
    """``delta_l = D_l B_{l+1} M_{l+1} B_{l+2} ... M_L B_{L+1} e``: what do the masks on the way down do, and what the weights?

    ``D_l`` is the layer's own mask, always the string's own. ``M_k``, the masks of the layers above, are chosen by ``masks``,
    and the matrices ``B`` by ``feedback``; ``direct`` goes from the output to each layer through one random matrix,
    ``delta_l = D_l B_l e``.

    ==== ================ ============== =====================================================
    rung ``masks``        ``feedback``   is
    ==== ================ ============== =====================================================
    1    ``exact``        ``transposed`` backpropagation
    2    ``batch_mean``   ``transposed`` each ``D_k`` replaced by its mean over the batch
    3    ``other_string`` ``transposed`` each ``D_k`` replaced by another string's
    4    ``constant``     ``transposed`` linear feedback with the true weights
    5    ``constant``     ``random``     linear feedback through a product of random matrices
    6    ``exact``        ``random``     feedback alignment
    7    ``constant``     ``direct``     direct feedback alignment
    8    ``none``         ``direct``     direct feedback without the layer's own mask
    ==== ================ ============== =====================================================

    Rungs 1 to 4 and 6 to 5 isolate the masks; 1 to 6 and 4 to 5 the weights. ``batch_mean`` and ``random`` or ``other_string``
    and ``random`` are allowed too. The other string is the same for all layers, the batch's next one, at the same position.
    The constant is 1/2 for ReLU, 1 for linear units, and otherwise the layer's mean ``phi'`` over strings, positions and
    units; with direct feedback it would be one factor for each layer, and is left out.

    Fixed: random matrices, drawn as those of FA and DFA. The source paper names the masks but gives no such ladder in its
    abstract.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`; neither bottleneck nor normalised units,
            which are input-specific masks of their own.
        masks: of the layers above: ``exact``, ``batch_mean``, ``other_string``, ``constant``, or ``none``, which also drops
            the layer's own.
        feedback: ``transposed``, ``random`` or ``direct``.
        feedback_scale: of random matrices.

    Raises:
        InvalidInput: an unknown name; ``direct`` with masks that it does not meet; ``none`` without ``direct``; a network that
            normalises; ``feedback_scale`` not above 0.
    """

    source = "this project, after Delrocq et al. 2026, arXiv 2605.18557"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        masks: str = "constant",
        feedback: str = "transposed",
        feedback_scale: float = 1.0,
    ):
        super().__init__(network, optimizer, clip)
        if masks not in MASKS:
            raise InvalidInput("model.masks", masks, f"one of {', '.join(MASKS)}")
        if feedback not in FEEDBACK:
            raise InvalidInput("model.feedback", feedback, f"one of {', '.join(FEEDBACK)}")
        if feedback == "direct" and masks not in DIRECT_MASKS:
            raise InvalidInput("model.masks", masks, "constant or none with model.feedback=direct: it passes no layer above")
        if masks == "none" and feedback != "direct":
            raise InvalidInput("model.masks", masks, "none only with model.feedback=direct")
        if feedback_scale <= 0:
            raise InvalidInput("model.feedback_scale", feedback_scale, "a number above 0")
        if network.bottleneck is not None or network.normalise:
            key = "model.network.normalise" if network.bottleneck is None else "model.network.bottleneck"
            got = network.normalise if network.bottleneck is None else network.bottleneck
            raise InvalidInput(key, got, "none with MaskLadder: a normalisation is an input-specific mask of its own")
        self.masks, self.route, self.feedback_scale = masks, feedback, feedback_scale
        averaged = masks == "constant" and network.activation == "tanh" and feedback != "direct"
        self.locality = Locality(
            batch=masks in ("batch_mean", "other_string") or averaged,
            error=True,
            other_layers=feedback == "transposed" or (feedback == "random" and masks != "constant") or averaged,
        )

    @classmethod
    def beside(cls, rule: LocalRule, masks: str, feedback: str) -> MaskLadder:
        """A rung that looks at another rule's network and readout, which stay its own, to see what it would do with them."""
        rung = cls(rule.network_config, masks=masks, feedback=feedback)
        rung.stand_beside(rule)
        return rung

    def build(self) -> None:
        if self.route == "random":
            for k, name, matrix in self.carriers():
                feedback = random_like(matrix, self.keys_R(k, name)) * self.feedback_scale
                self.register_buffer(f"feedback_{k}_{name}", feedback)
        elif self.route == "direct":
            for k, layer in enumerate(self.network.layers, 1):
                sizes = self.data.task.n, self.network.positions[k - 1], layer.out_channels, self.feedback_scale
                self.register_buffer(f"feedback_{k}", random_feedback(self.keys_R("feedback", k), *sizes))

    def feedback(self, k: int, name: str) -> Tensor:
        if self.route == "transposed":
            return self.parts[k - 1].get_parameter(name)
        return self.get_buffer(f"feedback_{k}_{name}")

    def masks_on_the_way(self, step: Step) -> list[Tensor] | None:
        """``M_2 ... M_L``, which multiply ``[R, B, D, E]``; None where each string meets its own."""
        layers, states = self.network.layers[1:], step.states[1:]
        if self.masks == "exact":
            return None
        if self.masks == "constant" and self.network_config.activation == "relu":
            return [torch.tensor(0.5)] * len(layers)
        masks = [layer.by_position(layer.mask(state), state) for layer, state in zip(layers, states, strict=True)]
        if self.masks == "other_string":
            firsts, after = self.strings_of_all_ranks([mask[:, :1] for mask in masks]), (self.data.rank + 1) % self.data.world
            return [torch.cat([m[:, 1:], first[:, after, None]], 1) for m, first in zip(masks, firsts, strict=True)]
        over = 1 if self.masks == "batch_mean" else (1, 2, 3)
        return self.mean_over_ranks([mask.mean(over, keepdim=True) for mask in masks])

    def layer_updates(self, step: Step) -> Updates:
        if self.route == "direct":
            return Updates(self.direct_updates(step))
        descent = self.descend(step, self.masks_on_the_way(step))
        return Updates([update for _, _, _, update in descent][::-1])

    def feedback_and_weights(self) -> dict[str, tuple[Tensor, Tensor]]:
        if self.route != "direct":
            return super().feedback_and_weights()
        return {f"layer{k}": (self.get_buffer(f"feedback_{k}"), weights) for k, weights in enumerate(self.weight_products(), 1)}

    def direct_updates(self, step: Step) -> list[LayerUpdate]:
        """``B_l e`` at each layer, with its own mask or without."""
        error = step.readout.error_RBN / step.batch.y_RB.shape[1]
        updates = []
        for k, (layer, state) in enumerate(zip(self.network.layers, step.states, strict=True), 1):
            signal = broadcast_error(error, self.get_buffer(f"feedback_{k}"), state.out_RBDC.shape).to(state.out_RBDC.dtype)
            if self.masks == "none":
                updates.append(layer.hebbian(state, layer.by_group(signal)))
            else:
                updates.append(layer.backward(state, signal)[0])
        return updates

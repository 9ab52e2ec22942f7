"""CLAPP with a prediction matrix for each position and with context from the top layer.

Shape suffixes: R replica, B batch, D pair of a string, C channel, E channel of the top layer's output.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from rhm import InvalidInput
from rules.base.block import Block
from rules.base.contract import Locality, Step
from rules.base.layerwise import Activity, LayerwiseRule
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.base.pair import LossHead, Pair
from rules.maths.losses import hinge, other_strings, pair_scores

CONTEXTS = ("own", "top", "both")


class CLAPPPlusPlus(LayerwiseRule):
    """CLAPP++ (arXiv 2601.21683) at every layer: ``max(0, 1 - u+) + max(0, 1 + u-)`` with ``u = z^T B_d c``, ``B_d`` one for
    each position.

    Context ``c``: the other side of the pair at the layer itself (``own``), the output of the top layer that learns from
    pairs, at all its positions, which reaches every layer directly (``top``), or the sum of the two losses (``both``). The
    gradient stops in the top layer's output where it serves as context. A negative is the same position of another string,
    never the string itself.

    With ``top`` both sides of a pair are predicted, and the loss is the mean of the two; in the top layer itself the context is
    ``own``. Learned: the weights and ``B``, which belong to the layer. Read from secondary sources: pooling and the exact
    context of the paper are not known to us.

    Args:
        network, optimizer, clip, block: see :class:`rules.base.layerwise.LayerwiseRule`.
        context: ``own``, ``top`` or ``both``.

    Raises:
        InvalidInput: an unknown context; context from the top with units that have a loss of their own.
    """

    source = "arXiv 2601.21683"
    hinged = True
    locality = Locality(partner=True, batch=True, lateral=True, transport_within_layer=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(),
        context: str = "both",
    ):
        super().__init__(network, optimizer, clip, block)
        if context not in CONTEXTS:
            raise InvalidInput("model.context", context, f"one of {', '.join(CONTEXTS)}")
        self.context = context
        self.locality = replace(self.locality, other_layers=block.end_to_end or context != "own")

    def build_head(self, head: LossHead, k: int, channels: int) -> None:
        top = self.network.layers[self.trained_layers - 1]
        context = self.network.positions[self.trained_layers - 1] * top.out_channels
        pairs = self._pairs_of_a_string(k)
        if self._uses_own(k):
            self.add_matrix(head, "prediction_RDCC", k, (pairs, channels, channels), scale=1 / channels)
        if self._uses_top(k):
            scale = 1 / math.sqrt(channels * context)
            for name in "top_first_RDEC", "top_second_RDEC":
                self.add_matrix(head, name, k, (pairs, context, channels), scale=scale)

    def _pairs_of_a_string(self, k: int) -> int:
        layers, positions = self.network.layers, self.network.positions[k - 1]
        pairs = self.pairs.drawn(torch.zeros(1, dtype=torch.int64))
        probe = torch.zeros(1, 1, positions, layers[k - 1].out_channels)
        return pairs.positives(probe, probe, layers[k].patch if k < len(layers) else 1)[0].shape[2]

    def _uses_own(self, k: int) -> bool:
        return self.context != "top" or k == self.trained_layers

    def _uses_top(self, k: int) -> bool:
        return self.context != "own" and k < self.trained_layers

    def shown(self, step: Step, k: int, activity: Activity) -> tuple[Tensor, ...]:
        """The top layer's output where it is context, ``[R, B, E]``."""
        if not self._uses_top(k):
            return ()
        top = activity[self.trained_layers, "head"][0].flatten(2)
        return (top.float() if top.dtype == torch.bfloat16 else top,)

    def pair_loss(self, pair: Pair) -> Tensor:
        loss_R = torch.zeros_like(pair.z1_RBDC[:, 0, 0, 0])
        if self._uses_own(pair.k):
            context = torch.einsum("rbdc,rdce->rbde", pair.z1_RBDC, pair.head.get_parameter("prediction_RDCC"))
            loss_R = loss_R + self._hinges(pair, context, pair.z2_RBDC, "own")
        if self._uses_top(pair.k):
            top_RBE = pair.shown[0]
            for name, side in ("top_first_RDEC", pair.z1_RBDC), ("top_second_RDEC", pair.z2_RBDC):
                context = torch.einsum("rbe,rdec->rbdc", top_RBE, pair.head.get_parameter(name))
                loss_R = loss_R + self._hinges(pair, context, side, name) / 2
        return loss_R

    def scores(self, pair: Pair) -> Tensor:
        """Of the second side, with the context from the layer itself, or from the top where that is the only one."""
        if self._uses_own(pair.k):
            context = torch.einsum("rbdc,rdce->rbde", pair.z1_RBDC, pair.head.get_parameter("prediction_RDCC"))
        else:
            context = torch.einsum("rbe,rdec->rbdc", pair.shown[0], pair.head.get_parameter("top_second_RDEC"))
        return context.transpose(1, 2) @ pair.z2_RBDC.permute(0, 2, 3, 1)

    def _hinges(self, pair: Pair, context: Tensor, z: Tensor, name: str) -> Tensor:
        positive, negative = pair_scores(context, z), pair_scores(context, other_strings(z, pair.shift_R(name)))
        return (hinge(positive, 1) + hinge(negative, -1)).mean((1, 2))

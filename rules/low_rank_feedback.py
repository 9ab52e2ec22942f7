"""Feedback alignment through a few channels, which learn what to carry.

Shape suffixes: R replica, G groups of positions that share weights, F inputs, E units, N classes, K channels (the rank).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from networks import LayerUpdate
from rhm import InvalidInput
from rhm.hashing import normal
from rules.feedback_alignment import LayeredFeedback, root_mean_square
from rules.local_rule import NetworkConfig, OptimizerCallable, Step, default_network


class LowRankFeedback(LayeredFeedback):
    """Low-dimensional error feedback (Hanut, Kadmon 2025): feedback alignment with ``B = Q P`` of rank ``r``.

    ``P``, ``r`` rows, learns the main directions of the layer's own ``delta`` by Oja's rule,
    ``dP = eta (P delta delta^T - P delta delta^T P^T P)``, here of ``delta`` at unit length; ``Q`` gets the update of the
    weights as seen through ``P``, ``dQ = -eta h (P delta)^T - d Q``, so that ``Q`` tends to ``W^T P^T`` (Kolen and Pollack).

    Learned: ``P`` and ``Q``, from random starts. Not known: the decay of ``P`` (versions of the paper differ); we have none.

    Args:
        network, optimizer, clip, form: see :class:`rules.feedback_alignment.LayeredFeedback`.
        rank: ``r``.
        decay: ``d``, a step's, of ``Q`` and ``W``.

    Raises:
        InvalidInput: a rank under 1 or above the number of classes; ``decay`` outside [0, 1); a network with a bottleneck,
            whose
            feedback has a low rank already.
    """

    takes_vectors = False
    source = "Hanut, Kadmon 2025, arXiv 2502.20580"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        form: str = "explicit",
        rank: int = 4,
        decay: float = 1e-3,
    ):
        super().__init__(network, optimizer, clip, form)
        if not 0 <= decay < 1:
            raise InvalidInput("model.decay", decay, "a number in [0, 1)")
        self.rank, self.decay = rank, decay

    def build(self) -> None:
        if not 1 <= self.rank <= self.data.task.n:
            raise InvalidInput("model.rank", self.rank, f"an integer from 1 to the number of classes, {self.data.task.n}")
        if self.network_config.bottleneck is not None:
            raise InvalidInput("model.network.bottleneck", self.network_config.bottleneck, "null for LowRankFeedback")
        for k, name, matrix in self.carriers():
            groups, (inputs, units) = tuple(matrix.shape[1:-2]), matrix.shape[-2:]
            dtype, part = matrix.dtype, self.parts[k - 1]
            p = normal(self.keys_R(k, name, "P"), (*groups, self.rank, units)).to(dtype) / math.sqrt(units)
            q = normal(self.keys_R(k, name, "Q"), (*groups, inputs, self.rank)).to(dtype)
            part.register_parameter("channels_P", nn.Parameter(p))
            part.register_parameter("channels_Q", nn.Parameter(q * root_mean_square(matrix) * math.sqrt(units / self.rank)))

    def feedback(self, step: Step, k: int, name: str) -> Tensor:
        part = self.parts[k - 1]
        return part.get_parameter("channels_Q") @ part.get_parameter("channels_P")

    def updates(self, step: Step) -> list[LayerUpdate]:
        updates = super().updates(step)
        updates[-1] |= self._channels(len(self.parts), step.readout.error_RBN, updates[-1]["weight_RFN"])
        return updates

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        updates = super().layer_updates(step)
        for k in range(2, len(updates) + 1):
            updates[k - 1] |= self._channels(k, self.deltas[k - 1], updates[k - 1]["weight_RGFE"])
        return updates

    def _channels(self, k: int, delta: Tensor, weight_grad: Tensor) -> LayerUpdate:
        p = self.parts[k - 1].get_parameter("channels_P")
        direction = delta / delta.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        carried = direction @ p.mT  # rows by r
        oja = (carried.mT @ direction - carried.mT @ carried @ p) / delta.shape[-2]
        return {"channels_P": -oja, "channels_Q": weight_grad @ p.mT}

    @torch.no_grad()
    def after_step(self) -> None:
        for k, _, matrix in self.carriers():
            matrix.mul_(1 - self.decay)
            self.parts[k - 1].get_parameter("channels_Q").mul_(1 - self.decay)

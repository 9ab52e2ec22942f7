"""Mono-Forward: each layer's goodness for each class, which is also the answer.

Shape suffixes: R replica, B batch, D position, C channel, F all channels of a layer, E classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules import Batch
from networks import LayerState
from rhm import InvalidInput
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.local_cross_entropy import LocalCrossEntropy

ANSWERS = ("goodness", "readout")


class MonoForward(LocalCrossEntropy):
    """Mono-Forward (Gong, Li, Abdulla 2025): goodness ``G_l = M_l h_l`` of each class, and ``CE(G_l, y)`` at every layer.

    What a layer learns is that of a linear classifier on every layer, :class:`rules.local_cross_entropy.LocalCrossEntropy`, to
    the last bit; what is new is the answer, ``argmax sum_l G_l``, without a classifier on top. The readout learns beside it and
    is asked if ``answer`` says so, as the authors do by the last layer's goodness alone.

    Kind: a control (supervised layerwise).

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        answer: ``goodness`` or ``readout``.

    Raises:
        InvalidInput: another answer.
    """

    source = "Gong, Li, Abdulla 2025, arXiv 2501.09238"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        answer: str = "goodness",
    ):
        super().__init__(network, optimizer, clip)
        if answer not in ANSWERS:
            raise InvalidInput("model.answer", answer, "goodness or readout")
        self.answer = answer

    def goodness(self, states: list[LayerState]) -> Tensor:
        """``sum_l G_l`` of each class, ``[R, B, E]``."""
        heads = [layer.get_parameter("label_head_RFE") for layer in self.network.layers]
        found = [torch.bmm(state.out_RBDC.flatten(2).to(m.dtype), m) for state, m in zip(states, heads, strict=True)]
        return torch.stack(found).sum(0)

    def answers(self, batch: Batch, states: list[LayerState]) -> Tensor:
        return super().answers(batch, states) if self.answer == "readout" else self.goodness(states)

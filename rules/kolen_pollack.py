"""Kolen-Pollack learning: the feedback matrices learn with the weights and come to equal them.

Shape suffixes: R replica; the feedback matrices have those of the parameters that they stand for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from networks import LayerUpdate
from rhm import InvalidInput
from rules.base.contract import Step, Updates
from rules.base.layered_feedback import LayeredFeedback
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.maths.feedback import random_like


class KolenPollack(LayeredFeedback):
    """Kolen-Pollack learning (Kolen, Pollack 1994; Akrout et al. 2019): ``delta_l = D_l B_{l+1} delta_{l+1}``.

    ``W <- (1 - decay) (W + dW)`` and ``B <- (1 - decay) (B + dW^T)``: the same change for both, as both see the same
    presynaptic and postsynaptic factors, so that ``B - W^T`` shrinks by ``1 - decay`` at each step. Adam keeps this: equal
    gradients give equal changes.

    Random: ``B`` at the start. Learned: ``B``. Weights that carry no error down (those of the first layer) do not decay.
    The authors' public code runs with no decay at all, and then ``B - W^T`` stays as it was; the size of decay in the paper is
    not known to us.

    Args:
        network, optimizer, clip, form: see :class:`rules.base.layered_feedback.LayeredFeedback`.
        decay: of ``W`` and ``B``, each step.

    Raises:
        InvalidInput: ``decay`` not in [0, 1); an unknown form.
    """

    source = "Kolen, Pollack 1994; Akrout et al. 2019, arXiv 1904.05391"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        form: str = "explicit",
        decay: float = 1e-3,
    ):
        super().__init__(network, optimizer, clip, form)
        if not 0 <= decay < 1:
            raise InvalidInput("model.decay", decay, "a number in [0, 1)")
        self.decay = decay

    def build(self) -> None:
        for k, name, matrix in self.carriers():
            feedback = nn.Parameter(random_like(matrix, self.keys_R(k, name)))
            self.parts[k - 1].register_parameter(f"feedback_{name}", feedback)

    def feedback(self, k: int, name: str) -> Tensor:
        return self.parts[k - 1].get_parameter(f"feedback_{name}")

    def layer_updates(self, step: Step) -> Updates:
        updates = super().layer_updates(step).layers
        return Updates([with_feedback(layer, update) for layer, update in zip(self.network.layers, updates, strict=True)])

    def readout_update(self, step: Step) -> LayerUpdate:
        return with_feedback(self.readout, super().readout_update(step))

    @torch.no_grad()
    def after_step(self) -> None:
        for k, name, matrix in self.carriers():
            matrix.mul_(1 - self.decay)
            self.feedback(k, name).mul_(1 - self.decay)


def with_feedback(part: nn.Module, update: LayerUpdate) -> LayerUpdate:
    """A part's updates, and the same ones for the feedback matrices of its weights."""
    return update | {f"feedback_{name}": grad.clone() for name, grad in update.items() if hasattr(part, f"feedback_{name}")}

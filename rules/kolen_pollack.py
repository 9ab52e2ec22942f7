"""Feedback that learns to be the transposed weights because both get the same updates and forget how they began.

Shape suffixes: R replica; matrices have the shape of the parameter that they stand for.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from networks import LayerUpdate
from rhm import InvalidInput
from rules.feedback_alignment import LayeredFeedback, random_like
from rules.local_rule import NetworkConfig, OptimizerCallable, Step, default_network


class KolenPollack(LayeredFeedback):
    """Kolen and Pollack 1994, as in Akrout et al. 2019, eq. 16 and 17: feedback alignment with ``dB = dW`` and a common decay.

    ``W <- (1 - d) W + dW``, ``B <- (1 - d) B + dW``: their difference shrinks by ``1 - d`` a step, whatever ``dW`` is. Both are
    parameters of one optimizer, so that equal gradients make equal steps also in Adam.

    Learned: ``B``, from a random start. The authors' code runs with ``d = 0``, with which ``B`` never becomes ``W``.

    Args:
        network, optimizer, clip, form: see :class:`rules.feedback_alignment.LayeredFeedback`.
        decay: ``d``.

    Raises:
        InvalidInput: ``decay`` outside [0, 1); an unknown form.
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
            self.parts[k - 1].register_parameter(f"feedback_{name}", nn.Parameter(random_like(matrix, self.keys_R(k, name))))

    def feedback(self, step: Step, k: int, name: str) -> Tensor:
        return self.parts[k - 1].get_parameter(f"feedback_{name}")

    def updates(self, step: Step) -> list[LayerUpdate]:
        updates = super().updates(step)
        updates[-1]["feedback_weight_RFN"] = updates[-1]["weight_RFN"]
        return updates

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        updates = super().layer_updates(step)
        for k, name, _ in self.carriers()[:-1]:
            updates[k - 1][f"feedback_{name}"] = updates[k - 1][name]
        return updates

    @torch.no_grad()
    def after_step(self) -> None:
        for k, name, matrix in self.carriers():
            matrix.mul_(1 - self.decay)
            self.parts[k - 1].get_parameter(f"feedback_{name}").mul_(1 - self.decay)

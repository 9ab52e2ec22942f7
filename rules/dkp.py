"""Direct Kolen-Pollack: direct feedback whose matrices learn from the errors that they carry and the activity that they reach.

Shape suffixes: R replica, B batch, D position, C channel, N classes, F = D * C.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rhm import InvalidInput
from rules.base.contract import Locality, Step, Updates
from rules.base.direct_feedback import DirectFeedback
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.maths.feedback import error_correlation, random_feedback


class DirectKolenPollack(DirectFeedback):
    """Direct Kolen-Pollack (DKP, Webster et al. 2021): ``delta_l = D_l B_l e`` with learned ``B_l``.

    ``dB_l = -lr h_l e^T``, without the mask, and all weights and ``B_l`` decay by ``1 - decay`` after each step. In the layer
    below the readout it is what the readout's weights learn: there ``B - W^T`` shrinks by ``1 - decay``; in layers further
    down it is a heuristic. ``h_l`` is what the layer hands on.

    Random: ``B_l`` at the start. Learned: ``B_l``. Sources disagree: the authors' code has a decay of 1e-6 and Adam for ``B``
    but SGD for ``W``, which breaks the equality; their text has another term for AlexNet, which their code leaves out. Here
    one optimizer serves both.

    Args:
        network, optimizer, clip, form: see :class:`rules.base.direct_feedback.DirectFeedback`.
        feedback_scale: standard deviation of ``B_l`` at the start, times ``sqrt(n)``.
        decay: of ``W`` and ``B``, each step.

    Raises:
        InvalidInput: ``decay`` not in [0, 1); ``feedback_scale`` not above 0; an unknown form.
    """

    source = "Webster, Choi, Ahn 2021, Learning the Connections in Direct Feedback Alignment"
    locality = Locality(error=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        feedback_scale: float = 1.0,
        form: str = "explicit",
        decay: float = 1e-4,
    ):
        super().__init__(network, optimizer, clip, feedback_scale, form)
        if not 0 <= decay < 1:
            raise InvalidInput("model.decay", decay, "a number in [0, 1)")
        self.decay = decay

    def build(self) -> None:
        for k, layer in enumerate(self.network.layers, 1):
            sizes = self.data.task.n, self.network.positions[k - 1], layer.out_channels, self.feedback_scale
            layer.register_parameter("feedback_RNF", nn.Parameter(random_feedback(self.keys_R("feedback", k), *sizes)))

    def feedback(self, k: int) -> Tensor:
        return self.network.layers[k - 1].get_parameter("feedback_RNF")

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN

    def layer_updates(self, step: Step) -> Updates:
        updates = super().layer_updates(step)
        for update, state in zip(updates.layers, step.states, strict=True):
            update["feedback_RNF"] = error_correlation(step.readout.error_RBN, state.out_RBDC)
        return updates

    @torch.no_grad()
    def after_step(self) -> None:
        for part in self.parts:
            for name, parameter in part.named_parameters():
                if not name.startswith("bias"):
                    parameter.mul_(1 - self.decay)

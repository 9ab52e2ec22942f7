"""Error broadcast and decorrelation: activity that is still correlated with the error has something to learn from it.

Shape suffixes: R replica, B batch, D position, C channel, N classes, F = D * C.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rhm import InvalidInput
from rules.base.contract import Locality, Step, Updates
from rules.base.direct_feedback import DirectFeedback
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.maths.feedback import error_correlation


class ErrorBroadcastDecorrelation(DirectFeedback):
    """Error broadcast and decorrelation (EBD, Erdogan et al. 2025): descend ``1/2 |R_l|^2``, ``R_l = E[h_l e^T]``.

    ``R_l <- (1 - rate) R_l + rate E[h_l e^T]``, and then ``delta_l = D_l R_l e``: of the gradient of ``1/2 |R_l|^2`` the half
    that goes through the layer's activity, with ``g(h) = h``, up to the factor ``rate``, which is left to the learning rate.
    The half that goes through the error is dropped, as in the paper: it would need a backward path. ``h_l`` is what the layer
    hands on.

    Random: ``R_l`` at the start, small. Learned: ``R_l``. It is a mean over strings, so that strings of a batch meet in an
    update. Not like the paper: the error is that of the cross-entropy, the paper's of squares; its power and entropy terms, its
    penalty on weights and its momentum are left out; its rate is 1e-6 or 1e-5, so that its ``R_l`` stays near its random start
    for long.

    Args:
        network, optimizer, clip, form: see :class:`rules.base.direct_feedback.DirectFeedback`.
        feedback_scale: standard deviation of ``R_l`` at the start, times ``sqrt(n)``.
        rate: ``1 - lambda`` of the paper.

    Raises:
        InvalidInput: ``rate`` not in (0, 1]; ``feedback_scale`` not above 0; an unknown form.
    """

    source = "Erdogan, Pehlevan, Erdogan 2025, arXiv 2504.11558"
    locality = Locality(batch=True, error=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        feedback_scale: float = 0.01,
        form: str = "explicit",
        rate: float = 0.01,
    ):
        super().__init__(network, optimizer, clip, feedback_scale, form)
        if not 0 < rate <= 1:
            raise InvalidInput("model.rate", rate, "a number in (0, 1]")
        self.rate = rate

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN

    def layer_updates(self, step: Step) -> Updates:
        names = [f"feedback_{k}" for k in range(1, len(self.network) + 1)]
        here = [error_correlation(step.readout.error_RBN, state.out_RBDC) for state in step.states]
        batch_RNF = self.mean_over_ranks(here)
        moved_RNF = [
            self.get_buffer(name).lerp(batch.to(self.get_buffer(name).dtype), self.rate)
            for name, batch in zip(names, batch_RNF, strict=True)
        ]
        return Updates(self.direct_updates(step, moved_RNF), dict(zip(names, batch_RNF, strict=True)))

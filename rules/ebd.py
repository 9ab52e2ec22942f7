"""Error broadcast: a layer changes until its activity no longer tells the output error.

Shape suffixes: R replica, B batch, D position, C channel, N classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from networks import LayerUpdate
from rhm import InvalidInput
from rules.dfa import DirectFeedback
from rules.local_rule import Locality, NetworkConfig, OptimizerCallable, Step, default_network


class ErrorBroadcastDecorrelation(DirectFeedback):
    """Error broadcast and decorrelation (Erdogan et al. 2025): each layer minimises ``||R_l||^2 / 2``, ``R_l = E[e h_l^T]``.

    The best estimator's error is uncorrelated with any function of its input. ``R_l += rate (mean_b e h_l^T - R_l)`` with the
    batch included, and ``delta_l = D_l R_l^T e``: direct feedback whose matrix is the correlation itself. Of the gradient,
    the half through the error is dropped, as in the paper, where ``g`` is the identity as here; the entropy and power terms
    are left out, and the factor ``1 - lambda`` is left to the learning rate. The paper's criterion is the squared error, ours
    the cross-entropy's error.

    Learned: ``R_l``, from a small random start.

    Args:
        network, optimizer, clip, form: see :class:`rules.dfa.DirectFeedback`.
        feedback_scale: of the start of ``R_l``.
        correlation_rate: ``1 - lambda``.

    Raises:
        InvalidInput: ``correlation_rate`` outside (0, 1].
    """

    source = "Erdogan, Pehlevan, Erdogan 2025, arXiv 2504.11558"
    locality = Locality(pair=True, label=True, output_error=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        feedback_scale: float = 0.01,
        form: str = "explicit",
        correlation_rate: float = 0.01,
    ):
        super().__init__(network, optimizer, clip, feedback_scale, form)
        if not 0 < correlation_rate <= 1:
            raise InvalidInput("model.correlation_rate", correlation_rate, "a number in (0, 1]")
        self.rate = correlation_rate

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN

    def feedback(self, k: int) -> Tensor:
        correlation, estimate = self.get_buffer(f"feedback_{k}"), self.estimates[f"feedback_{k}"]
        return correlation.lerp(estimate.to(correlation.dtype), self.rate)

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        error = step.readout.error_RBN
        for k, state in enumerate(step.states, 1):
            correlation = torch.bmm(error.transpose(1, 2), state.out_RBDC.flatten(2).to(error.dtype)) / error.shape[1]
            self.estimates[f"feedback_{k}"] = correlation
        return super().layer_updates(step)

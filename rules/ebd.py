"""Error broadcast and decorrelation: activity that is still correlated with the error has something to learn from it.

Shape suffixes: R replica, B batch, D position, C channel, N classes, F = D * C.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from networks import LayerUpdate
from rhm import InvalidInput
from rules.base.contract import Locality, Step, Updates
from rules.base.direct_feedback import DirectFeedback
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.maths.feedback import activity_correlation, broadcast_error, error_correlation


class ErrorBroadcastDecorrelation(DirectFeedback):
    """Error broadcast and decorrelation (EBD, Erdogan et al. 2025): descend ``1/2 |R_l|^2``, ``R_l = E[h_l e^T]``.

    ``R_l <- (1 - rate) R_l + rate E[h_l e^T]``, and then ``delta_l = D_l R_l e``: of the gradient of ``1/2 |R_l|^2`` the
    half that goes through the layer's activity, with ``g(h) = h``, up to the factor ``rate``, which is left to the learning
    rate. The half that goes through the error is dropped, as in the paper: it would need a backward path. ``h_l`` is what
    the layer hands on.

    Against units that die, two terms of the paper, on what the layer hands on, means over strings and positions: a
    channel's power is kept, ``power sum_c (E[h_c^2] - target_power)^2``, and channels are kept apart, ``- entropy / 2 log
    det(Q_l + eps)`` with ``Q_l <- (1 - rate) Q_l + rate E[h_l h_l^T]``; of its gradient the factor ``rate`` is left to
    ``entropy``.

    Random: ``R_l`` at the start. ``Q_l`` starts at one on its diagonal. Learned: ``R_l`` and ``Q_l``. They are means over
    strings, so that strings of a batch meet in an update. Not like the paper: the error is that of the cross-entropy, the
    paper's of squares; its penalty on weights and its momentum are left to the optimizer.

    Tried at 1,408 and 5,632 strings, L = 3 (docs/rules-at-their-best.md): without the two terms .55 and .80, with them .63
    and .97 (Adam 3e-3); normalised layers, rate 1e-2, weight decay .1, .3, 1: .78, .92, .95 and 1.00. ``rate=.01,
    feedback_scale=.01``, as it was here once, lets ``R_l`` follow its own small start, and units die: chance.

    Args:
        network, optimizer, clip, form: see :class:`rules.base.direct_feedback.DirectFeedback`.
        feedback_scale: standard deviation of ``R_l`` at the start, times ``sqrt(n)``.
        rate: ``1 - lambda`` of the paper, which has 1e-6 or 1e-5, so that ``R_l`` stays near its random start for long.
        power, target_power: weight of the power term, and the power that it asks for.
        entropy: weight of the entropy term.

    Raises:
        InvalidInput: ``rate`` not in (0, 1]; ``feedback_scale`` or ``target_power`` not above 0; ``power`` or ``entropy``
            under 0; an unknown form.
    """

    source = "Erdogan, Pehlevan, Erdogan 2025, arXiv 2504.11558"
    locality = Locality(batch=True, error=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        feedback_scale: float = 1.0,
        form: str = "explicit",
        rate: float = 1e-5,
        power: float = 0.01,
        target_power: float = 1.0,
        entropy: float = 0.001,
    ):
        super().__init__(network, optimizer, clip, feedback_scale, form)
        if not 0 < rate <= 1:
            raise InvalidInput("model.rate", rate, "a number in (0, 1]")
        for key, value in ("power", power), ("entropy", entropy):
            if value < 0:
                raise InvalidInput(f"model.{key}", value, "a number of at least 0")
        if target_power <= 0:
            raise InvalidInput("model.target_power", target_power, "a number above 0")
        # power and entropy are means over a layer's positions, and entropy is that of its channels together
        self.locality = replace(self.locality, lateral=self.locality.lateral or power > 0 or entropy > 0)
        self.rate, self.power, self.target_power, self.entropy = rate, power, target_power, entropy

    def build(self) -> None:
        super().build()
        for k, layer in enumerate(self.network.layers, 1):
            eye = torch.eye(layer.out_channels, dtype=torch.get_default_dtype())
            self.register_buffer(f"activity_{k}", eye.expand(self.data.replicas, -1, -1).clone())

    def teaching_signal(self, step: Step) -> Tensor:
        return step.readout.error_RBN

    def layer_updates(self, step: Step) -> Updates:
        layers = range(1, len(self.network) + 1)
        error_RBN, outs = step.readout.error_RBN, [state.out_RBDC.to(step.readout.error_RBN.dtype) for state in step.states]
        here = {f"feedback_{k}": error_correlation(error_RBN, outs[k - 1]) for k in layers}
        here |= {f"activity_{k}": activity_correlation(outs[k - 1]) for k in layers}
        here = dict(zip(here, self.mean_over_ranks(list(here.values())), strict=True))
        updates: list[LayerUpdate] = []
        for k in layers:
            feedback_RNF, moved_RCC = (
                self.get_buffer(name).lerp(here[name].to(self.get_buffer(name).dtype), self.rate)
                for name in (f"feedback_{k}", f"activity_{k}")
            )
            layer, state, h_RBDC = self.network.layers[k - 1], step.states[k - 1], outs[k - 1]
            decorrelating = broadcast_error(error_RBN, feedback_RNF, h_RBDC.shape) / h_RBDC.shape[1]
            signal = decorrelating + self.spreading(h_RBDC, here[f"activity_{k}"], moved_RCC)
            updates.append(self.backward_layer(layer, state, signal.to(state.out_RBDC.dtype))[0])
        return Updates(updates, here)

    def spreading(self, h_RBDC: Tensor, here_RCC: Tensor, moved_RCC: Tensor) -> Tensor:
        """Gradient of the power and the entropy term by what a layer hands on, ``[R, B, D, C]``.

        Args:
            h_RBDC: what it hands on.
            here_RCC: ``E[h h^T]`` of the batch, whose diagonal is the channels' power.
            moved_RCC: ``Q_l`` after the step.
        """
        excess_RC = here_RCC.diagonal(dim1=1, dim2=2) - self.target_power
        eye = torch.eye(h_RBDC.shape[-1], dtype=h_RBDC.dtype, device=h_RBDC.device)
        pull_RCC = 4 * self.power * torch.diag_embed(excess_RC) - self.entropy * torch.linalg.inv(moved_RCC + EPS * eye)
        rows = h_RBDC.flatten(1, 2)
        return (torch.bmm(rows, pull_RCC) / rows.shape[1]).view_as(h_RBDC)


EPS = 1e-5
"""Is added to the diagonal of ``Q_l``."""

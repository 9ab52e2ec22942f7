"""Low-rank feedback alignment: few numbers for each string go down, and which ones is learned.

Shape suffixes: R replica, B batch, D position, C channel, N classes; G groups of positions, M rows, F inputs, E units.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from networks import LayerUpdate
from rhm import InvalidInput
from rhm.hashing import normal
from rules.base.contract import Locality, Step, Updates
from rules.base.layered_feedback import LayeredFeedback
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.maths.feedback import random_like


class LowRankFeedback(LayeredFeedback):
    """Low-rank feedback alignment (Hanut, Kadmon 2025): ``delta_l = D_l Q_l P_l delta_{l+1}``, ``P_l`` of ``rank`` rows.

    ``P_l`` learns the leading directions of the errors at its input by Oja's rule, ``P <- P + rate (P C - P C P^T P) / tr C``
    with ``C = E[delta delta^T]``; ``Q_l`` learns as in Kolen-Pollack from the error that is left, ``dQ = -lr h (P delta)^T``,
    and decays with the weights by ``1 - decay`` after each step, so that ``Q`` comes to ``W^T P^T`` if ``P`` stands still.

    Random: ``Q`` and ``P`` at the start. Learned: both. The division by ``tr C`` is ours: it makes ``rate`` independent of the
    error's size. Sources disagree: version 1 has Oja's rule, version 4 also rules that are local to a synapse, which we have
    not read; Oja's term ``P C P^T P`` needs the other rows of ``P``, and ``tr C`` all
    strings of the batch. Sizes of decay and rate in the paper are not known to us.

    Args:
        network, optimizer, clip, form: see :class:`rules.base.layered_feedback.LayeredFeedback`.
        rank: numbers that go down, from 1 to the number of classes; null is the number of classes.
        decay: of ``W`` and ``Q``, each step.
        rate: step of ``P``.

    Raises:
        InvalidInput: ``rank`` under 1 or above the number of classes; ``decay`` not in [0, 1); ``rate`` not in (0, 1];
            an unknown form.
    """

    takes_vectors = False
    locality = Locality(batch=True, lateral=True, error=True, other_layers=True)
    source = "Hanut, Kadmon 2025, arXiv 2502.20580"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        form: str = "explicit",
        rank: int | None = None,
        decay: float = 1e-3,
        rate: float = 0.02,
    ):
        super().__init__(network, optimizer, clip, form)
        if rank is not None and rank < 1:
            raise InvalidInput("model.rank", rank, "an integer of at least 1, or null")
        if not 0 <= decay < 1:
            raise InvalidInput("model.decay", decay, "a number in [0, 1)")
        if not 0 < rate <= 1:
            raise InvalidInput("model.rate", rate, "a number in (0, 1]")
        self.rank, self.decay, self.rate = rank, decay, rate

    def build(self) -> None:
        classes = self.data.task.n
        rank = classes if self.rank is None else self.rank
        if rank > classes:
            raise InvalidInput("model.rank", rank, f"at most the number of classes, data.n={classes}")
        for k, name, matrix in self.carriers():
            units = matrix.shape[-1]
            p = normal(self.keys_R(k, name, "P"), (*matrix.shape[1:-2], rank, units)).to(matrix.dtype) / units**0.5
            self.register_buffer(f"P_{k}_{name}", p)
            q = random_like(matrix.detach() @ p.transpose(-1, -2), self.keys_R(k, name, "Q"))
            self.parts[k - 1].register_parameter(f"Q_{name}", nn.Parameter(q))

    def feedback(self, k: int, name: str) -> Tensor:
        return self.parts[k - 1].get_parameter(f"Q_{name}") @ self.get_buffer(f"P_{k}_{name}")

    def oja(self, k: int, name: str, delta: Tensor) -> dict[str, Tensor]:
        """Oja's rule for the errors of a batch, ``[R, B, N]`` or ``[R, G, M, E]``, and their power; each group has its own."""
        p = self.get_buffer(f"P_{k}_{name}")
        delta = delta.to(p.dtype)
        power = delta.square().sum((-1, -2), keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)  # tr C times the rows
        low_rank = delta @ p.transpose(-1, -2)
        hebb = low_rank.transpose(-1, -2) @ delta
        decay = low_rank.transpose(-1, -2) @ low_rank @ p
        return {f"P_{k}_{name}": hebb - decay, f"power_{k}_{name}": power}

    def tracked(self, estimates: dict[str, Tensor]) -> dict[str, Tensor]:
        change = {name: estimates[name] / estimates[f"power{name[1:]}"] for name in estimates if name.startswith("P_")}
        return {name: self.get_buffer(name) + step for name, step in change.items()}

    def layer_updates(self, step: Step) -> Updates:
        estimates = self.oja(len(self.parts), "weight_RFN", step.readout.error_RBN)
        updates: list[LayerUpdate] = []
        for k, signal_RBDC, delta_RGME, update in self.descend(step):
            layer, state = self.network.layers[k - 1], step.states[k - 1]
            if layer.projection_RGEC is not None:
                estimates |= self.oja(k, "projection_RGEC", layer.before_normalisation(state, layer.by_group(signal_RBDC)))
            if k > 1:
                estimates |= self.oja(k, "weight_RGFE", delta_RGME)
            updates.insert(0, self.with_q(k, update))
        return Updates(updates, estimates)

    def readout_update(self, step: Step) -> LayerUpdate:
        return self.with_q(len(self.parts), super().readout_update(step))

    def with_q(self, k: int, update: LayerUpdate) -> LayerUpdate:
        """A part's updates, and those of its ``Q``: ``h (P delta)^T`` is ``(h delta^T) P^T``."""
        q = {f"Q_{name}": name for name in update if hasattr(self.parts[k - 1], f"Q_{name}")}
        return update | {key: update[name] @ self.get_buffer(f"P_{k}_{name}").transpose(-1, -2) for key, name in q.items()}

    @torch.no_grad()
    def after_step(self) -> None:
        for k, name, matrix in self.carriers():
            matrix.mul_(1 - self.decay)
            self.parts[k - 1].get_parameter(f"Q_{name}").mul_(1 - self.decay)

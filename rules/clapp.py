"""Contrastive local predictive plasticity: a hinge on predicting one side of a pair from the other.

Shape suffixes: R replica, B batch, D pair of a string, C channel.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from networks import LayerUpdate
from rhm.hashing import below, fold
from rules.base.block import Block
from rules.base.layerwise import LayerwiseRule
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.base.pair import LossHead, Pair, PairGradient, outer
from rules.maths.losses import bilinear_scores, hinge, other_strings, pair_scores, project, scatter_strings
from rules.maths.plasticity import check_form


class CLAPP(LayerwiseRule):
    """CLAPP (Illing et al. 2021, eq. 3 to 8) at every layer: ``max(0, 1 - y u)`` with ``u = z^T W_pred c``, ``y = 1`` for a
    pair, -1 else.

    With the gate ``gamma = y 1[y u < 1]``, in explicit form and against the gradient:

    - at the predicted side: ``dW = eta gamma (W_pred c) phi'(a) x^T``;
    - at the context: ``dW = eta gamma (W_retro z) phi'(a) x^T``;
    - ``dW_pred = eta gamma z c^T``, ``dW_retro = eta gamma c z^T``.

    Without ``retrodiction``, ``W_retro = W_pred^T`` and this is the loss's gradient; with it the two are learned apart, from
    random starts, and no matrix is used in both directions. The first side of a pair is the context, the second is predicted.
    A string's negative is the same position of another string of the batch, never the string itself (the authors' draws may
    hit it).

    Args:
        network, optimizer, clip, block: see :class:`rules.base.layerwise.LayerwiseRule`.
        retrodiction: whether the context has a matrix of its own.
        both_terms: positive and negative term for each string; else a fair coin for each string and pair of layers says
            which, at twice the weight, so that the mean is the same.
        form: ``explicit`` products of local factors, without a graph, or ``autograd``; both give the same update.

    Raises:
        InvalidInput: an unknown form.
    """

    source = "Illing et al. 2021, arXiv 2010.08262"
    hinged = True

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(),
        retrodiction: bool = False,
        both_terms: bool = True,
        form: str = "explicit",
    ):
        super().__init__(network, optimizer, clip, block)
        check_form(form)
        self.retrodiction, self.both_terms, self.form = retrodiction, both_terms, form
        transport = self.locality.transport_within_layer or not retrodiction
        self.locality = replace(self.locality, transport_within_layer=transport)

    def build_head(self, head: LossHead, k: int, channels: int) -> None:
        for name in ("prediction_RCC", "retrodiction_RCC")[: 1 + self.retrodiction]:
            self.add_matrix(head, name, k, (channels, channels), scale=1 / channels)

    def scores(self, pair: Pair) -> Tensor:
        return bilinear_scores(pair.z1_RBDC, pair.head.get_parameter("prediction_RCC"), pair.z2_RBDC)

    def weights(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """Of the positive and the negative term of each string, ``[R, B, 1]``, over the number of strings and pairs."""
        assert pair.key_RB is not None
        mean = 1 / (pair.z1_RBDC.shape[1] * pair.z1_RBDC.shape[2])
        if self.both_terms:
            both = torch.full_like(pair.z1_RBDC[:, :, :, 0], mean)
            return both, both
        coin = below(fold(pair.key_RB, "coin", pair.k), 2).to(pair.z1_RBDC.dtype)[:, :, None]
        return 2 * mean * coin, 2 * mean * (1 - coin)

    def pair_loss(self, pair: Pair) -> Tensor:
        c, z, shift_R = pair.z1_RBDC, pair.z2_RBDC, pair.shift_R()
        w_pred = pair.head.get_parameter("prediction_RCC")
        if not self.retrodiction:
            return self._hinges(pair, project(c, w_pred), z, shift_R)
        w_retro = pair.head.get_parameter("retrodiction_RCC")
        # each matrix has a loss of its own, in which the side that it starts from is a constant
        forth = self._hinges(pair, project(c.detach(), w_pred), z, shift_R)
        gate = [g.detach() for g in self._gates(pair, project(c, w_pred), z, shift_R)]
        negative = other_strings(z, shift_R).detach()
        seen = gate[0][..., None] * z.detach() + gate[1][..., None] * negative
        back_R = pair_scores(c, project(seen, w_retro)).sum((1, 2))
        return forth + back_R - back_R.detach()

    def _hinges(self, pair: Pair, prediction: Tensor, z: Tensor, shift_R: Tensor) -> Tensor:
        positive, negative = self.weights(pair)
        u_pos, u_neg = pair_scores(prediction, z), pair_scores(prediction, other_strings(z, shift_R))
        return (positive * hinge(u_pos, 1) + negative * hinge(u_neg, -1)).sum((1, 2))

    def _gates(self, pair: Pair, prediction: Tensor, z: Tensor, shift_R: Tensor) -> tuple[Tensor, Tensor]:
        """``-gamma`` of the positive and the negative term, ``[R, B, D]``: the derivatives of the loss by the scores."""
        positive, negative = self.weights(pair)
        u_pos, u_neg = pair_scores(prediction, z), pair_scores(prediction, other_strings(z, shift_R))
        return -positive * (u_pos < 1), negative * (u_neg > -1)

    def pair_gradient(self, pair: Pair) -> PairGradient:
        if self.form == "autograd":
            return super().pair_gradient(pair)
        c, z, shift_R = pair.z1_RBDC, pair.z2_RBDC, pair.shift_R()
        w_pred = pair.head.get_parameter("prediction_RCC").to(c.dtype)
        prediction, negative = project(c, w_pred).to(c.dtype), other_strings(z, shift_R)
        gate_pos, gate_neg = (gate[..., None] for gate in self._gates(pair, prediction, z, shift_R))
        seen = gate_pos * z + gate_neg * negative  # what the context should have predicted, gated
        z_signal = gate_pos * prediction + scatter_strings(gate_neg * prediction, shift_R)
        head: LayerUpdate = {"prediction_RCC": outer(c, seen)}
        if self.retrodiction:
            c_signal = project(seen, pair.head.get_parameter("retrodiction_RCC"))
            head["retrodiction_RCC"] = outer(seen, c)
        else:
            c_signal = project(seen, w_pred.transpose(1, 2))
        return PairGradient(self._hinges(pair, prediction, z, shift_R), c_signal.to(c.dtype), z_signal, head)

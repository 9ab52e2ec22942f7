"""InfoNCE at every layer.

Shape suffixes: R replica, B batch, D pair of a string, C channel, N classes.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from rhm import InvalidInput
from rules.base.block import Block
from rules.base.contract import Step
from rules.base.layerwise import Activity, LayerwiseRule
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.base.pair import LossHead, Pair
from rules.maths.losses import bilinear_scores, cosine_scores, info_nce, info_nce_of_targets


class LayerwiseContrastive(LayerwiseRule):
    """InfoNCE at every layer (Oord et al. 2018; layerwise: Lowe et al. 2019; NT-Xent with ``cosine``: Chen et al. 2020).

    ``Loss_l = -log exp(u_bb / t) / sum_b' exp(u_bb' / t)`` with ``u = z1^T W_l z2`` (``bilinear``) or the cosine of ``z1`` and
    ``z2`` (``cosine``) for the two sides of a pair; the negatives are the batch's other strings. The loss is the mean of
    this and the same with the sides exchanged.

    Learned: the weights and, with the bilinear score, the predictor ``W_l``, which belongs to the layer.
    Siblings need the predictor: the left and the right symbol of a tuple predict one another but are not alike, and a cosine
    would call every symbol most like itself. Not known: which pairs, score and temperature the source paper used.

    With ``label_context`` the class joins the context at the top layer that has pairs, where a pair and its class make a rule
    of the grammar: ``u = (z1 + V y)^T W z2`` with a learned ``V``, and the same with the sides exchanged. That takes labels.

    Args:
        network, optimizer, clip, block: see :class:`rules.base.layerwise.LayerwiseRule`.
        score: ``bilinear`` or ``cosine``.
        temperature: ``t``.
        label_context: whether the class helps to predict at the top layer that has pairs; with the bilinear score.

    Raises:
        InvalidInput: an unknown score; a temperature not above 0; a network without layers that have pairs; a label in the
            context of a cosine.
    """

    source = "Oord et al. 2018, arXiv 1807.03748; Lowe et al. 2019, arXiv 1905.11786"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(),
        score: str = "bilinear",
        temperature: float = 1.0,
        label_context: bool = False,
    ):
        super().__init__(network, optimizer, clip, block)
        if score not in ("bilinear", "cosine"):
            raise InvalidInput("model.score", score, "bilinear or cosine")
        if temperature <= 0:
            raise InvalidInput("model.temperature", temperature, "a number above 0")
        if label_context and score != "bilinear":
            raise InvalidInput("model.label_context", True, "true only with model.score=bilinear")
        self.score, self.temperature, self.label_context = score, temperature, label_context
        self.knowledge = "labels" if label_context else "none"
        transport = self.locality.transport_within_layer or score == "bilinear"
        self.locality = replace(self.locality, label=label_context, transport_within_layer=transport)

    def build_head(self, head: LossHead, k: int, channels: int) -> None:
        if self.label_context and k == self.trained_layers:
            self.add_matrix(head, "label_RNC", k, (self.data.task.n, channels), scale=1.0)
        if self.score == "bilinear":
            self.add_matrix(head, "predictor_RCC", k, (channels, channels), scale=1 / channels)

    def shown(self, step: Step, k: int, activity: Activity) -> tuple[Tensor, ...]:
        """The classes where they are context, one-hot, ``[R, B, N]``."""
        if not self.label_context or k < self.trained_layers:
            return ()
        return (functional.one_hot(step.batch.y_RB.long(), self.data.task.n),)

    def pair_loss(self, pair: Pair) -> Tensor:
        if pair.shown:
            back = bilinear_scores(pair.z2_RBDC + self._label(pair), self._predictor(pair).transpose(1, 2), pair.z1_RBDC)
            return (info_nce_of_targets(self.scores(pair)) + info_nce_of_targets(back)) / 2
        return info_nce(self.scores(pair))

    def scores(self, pair: Pair) -> Tensor:
        if self.score == "cosine":
            return cosine_scores(pair.z1_RBDC, pair.z2_RBDC) / self.temperature
        context = pair.z1_RBDC + self._label(pair) if pair.shown else pair.z1_RBDC
        return bilinear_scores(context, self._predictor(pair), pair.z2_RBDC)

    def _predictor(self, pair: Pair) -> Tensor:
        return pair.head.get_parameter("predictor_RCC") / self.temperature

    @staticmethod
    def _label(pair: Pair) -> Tensor:
        y_RBN = pair.shown[0].to(pair.z1_RBDC.dtype)
        return torch.bmm(y_RBN, pair.head.get_parameter("label_RNC"))[:, :, None]

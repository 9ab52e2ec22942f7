"""How much do a network's masks differ between strings, and what does a rule lose that does not know them?

Shape suffixes: R replica, B batch, F features (the units of a layer at all positions), N classes, P parameters of a
layer; G groups of positions, M rows, E units.
"""

from __future__ import annotations

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from callbacks.diagnostic import Diagnostic, MeanOverStrings, StringDistance, cosine, flat, mean_over_ranks
from networks import Layer
from rhm import InvalidInput
from rules import LocalRule
from rules.mask_ladder import RUNGS, MaskLadder


class MaskStatistics(Diagnostic):
    """The masks ``phi'(a)`` of each layer, and the update of each rung of the mask ladder beside exact backpropagation's.

    All for one batch, the next one that is trained on, and with the weights that the rule has learned so far.

    Tags, for each layer: ``masks/active``, the mean of the mask, for ReLU the share of open units; ``masks/difference``, the
    mean square difference of a unit's mask at one position between two strings, for ReLU the share of units that one string
    opens and another closes; and for each rung (:class:`rules.mask_ladder.MaskLadder`), ``masks/rung1`` to ``rung8``,
    ``cosine``, of its update with backpropagation's of the readout's loss, and ``norm``, the ratio of their lengths.

    The random matrices of rungs 5 to 8 are those that ``MaskLadder`` has for the same seeds; no weights have adapted to them.

    Args:
        ladder: whether the rungs are measured; false with a bottleneck or normalised units, which are masks of their own, and
            without labels.

    Raises:
        InvalidInput: a ladder that is not defined.
    """

    prefix = "masks"
    charted = ("active", "difference", *(f"rung{rung}/cosine" for rung in range(1, 9)))

    def __init__(self, ladder: bool = True):
        super().__init__()
        self.ladder = ladder
        self.rungs: list[MaskLadder] = []

    def check(self, rule: LocalRule) -> None:
        if not self.ladder or (self.rungs and self.rungs[0].network is rule.network):
            return
        if not rule.data.labels:
            raise InvalidInput("data.labels", False, "true for the ladder of MaskStatistics; without labels, ladder=false")
        try:
            self.rungs = [MaskLadder.beside(rule, *rung) for rung in RUNGS]
        except InvalidInput as error:
            allowed = "no normalisation for the ladder of MaskStatistics, which is a mask of its own; else ladder=false"
            raise InvalidInput(error.key, error.got, allowed) from error

    def measure(self, trainer: Trainer, rule: LocalRule) -> dict[str, Tensor]:
        step = rule.labelled(rule.compute(rule.data.train_batch(trainer.global_step, rule.data.rank, rule.data.world)))
        values: dict[str, Tensor] = {}
        for k, (layer, state) in enumerate(zip(rule.network.layers, step.states, strict=True), 1):
            mask_RGME = layer.mask(state).masked_fill(state.pre_RGME.isnan(), torch.nan)  # which is not above 0, but not shut
            mask_RBF = layer.by_position(mask_RGME, state).flatten(2)
            replicas, _, features = mask_RBF.shape
            active = MeanOverStrings(replicas).to(mask_RBF.device)
            distance = StringDistance(replicas, features).to(mask_RBF.device)
            active.update(mask_RBF.double().mean(2))
            distance.update(mask_RBF)
            values[f"active/layer{k}"] = active.compute().reshape(replicas)  # torchmetrics squeezes a single number
            values[f"difference/layer{k}"] = distance.compute().reshape(replicas) / features
        if not self.ladder:
            return values
        layers = len(rule.network)
        updates = rule.backpropagate(step, down_to=0)
        for rung in self.rungs:
            rung.to(step.readout.logits_RBN.device, rule.readout.weight_RFN.dtype).trainer = trainer
            updates += rung.layer_updates(step).layers
        means = mean_over_ranks(rule, updates)
        exact = [flat(update, own(update)) for update in means[:layers]]
        for number in range(1, len(self.rungs) + 1):
            for k, update in enumerate(means[number * layers : (number + 1) * layers]):
                ours_RP = flat(update, own(update))
                values[f"rung{number}/cosine/layer{k + 1}"] = cosine(ours_RP, exact[k])
                values[f"rung{number}/norm/layer{k + 1}"] = ours_RP.norm(dim=1) / exact[k].norm(dim=1)
        return values


def own(update: dict[str, Tensor]) -> list[str]:
    """Names of a layer's own parameters that an update has."""
    return [name for name in Layer.OWN if name in update]

"""Does a rule's update point where backpropagation's does?

Shape suffixes: R replica, B batch, D position, C channel, F features of an error or parameters of a
layer, T matrices that have never been used.
"""

from __future__ import annotations

import math

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from callbacks.diagnostic import Diagnostic, cosine, flat, mean_over_ranks
from networks import CodeNetwork, Layer, LayerUpdate
from rhm import InvalidInput
from rhm.hashing import fold, normal, seed_keys
from rules import LocalRule, Step
from rules.base.contract import add
from rules.frozen import FrozenFeatures
from rules.maths.feedback import broadcast_error


class GradientAlignment(Diagnostic):
    """Cosine, layer by layer, of a rule's update with backpropagation's for the same batch, the next one that is trained on.

    Backpropagation's update is :meth:`rules.LocalRule.end_to_end`: of the readout's loss, or, for a layerwise self-supervised
    rule, of the loss of its top layer, through all layers below. Updates are what the optimizer is given, before clipping.
    Compared are the layer's own parameters that the rule trains, as one vector.

    Tags, for each layer: ``alignment/cosine``; ``alignment/norm`` and ``alignment/backprop_norm``, the two lengths;
    ``alignment/null``, the root mean square cosine with which the same error would arrive by fresh random matrices, straight
    from the output (direct feedback drawn anew: what the rule has beyond this it has learned); ``alignment/chance``, the same
    for a random direction, ``1 / sqrt(parameters)``; ``alignment/weights``, for rules with feedback matrices, the cosine of
    the matrix that reaches the layer with the weights in whose place it stands (:meth:`rules.LocalRule.feedback_and_weights`).

    Args:
        draws: fresh random feedbacks at each measurement.

    Raises:
        InvalidInput: ``draws`` under 1; a rule that trains no layer; codes, which no gradient passes; a supervised reference
            without labels.
    """

    prefix = "alignment"
    charted = ("cosine", "norm", "backprop_norm", "null", "weights")

    def __init__(self, draws: int = 4):
        super().__init__()
        if draws < 1:
            raise InvalidInput("GradientAlignment.draws", draws, "an integer of at least 1")
        self.draws = draws

    def check(self, rule: LocalRule) -> None:
        name = type(rule).__name__
        if isinstance(rule, FrozenFeatures):
            raise InvalidInput("trainer.callbacks", f"GradientAlignment with {name}", "a rule that trains hidden layers")
        if isinstance(rule.network_config, CodeNetwork):
            allowed = "a network without codes with GradientAlignment: no gradient passes a code"
            raise InvalidInput("model.network", "CodeNetwork", allowed)
        if rule.end_to_end_needs_labels and not rule.data.labels:
            raise InvalidInput("data.labels", False, f"true for GradientAlignment with {name}: backpropagation needs them")

    def measure(self, trainer: Trainer, rule: LocalRule) -> dict[str, Tensor]:
        step = rule.labelled(rule.compute(rule.data.train_batch(trainer.global_step, rule.data.rank, rule.data.world)))
        ours = rule.layer_updates(step).layers
        feedback = rule.feedback_and_weights()
        layers = len(ours)
        groups = [ours, rule.end_to_end(step).layers[:layers]]
        groups += [self.null(rule, step, draw, trainer.global_step)[:layers] for draw in range(self.draws)]
        means = mean_over_ranks(rule, [update for group in groups for update in group])
        ours, backprop, *nulls = (means[start : start + layers] for start in range(0, len(means), layers))
        values: dict[str, Tensor] = {}
        for k, (own, reference) in enumerate(zip(ours, backprop, strict=True), 1):
            names = [name for name in Layer.OWN if name in own and name in reference]
            if not names:
                continue
            own_RF, reference_RF = flat(own, names), flat(reference, names)
            null_TR = torch.stack([cosine(flat(null[k - 1], names), reference_RF) for null in nulls])
            values[f"cosine/layer{k}"] = cosine(own_RF, reference_RF)
            values[f"norm/layer{k}"] = own_RF.norm(dim=1)
            values[f"backprop_norm/layer{k}"] = reference_RF.norm(dim=1)
            values[f"null/layer{k}"] = null_TR.square().mean(0).sqrt()
            values[f"chance/layer{k}"] = torch.full_like(null_TR[0], 1 / math.sqrt(own_RF.shape[1]))
        matrices = mean_over_ranks(rule, [{name: matrix for name, (matrix, _) in feedback.items()}])[0]
        for name, (_, weights) in feedback.items():
            values[f"weights/{name}"] = cosine(matrices[name].flatten(1).double(), weights.flatten(1).double())
        return values

    @staticmethod
    def null(rule: LocalRule, step: Step, draw: int, seed: int) -> list[LayerUpdate]:
        """Updates of direct feedback through matrices that have never been used; the same ones for all replicas."""
        updates: list[LayerUpdate] = [{} for _ in rule.network.layers]
        for states, error_RBF in rule.top_errors(step):
            for k, (layer, state) in enumerate(zip(rule.network.layers, states, strict=True)):
                shape = error_RBF.shape[2], state.out_RBDC[0, 0].numel()
                key_1 = fold(seed_keys(torch.zeros(1, dtype=torch.int64, device=error_RBF.device)), "null", seed, draw, k)
                matrix = normal(key_1, shape).to(error_RBF.dtype).expand(len(error_RBF), -1, -1)
                signal = broadcast_error(error_RBF, matrix, state.out_RBDC.shape)
                add(updates[k], layer.backward(state, signal.to(state.out_RBDC.dtype))[0])
        return updates

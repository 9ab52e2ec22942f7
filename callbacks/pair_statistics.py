"""What does a layer's loss see: do its positives score higher than its negatives, and are those really other symbols?

Shape suffixes: R replica, B string, D pair of a string.
"""

from __future__ import annotations

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from callbacks.diagnostic import Diagnostic
from rhm import InvalidInput
from rules import LocalRule
from rules.base.layerwise import LayerwiseRule


class PairStatistics(Diagnostic):
    """Scores of positive pairs and of negatives at each layer of a layerwise self-supervised rule, for the next batch.

    A score is the rule's own (:meth:`rules.base.layerwise.LayerwiseRule.scores`), or the cosine of the two sides where its loss
    has none. Negatives are the pairs of a string's first side with the second sides of all other strings of the batch, at the
    same place; a rule that draws one of them for each string draws from these. A negative is false if the hidden symbol that
    the two sides of a pair have in common (the parent of siblings, the class, the synonyms' symbol) is the same in both
    strings: this is looked up in the derivation.

    Tags, for each layer: ``pairs/positive``, ``pairs/negative`` and ``pairs/false_negative``, mean scores (``negative`` without
    the false ones), ``pairs/positive_std``, ``pairs/negative_std``; ``pairs/ranked``, the share of true negatives that score
    below their string's positive (equal scores, up to rounding, are not below); ``pairs/share_false``, the share of false ones
    among all negatives, about ``1 / v`` by chance;
    and for rules with a hinge ``pairs/open_positive`` and ``pairs/open_negative``, the share of open gates (``u < 1`` of
    positives, ``u > -1`` of all negatives).

    Raises:
        InvalidInput: a rule that is not layerwise self-supervised; a batch of one string.
    """

    prefix = "pairs"
    charted = ("positive", "negative", "ranked", "share_false", "open_positive", "open_negative")

    def check(self, rule: LocalRule) -> None:
        if not isinstance(rule, LayerwiseRule):
            allowed = "a layerwise rule with a loss on pairs, such as LayerwiseContrastive or CLAPP"
            raise InvalidInput("trainer.callbacks", f"PairStatistics with {type(rule).__name__}", allowed)
        if rule.data.batch_size < 2:
            allowed = "at least 2 with PairStatistics: a negative is another string"
            raise InvalidInput("data.batch_size", rule.data.batch_size, allowed)

    def measure(self, trainer: Trainer, rule: LocalRule) -> dict[str, Tensor]:
        assert isinstance(rule, LayerwiseRule)
        step = rule.compute(rule.data.train_batch(trainer.global_step))  # on every rank all of the batch: nothing to send
        values: dict[str, Tensor] = {}
        for k in range(1, rule.trained_layers + 1):
            if not hasattr(rule.network.layers[k - 1], "head"):  # only the top layer has a loss, end to end
                continue
            scores_RDBB = rule.scores(rule.pair(step, k)).double()
            symbols = rule.pairs.symbols(step.batch.derivation, rule.network.positions[k - 1], rule.merged(k))
            found = statistics(scores_RDBB, None if symbols is None else symbols.transpose(1, 2))
            if rule.hinged:
                found |= gates(scores_RDBB)
            values |= {f"{name}/layer{k}": value for name, value in found.items()}
        return values


def statistics(scores_RDBB: Tensor, symbols_RDB: Tensor | None) -> dict[str, Tensor]:
    """Mean scores and shares, each ``[R]``; without symbols no negative counts as false, and their share is NaN."""
    positive_RDB1 = scores_RDBB.diagonal(dim1=-2, dim2=-1)[..., None]
    other_BB = ~torch.eye(scores_RDBB.shape[-1], dtype=torch.bool, device=scores_RDBB.device)
    if symbols_RDB is None:
        false = torch.zeros_like(scores_RDBB, dtype=torch.bool)
    else:
        false = (symbols_RDB[..., None] == symbols_RDB[..., None, :]) & other_BB
    true = other_BB & ~false
    margin_R111 = 1e-5 * scores_RDBB.abs().amax((1, 2, 3), keepdim=True)  # other strings may have the same second side
    share_R = mean_of(false, other_BB)
    return {
        "positive": positive_RDB1.mean((1, 2, 3)),
        "positive_std": positive_RDB1.flatten(1).std(1),
        "negative": mean_of(scores_RDBB, true),
        "negative_std": (mean_of(scores_RDBB.square(), true) - mean_of(scores_RDBB, true).square()).clamp_min(0).sqrt(),
        "false_negative": mean_of(scores_RDBB, false),
        "ranked": mean_of(positive_RDB1 > scores_RDBB + margin_R111, true),
        "share_false": torch.full_like(share_R, torch.nan) if symbols_RDB is None else share_R,
    }


def gates(scores_RDBB: Tensor) -> dict[str, Tensor]:
    """Shares of open gates of a hinge at 1, each ``[R]``."""
    other_BB = ~torch.eye(scores_RDBB.shape[-1], dtype=torch.bool, device=scores_RDBB.device)
    return {
        "open_positive": (scores_RDBB.diagonal(dim1=-2, dim2=-1) < 1).double().mean((1, 2)),
        "open_negative": mean_of(scores_RDBB > -1, other_BB),
    }


def mean_of(values_RDBB: Tensor, chosen: Tensor) -> Tensor:
    """The mean over a matrix's entries that are chosen (a mask that broadcasts), ``[R]``; NaN over none."""
    chosen = chosen.expand(values_RDBB.shape)
    return (values_RDBB * chosen).double().sum((1, 2, 3)) / chosen.sum((1, 2, 3))

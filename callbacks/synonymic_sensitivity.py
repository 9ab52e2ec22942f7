"""Which exchanges of synonyms does a layer still see?

Shape suffixes: R replica, B batch, D position, C channel, K layer, L level, T tag, F features, N classes.
"""

from __future__ import annotations

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from callbacks.diagnostic import Diagnostic, MeanOverStrings, StringDistance, full
from callbacks.figures import map_picture
from callbacks.tensorboard import log_picture
from rhm import InvalidInput, SparseHierarchyModel
from rhm.hashing import scramble
from rules import LocalRule


class SynonymicSensitivity(Diagnostic):
    """``S_{k,l} = <|f_k(x) - f_k(P_l x)|^2> / <|f_k(x) - f_k(y)|^2>`` (Cagnetta et al. 2024, eq. 10), layer by level.

    ``f_k`` is what layer ``k`` hands on at all positions, ``P_l`` gives each symbol of level ``l`` another of its rules and
    leaves all other rule choices as they are (:meth:`rhm.RandomHierarchyModel.exchange`), ``y`` is any other string: the mean
    over all pairs is exact. A layer that has found level ``l`` has ``S = 0`` there, one that takes synonyms for different
    strings has 1. Measured on test strings, without noise, shared out over ranks.

    Where symbols stand among silent positions (``data.silent``) they stay there, and a second measure is the sensitivity
    ``D_{k,l}`` to where they stand: the same with places of the children of level ``l`` drawn again in place of ``P_l``, while
    all symbols stay (:meth:`rhm.SparseHierarchyModel.move`; Tomasini, Wyart 2024, arXiv 2404.10727).

    Tags: ``sensitivity/level{l}/layer{k}``, ``sensitivity/moved/level{l}/layer{k}``; NaN, and not written, for a layer that
    gives the same for all strings. Picture: ``sensitivity/map``, of synonyms.

    Args:
        strings: test strings, rounded up to whole steps of ``data.eval_batch_size``; all there are if there are fewer.

    Raises:
        InvalidInput: ``strings`` under 2; a task with ``m = 1``, which has no synonyms, or strings that no grammar has made.
    """

    prefix = "sensitivity"

    def __init__(self, strings: int = 512):
        super().__init__()
        if strings < 2:
            raise InvalidInput("SynonymicSensitivity.strings", strings, "an integer of at least 2")
        self.strings = strings

    def check(self, rule: LocalRule) -> None:
        if rule.data.grammar is None:
            allowed = "without SynonymicSensitivity: no grammar has made these strings, and synonyms are not known"
            raise InvalidInput("trainer.callbacks", f"SynonymicSensitivity with {type(rule.data).__name__}", allowed)
        if rule.data.grammar.task.m == 1:
            raise InvalidInput("data.m", 1, "at least 2 with SynonymicSensitivity: there must be synonyms")

    def charts(self, rule: LocalRule) -> dict[str, dict[str, str]]:
        sparse = isinstance(rule.data.grammar, SparseHierarchyModel)
        kinds, levels = ("", "moved/") if sparse else ("",), range(1, rule.data.task.L + 1)
        tags = [f"{kind}level{level}" for kind in kinds for level in levels]
        return {self.prefix: {tag.replace("/", " "): rf"^{self.prefix}/{tag}/layer\d+$" for tag in tags}}

    def measure(self, trainer: Trainer, rule: LocalRule) -> dict[str, Tensor]:
        data, network, grammar = rule.data, rule.network, rule.data.grammar
        assert grammar is not None
        changes = {"": grammar.exchange}
        if isinstance(grammar, SparseHierarchyModel):
            changes["moved/"] = grammar.move
        tags = [(kind, level) for kind in changes for level in range(1, data.task.L + 1)]
        R, K, device = data.replicas, len(network), rule.readout.weight_RFN.device
        sizes = [p * layer.out_channels for p, layer in zip(network.positions, network.layers, strict=True)]
        spread = [StringDistance(R, size).to(device) for size in sizes]
        changed = MeanOverStrings(len(tags), K, R).to(device)
        start, end = data.test_range
        for i in range(-(-min(self.strings, end - start) // data.eval_batch_size)):
            batch = data.eval_batch(i, start, end, data.rank, data.world)
            x_RBD = batch.derivation.x_RBD
            outs = [full(state.out_RBDC).flatten(2) for state in network(x_RBD)]
            for metric, out in zip(spread, outs, strict=True):
                metric.update(out)
            key_RB1, squares = content_key(x_RBD), []
            for kind, level in tags:
                others = network(changes[kind](batch.derivation, level, key_RB1).x_RBD)
                squares += [(a - full(b.out_RBDC).flatten(2)).square().sum(2) for a, b in zip(outs, others, strict=True)]
            changed.update(torch.stack(squares).unflatten(0, (len(tags), K)))
        changed_TKR = changed.compute().reshape(len(tags), K, R)  # torchmetrics squeezes a single number
        spread_KR = torch.stack([metric.compute().reshape(R) for metric in spread])
        share_TKR = changed_TKR / spread_KR.where(spread_KR > 0, torch.nan)
        return {f"{kind}level{l}/layer{k + 1}": share_TKR[t, k] for t, (kind, l) in enumerate(tags) for k in range(K)}

    def draw(self, trainer: Trainer, rule: LocalRule) -> None:
        """The map of layers by levels; an exchange of tokens does not exist, so level 0 is grey."""
        table_KL = torch.full((len(rule.network), rule.data.task.L + 1), torch.nan)
        for k in range(len(table_KL)):
            for level in range(1, rule.data.task.L + 1):
                table_KL[k, level] = self.values[f"level{level}/layer{k + 1}"].nanmean()
        log_picture(trainer, f"{self.prefix}/map", map_picture(table_KL, 0.0, 1.0))


def content_key(x_RBD: Tensor) -> Tensor:
    """Random bits that depend on a string alone, ``[R, B, 1]``: the exchange is the same, whichever batch or rank has it."""
    place_D = scramble(torch.arange(x_RBD.shape[2], device=x_RBD.device))
    return scramble(x_RBD.long() + place_D).sum(2, keepdim=True)

"""What a rule learns from beyond strings: what it says, and what is seen of it.

Shape suffixes: R replica, B batch, D position.
"""

from __future__ import annotations

import copy

import pytorch_lightning as pl
import torch
from torch import Tensor

from datamodules import Batch, ReplicaDataModule
from rhm import InvalidInput
from rules.base.contract import Step, Updates

KNOWLEDGE = ("none", "grammar", "labels")
"""What a rule may learn from beyond strings; one that learns from two of them says the last."""
OTHER_LABELS, OTHER_SYMBOLS = "other labels", "other hidden symbols"
KNOWN_BY = {OTHER_LABELS: "labels", OTHER_SYMBOLS: "grammar"}
"""What a rule must say that sees a change."""
STRINGS = 8
"""Of a batch, with which a rule is tried."""


class Knowledge(pl.LightningModule):
    """Says what hidden layers learn from, and is tried once, at the start of a run.

    Attributes:
        knowledge: what the rule learns from beyond strings and its pairs: ``none``, ``labels`` or ``grammar``.
        uses_pairs: whether it learns from pairs, which bring a knowledge of their own.
        data: what it is trained on, once it has been prepared.
    """

    knowledge: str
    uses_pairs: bool
    data: ReplicaDataModule

    def compute(self, batch: Batch) -> Step:
        """Run network and readout."""
        raise NotImplementedError

    def layer_updates(self, step: Step) -> Updates:
        """What the rule says of a step."""
        raise NotImplementedError

    @property
    def supervision(self) -> str:
        """What the hidden layers learn from beyond strings: ``labels``, ``grammar`` or ``none``."""
        pairs = self.data.pairs.knowledge if self.uses_pairs and self.data.pairs is not None else "none"
        return max(self.knowledge, pairs, key=KNOWLEDGE.index)

    def check_said(self) -> None:
        """Refuse a class that does not say what it learns from.

        Raises:
            InvalidInput: it has no ``knowledge``, or an unknown one.
        """
        if (said := getattr(self, "knowledge", "nothing")) not in KNOWLEDGE:
            allowed = f"one of {', '.join(KNOWLEDGE)}, as a line of the class: what hidden layers learn from beyond strings"
            raise InvalidInput(f"{type(self).__name__}.knowledge", said, allowed)

    @torch.no_grad()
    def check_knowledge(self) -> None:
        """Ask copies of a rule without labels for the updates of the same strings, with other labels and other hidden symbols.

        Two of them are asked for the same: what differs there is noise. Weights, buffers and random states stay as they are.

        Raises:
            InvalidInput: updates, or what is tracked, depend on what the rule says it does not know.
        """
        batch, supervision = first_strings(self.data.train_batch(0)), self.supervision
        if supervision == "labels" or batch.x_RBD.shape[1] < 2:
            return
        tries = {OTHER_LABELS: with_other_labels(batch, self.data.task.n)}
        if supervision == "none":
            tries[OTHER_SYMBOLS] = batch._replace(derivation=batch.derivation.map(lambda symbols: symbols.roll(1, 1)))
        first, again = self._on_a_copy(batch), self._on_a_copy(batch)
        for change, others in tries.items():
            after = self._on_a_copy(others)
            for name in first.keys() | after.keys():
                if differ(first.get(name), again.get(name), after.get(name)):
                    got = f"{supervision}, but {name} is another with {change}"
                    allowed = f"{KNOWN_BY[change]}, or hidden layers that do not look at them"
                    raise InvalidInput(f"{type(self).__name__}.knowledge", got, allowed)

    def _on_a_copy(self, batch: Batch) -> dict[str, Tensor]:
        """Gradients and estimates by name, as one rank would have them."""
        data = copy.copy(self.data)
        data.rank, data.world = 0, 1
        rule = copy.deepcopy(self)
        rule.__dict__.update(data=data, _trainer=self._trainer)  # a rule may ask for its step
        devices = range(torch.cuda.device_count()) if batch.x_RBD.is_cuda else []
        with torch.random.fork_rng(devices):
            said = rule.layer_updates(rule.compute(batch))
        gradients = {f"{name} of layer {k}": grad for k, layer in enumerate(said.layers, 1) for name, grad in layer.items()}
        return gradients | {f"the estimate of {name}": value for name, value in said.estimates.items()}


def first_strings(batch: Batch) -> Batch:
    """Some strings of a batch."""
    return batch.map(lambda t: t[:, :STRINGS])


def with_other_labels(batch: Batch, classes: int) -> Batch:
    """The same strings with other classes, of which others are alike."""
    shift_B = 1 + torch.arange(batch.y_RB.shape[1], device=batch.y_RB.device)
    return batch._replace(y_RB=((batch.y_RB + shift_B) % classes).to(batch.y_RB.dtype))


def differ(first: Tensor | None, again: Tensor | None, other: Tensor | None) -> bool:
    """Whether the last is another one, by more than ten times what the same question has as noise."""
    if first is None or again is None or other is None or first.shape != other.shape:
        return first is not other
    noise = (first - again).abs().max() if first.numel() else 0.0
    return bool(((first - other).abs() > 10 * noise).any())

"""What all diagnostics share: when they look, that they touch nothing, and where their numbers go.

Shape suffixes: R replica, B batch, F features.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric

from callbacks.probes import varies
from callbacks.tensorboard import mean_and_std, shows_figures
from networks import LayerUpdate
from rules import LocalRule


class Diagnostic(Callback, ABC):
    """Measures something at every validation and after the run; ordinary steps cost nothing.

    A diagnostic runs the network itself, on strings that are a pure function of the step, and leaves weights, what the rule
    tracks, its losses and all random states as they were: a run with it and one without have the same weights, bit for bit.

    Attributes:
        prefix: of its TensorBoard tags.
        charted: what is drawn, all layers on a chart.
        values: what was measured last, by the rest of the tag, such as ``cosine/layer1``: ``[R]``, or ``[R, ...]`` for what is
            no single number. NaN where there is nothing to measure.
    """

    prefix: ClassVar[str]
    charted: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    def check(self, rule: LocalRule) -> None:
        """See, before training, that the rule has what is measured.

        Raises:
            InvalidInput: it has not.
        """

    @abstractmethod
    def measure(self, trainer: Trainer, rule: LocalRule) -> dict[str, Tensor]:
        """The values of a moment, the same on all ranks. Autograd is off."""

    def results(self) -> dict[str, Any]:
        """The last values as nested dictionaries, a list over replicas in each; None stands for what could not be measured."""
        tree: dict[str, Any] = {}
        for tag, values in self.values.items():
            *path, last = tag.split("/")
            branch = tree
            for name in path:
                branch = branch.setdefault(name, {})
            branch[last] = finite(values.tolist())
        return tree

    def charts(self, rule: LocalRule) -> dict[str, dict[str, str]]:
        """Charts for TensorBoard's custom scalars, by heading and name: the pattern of the tags on each."""
        return {self.prefix: {name: rf"^{self.prefix}/{name}/layer\d+$" for name in self.charted}}

    def draw(self, trainer: Trainer, rule: LocalRule) -> None:
        """Write a picture of the values, where someone looks."""

    # ---------------------------------------------------------------- Lightning's hooks

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the rule, as soon as there is one."""
        assert isinstance(pl_module, LocalRule)
        self.check(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure."""
        if not trainer.sanity_checking:
            self._look(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same as in validation."""
        self._look(trainer, pl_module)

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LocalRule)
        # Lightning validates in inference mode, whose tensors a later training step could not use; here they are ordinary ones
        with torch.inference_mode(False), torch.no_grad(), trainer.precision_plugin.train_step_context():
            measured = self.measure(trainer, pl_module)
        self.values = {tag: value.detach().double().cpu() for tag, value in measured.items()}
        numbers: dict[str, float] = {}
        for tag, value in self.values.items():
            if value.dim() == 1 and not value.isnan().all():
                numbers |= mean_and_std({f"{self.prefix}/{tag}": value[~value.isnan()]})
        pl_module.log_measured(numbers)
        if shows_figures(trainer) and pl_module.measured_step != trainer.global_step:
            self.draw(trainer, pl_module)


def finite(values: Any) -> Any:
    """A number, or nested lists of numbers, with None for what JSON does not have."""
    if isinstance(values, list):
        return [finite(value) for value in values]
    return values if math.isfinite(values) else None


def full(x: Tensor) -> Tensor:
    """At least single precision, for activity that is mixed."""
    return x.float() if x.dtype == torch.bfloat16 else x


def cosine(a_RF: Tensor, b_RF: Tensor) -> Tensor:
    """Of two vectors in each replica, ``[R]``; NaN if one is zero."""
    return (a_RF * b_RF).sum(1) / (a_RF.norm(dim=1) * b_RF.norm(dim=1))


def flat(update: LayerUpdate, names: list[str]) -> Tensor:
    """Some of a layer's gradients as one vector in each replica, ``[R, F]``."""
    return torch.cat([update[name].flatten(1).double() for name in names], 1)


def mean_over_ranks(rule: LocalRule, updates: list[LayerUpdate]) -> list[LayerUpdate]:
    """Updates averaged over the ranks that share a batch, as training averages them, by one reduction."""
    means = iter(rule.mean_over_ranks([grad for update in updates for grad in update.values()]))
    return [{name: next(means) for name in update} for update in updates]


class MeanOverStrings(Metric):
    """The mean over strings of the numbers that each has.

    Args:
        shape: of a string's numbers, in all replicas.
    """

    full_state_update = False
    sums: Tensor
    total: Tensor

    def __init__(self, *shape: int):
        super().__init__()
        self.add_state("sums", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add strings: ``[*shape, B]``."""
        self.sums += values.double().sum(-1)
        self.total += values.shape[-1]

    def compute(self) -> Tensor:
        """``[*shape]``, but that torchmetrics squeezes a single number."""
        return self.sums / self.total


class StringDistance(Metric):
    """``<|f(x) - f(y)|^2>`` over all pairs of different strings, from sums: ``2 N / (N - 1) (<|f|^2> - |<f>|^2)``.

    A feature that is the same for all strings adds exactly nothing, not what its sums were rounded by.

    Args:
        replicas: R.
        features: length of ``f``.
    """

    full_state_update = False
    sum_RF: Tensor
    square_RF: Tensor
    total: Tensor

    def __init__(self, replicas: int, features: int):
        super().__init__()
        for name in "sum_RF", "square_RF":
            self.add_state(name, torch.zeros(replicas, features, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, f_RBF: Tensor) -> None:
        """Add strings."""
        f_RBF = f_RBF.double()
        self.sum_RF += f_RBF.sum(1)
        self.square_RF += f_RBF.square().sum(1)
        self.total += f_RBF.shape[1]

    def compute(self) -> Tensor:
        """``[R]``, but that torchmetrics squeezes a single number; NaN for a single string."""
        mean_RF = self.sum_RF / self.total
        variance_RF = (self.square_RF / self.total - mean_RF.square()).clamp_min(0)
        variance_RF = variance_RF.where(varies(variance_RF.sqrt(), mean_RF, torch.float32) | ~variance_RF.isfinite(), 0.0)
        return 2 * self.total / (self.total - 1) * variance_RF.sum(1)

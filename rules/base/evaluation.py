"""Accuracy on test strings, and how it reaches loggers.

Shape suffixes: R replica, B batch, D position, C channel, N classes.
"""

from __future__ import annotations

import statistics

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from datamodules import TEST, Batch, ReplicaDataModule
from networks import LayeredNetwork, LayerState, Readout
from rules.base.metrics import ReplicaAccuracy
from rules.base.trainer_settings import check_monitored


class Evaluation(pl.LightningModule):
    """Validation and test: the states of all layers for callbacks, and the readout's accuracy.

    Attributes:
        test_accuracy_R: measured last.
        measured_step: the trainer's step at that time; None before.
    """

    network: LayeredNetwork
    readout: Readout
    accuracy: ReplicaAccuracy
    data: ReplicaDataModule
    test_accuracy_R: Tensor
    measured_step: int | None = None

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, list[LayerState]]:
        """States of all layers, for callbacks; accuracy on the test strings."""
        states: list[LayerState] = self(batch.x_RBD)
        if dataloader_idx == TEST:
            self.accuracy.update(self.answers(batch, states), batch.y_RB)
        return {"states": states}

    def answers(self, batch: Batch, states: list[LayerState]) -> Tensor:
        """A score of each class for each string, ``[R, B, N]``; the largest is the answer: the readout's logits."""
        return self.readout(states[-1].out_RBDC, batch.y_RB).logits_RBN

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, list[LayerState]]:
        """The same as in validation."""
        return self.validation_step(batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the accuracy on test strings: mean over replicas, and their standard deviation if there are several.

        A learning curve has the same for each of its training-set sizes, as ``test/accuracy_P{size}``.
        """
        self.test_accuracy_R = self.accuracy.compute().reshape(-1)  # torchmetrics squeezes a single number
        self.accuracy.reset()
        groups: dict[str, list[float]] = {"test/accuracy": self.test_accuracy_R.tolist()}
        if len(set(self.data.replica_sizes)) > 1:
            for size, accuracy in zip(self.data.replica_sizes, groups["test/accuracy"], strict=True):
                groups.setdefault(f"test/accuracy_P{size}", []).append(accuracy)
        values = {name: statistics.fmean(group) for name, group in groups.items()}
        values |= {f"{name}_std": statistics.stdev(group) for name, group in groups.items() if len(group) > 1}
        self.log_measured(values)
        self.measured_step = self.trainer.global_step
        check_monitored(self.trainer)

    def on_test_epoch_end(self) -> None:
        """The same as in validation."""
        self.on_validation_epoch_end()

    def log_measured(self, values: dict[str, float]) -> None:
        """Log what validation or test has measured.

        In a fit at the trainer's step, as Lightning's own is one behind. The test after a run's last validation measures the
        same again, and writes nothing. ``trainer.validate`` or ``trainer.test`` alone return the values, as in Lightning.
        """
        again = self.measured_step == self.trainer.global_step and bool(self.trainer.loggers)
        alone = self.trainer.state.fn != TrainerFn.FITTING and not again
        self.log_dict(values, logger=alone, rank_zero_only=True)  # else for callbacks that watch a number
        if not alone and not again and not self.trainer.sanity_checking:
            for logger in self.trainer.loggers:
                logger.log_metrics(values, self.trainer.global_step)
                logger.save()

"""The tab *HParams*: what a run was and what it reached, so that a folder of runs can be sorted.

Shape suffixes: R replica, K layer, L level.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger

from callbacks.find import callbacks_of
from callbacks.linear_probe import LayerwiseLinearProbe, on_own_level
from callbacks.tensorboard import log_scalars, writers
from rules import LocalRule

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Simple = int | float | str


class HyperParameters(Callback):
    """Write a run's settings and, at every validation and after the run, what it has reached.

    Columns of results: ``hp/accuracy`` and ``hp/accuracy_lowest`` over replicas, ``hp/probe_layer{k}`` of a layer on
    its own level (ridge, mean over replicas).
    """

    def __init__(self) -> None:
        self.written_step: int | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write what has been reached; the first time with the settings."""
        self._write(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same, unless a validation at this step has written it."""
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, rule: LightningModule) -> None:
        if trainer.sanity_checking or self.written_step == trainer.global_step:
            return
        assert isinstance(rule, LocalRule)
        reached = results(trainer, rule)
        if self.written_step is None:
            settings = hyper_parameters(trainer, rule)
            for logger in trainer.loggers:
                if not isinstance(logger, TensorBoardLogger):
                    logger.log_hyperparams(settings)
            for writer in writers(trainer):
                write_session(writer, settings, reached, trainer.global_step)
        log_scalars(trainer, reached)
        self.written_step = trainer.global_step


def write_session(writer: SummaryWriter, settings: dict[str, Simple], reached: dict[str, float], step: int) -> None:
    """Tell TensorBoard's tab of a run.

    The logger's own ``log_hyperparams`` also writes which columns there are, and TensorBoard then takes those of an arbitrary
    run for the whole folder. Without, it collects the columns of all runs, those that differ first.
    """
    from torch.utils.tensorboard.summary import hparams  # here, where TensorBoard is known to be

    _, start, end = hparams(settings, reached)
    for summary in start, end:
        writer._get_file_writer().add_summary(summary, step)


def results(trainer: Trainer, rule: LocalRule) -> dict[str, float]:
    """What a run has reached at its last validation or test."""
    accuracy_R = rule.test_accuracy_R.tolist()
    reached = {"hp/accuracy": math.fsum(accuracy_R) / len(accuracy_R), "hp/accuracy_lowest": min(accuracy_R)}
    for callback in callbacks_of(trainer):
        if isinstance(callback, LayerwiseLinearProbe) and callback.accuracy_KLR is not None:
            own_K = on_own_level(callback.accuracy_KLR, rule.network).mean(-1).tolist()
            reached |= {f"hp/probe_layer{k}": value for k, value in enumerate(own_K, 1) if not math.isnan(value)}
    return reached


def hyper_parameters(trainer: Trainer, rule: LocalRule) -> dict[str, Simple]:
    """The settings by which runs are compared, as numbers and words."""
    data, optimizer = rule.data, trainer.optimizers[0] if trainer.optimizers else rule.configure_optimizers()
    sizes = list(dict.fromkeys(data.replica_sizes))
    values: dict[str, Any] = {
        "rule": type(rule).__name__,
        "supervision": rule.supervision,
        "pairs": type(data.pairs).__name__ if rule.uses_pairs else "none",
        **data.task.given,
        **data.origin,
        "train_size": "stream" if sizes == [None] else sizes[0] if len(sizes) == 1 else " ".join(map(str, sizes)),
        "label_size": " ".join(map(str, dict.fromkeys(data.replica_label_sizes))) if data.label_sizes_R is not None else "all",
        "seeds": len(set(data.replica_seeds)),
        "replicas": data.replicas,
        "batch_size": data.batch_size,
        "steps": trainer.max_steps,
        "precision": trainer.precision,
        "optimizer": type(optimizer).__name__,
        "lr": float(optimizer.param_groups[0].get("initial_lr", optimizer.param_groups[0]["lr"])),
        "weight_decay": optimizer.param_groups[0].get("weight_decay"),
        "network": type(rule.network_config).__name__,
    }
    values = {**arguments(rule), **arguments(rule.network_config), **values}  # its own arguments do not hide what all runs have
    return {key: str(x).lower() if isinstance(x, bool) else x for key, x in values.items() if isinstance(x, Simple)}


def arguments(thing: object) -> dict[str, Any]:
    """What an object was made with, as far as it keeps it under the name of the argument; of a dataclass its fields."""
    given = {name: getattr(thing, name, None) for name in inspect.signature(type(thing).__init__).parameters if name != "self"}
    for name, value in list(given.items()):
        if is_dataclass(value) and not isinstance(value, type):
            given |= {f"{name}.{f.name}": getattr(value, f.name) for f in fields(value)}
    return given

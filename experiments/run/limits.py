"""What a run is refused before anything is trained or written."""

from __future__ import annotations

import math
from typing import Any

import torch
from jsonargparse import Namespace
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.accelerators import AcceleratorRegistry

from callbacks import Diagnostic
from datamodules import ReplicaDataModule
from experiments.files import flatten
from experiments.run import memory, ranks
from rhm import InvalidInput
from rules import LocalRule
from rules.base import trainer_settings
from rules.base.trainer_settings import TRAINER_SETTINGS, check_precision, check_setting
from rules.base.trainer_settings import precision_name as precision_name

STRATEGIES = ("auto", "ddp")
MATMUL_PRECISIONS = ("highest", "high", "medium")


def check_settings(trainer: Any, checkpoint_every: int | None, matmul_precision: str) -> None:
    """Refuse settings of a run, as the parser has read them.

    Args:
        trainer: settings of the trainer, or what a file has in their place.
        checkpoint_every, matmul_precision: of the run.

    Raises:
        InvalidInput: one that means something else here, or that this machine does not have.
    """
    if not isinstance(trainer, Namespace):
        raise InvalidInput("trainer", trainer, "settings that `rhm fit --help` lists under trainer")
    check_precision(trainer.precision)
    usable = accelerators()
    if isinstance(trainer.accelerator, str) and trainer.accelerator not in usable:
        raise InvalidInput("trainer.accelerator", trainer.accelerator, f"{' or '.join(usable)}; this machine has no other")
    if isinstance(trainer.strategy, str) and trainer.strategy not in STRATEGIES:
        allowed = f"{' or '.join(STRATEGIES)}: ranks are processes of their own, and each holds whole layers"
        raise InvalidInput("trainer.strategy", trainer.strategy, allowed)
    for key in TRAINER_SETTINGS:
        check_setting(key, trainer[key])
    if checkpoint_every is None or checkpoint_every < 1:
        raise InvalidInput("checkpoint_every", checkpoint_every, "an integer of at least 1")
    if matmul_precision not in MATMUL_PRECISIONS:
        raise InvalidInput("matmul_precision", matmul_precision, f"one of {', '.join(MATMUL_PRECISIONS)}")


def check_finite(settings: dict[str, Any]) -> None:
    """Refuse numbers that are none.

    Raises:
        InvalidInput: infinity or NaN.
    """
    for key, value in flatten(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInput(key.replace(".init_args", ""), value, "a finite number")


def check_memory(rule: LocalRule, data: ReplicaDataModule, trainer: Any) -> None:
    """Refuse a run that does not fit into the memory that is free.

    Args:
        rule: not yet prepared.
        data: what this process trains on.
        trainer: settings of the trainer.

    Raises:
        InvalidInput: network, data and rule do not fit together, or into the memory.
    """
    gpus = torch.cuda.device_count() if trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else 0
    devices = trainer.devices if not isinstance(trainer.devices, str) else trainer.devices.strip("[]").split(",")
    count = len(devices) if isinstance(devices, list) and "auto" not in devices else devices
    count = count if isinstance(count, int) and count > 0 else max(1, gpus)
    memory.check_run(rule, data, gpus > 0, count * (trainer.num_nodes if isinstance(trainer.num_nodes, int) else 1))


def check_optimizer(rule: LocalRule) -> None:
    """Refuse an optimizer that does not fit the gradients of a prepared rule.

    Raises:
        InvalidInput: it refuses its settings or parameter groups, or wants sparse gradients.
    """
    try:
        optimizer = rule.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise InvalidInput("model.optimizer", error, "settings that this optimizer takes") from error
    if isinstance(optimizer, torch.optim.SparseAdam):  # which says so only in the first step
        raise InvalidInput("model.optimizer", "SparseAdam", "an optimizer of dense gradients, such as Adam")


def check_trainer(trainer: Trainer, callbacks: list[Callback], rule: LocalRule, data: ReplicaDataModule, spread: bool) -> None:
    """Refuse ranks that do not fit the launcher or the batch, and diagnostics that do not fit the rule.

    Args:
        trainer: with its strategy.
        callbacks: of the run.
        rule, data: what is trained.
        spread: whether replicas are spread over ranks, which then know nothing of one another.

    Raises:
        InvalidInput: they do not fit.
    """
    trainer_settings.check_trainer(trainer)
    rule.check()
    if not spread:
        ranks.check_ranks(trainer)
    if data.batch_size % trainer.world_size:
        raise InvalidInput("data.batch_size", data.batch_size, f"a multiple of the number of ranks, {trainer.world_size}")
    diagnostics = [callback for callback in callbacks if isinstance(callback, Diagnostic)]
    for callback in diagnostics:
        callback.check(rule)
        if sum(type(callback) is type(other) for other in diagnostics) > 1:
            raise InvalidInput("trainer.callbacks", f"{type(callback).__name__} twice", "each diagnostic once")


def accelerators() -> list[str]:
    """What ``trainer.accelerator`` may be on this machine."""
    found = [name for name, item in AcceleratorRegistry.items() if item["accelerator"].is_available()]
    return ["auto", *sorted(found), *(["gpu"] if {"cuda", "mps"} & {*found} else [])]

"""What a trainer may be: settings and callbacks that mean something else, or nothing, where updates are made by hand."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import (
    BatchSizeFinder,
    DeviceStatsMonitor,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
)
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from datamodules import ReplicaDataModule
from rhm import InvalidInput
from rhm.errors import nearest


def _whole(limit: float | None) -> bool:
    """Whether a limit on batches is none; of 1 the parser may make a share of 1.0 or one batch."""
    return limit is None


TRAINER_SETTINGS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "fast_dev_run": (lambda x: not x, "false; use `rhm check` or a small trainer.max_steps"),
    "overfit_batches": (lambda x: not x, "0; use a small data.train_size"),
    "max_steps": (lambda x: x is not None and x >= 1, "an integer of at least 1: a run's length is counted in steps"),
    "max_epochs": (lambda x: x in (None, -1), "-1: a run's length is trainer.max_steps"),
    "val_check_interval": (lambda x: isinstance(x, int) and x >= 1, "an integer of at least 1, in steps"),
    "gradient_clip_val": (lambda x: x is None, "null; model.clip clips each layer"),
    "accumulate_grad_batches": (lambda x: x == 1, "1; use a larger data.batch_size"),
    "limit_train_batches": (_whole, "null; use trainer.max_steps"),
    "limit_val_batches": (lambda x: x == 0 or _whole(x), "null, or 0 for no validation; use data.test_size"),
    "limit_test_batches": (_whole, "null; use data.test_size"),
}
"""Trainer settings that mean something else here: what is allowed, as a test and in words."""
IN_TEST = ("limit_test_batches", "limit_val_batches")
"""Those that count where nothing is trained."""
SHARES = ("val_check_interval", "limit_train_batches", "limit_val_batches", "limit_test_batches")
"""Settings of which a trainer says 1.0 where nothing was said."""
PRECISIONS = ("32-true", "64-true", "bf16-mixed")
CALLBACKS: dict[type[Callback], str] = {
    StochasticWeightAveraging: "EMAWeightAveraging, or CosineDecay: it counts epochs",
    LearningRateFinder: "the search of a study (`rhm sweep`), or runs with several rates: it needs a loss that autograd knows",
    BatchSizeFinder: "data.batch_size as it is: it is a setting of the experiment",
    GradientAccumulationScheduler: "a larger data.batch_size",
    ModelPruning: "weights under their own names, by which updates reach them",
}
"""Lightning's callbacks that need a backward pass or epochs, and what to use instead."""


def precision_name(value: Any) -> str:
    """What ``trainer.precision`` says: 32, "32" and nothing are "32-true"."""
    return {"None": "32-true", "32": "32-true", "64": "64-true"}.get(str(value), str(value))


def check_precision(value: Any) -> None:
    """Refuse a precision in which updates would be wrong.

    Raises:
        InvalidInput: one that scales losses, or has weights of half precision.
    """
    if (precision := precision_name(value)) not in PRECISIONS:
        allowed = f"one of {', '.join(PRECISIONS)}; hand-made gradients are not scaled"
        raise InvalidInput("trainer.precision", precision, allowed)


def check_setting(name: str, value: Any) -> None:
    """Refuse a value of a setting of :data:`TRAINER_SETTINGS`.

    Raises:
        InvalidInput: it means something else here.
    """
    fits, allowed = TRAINER_SETTINGS[name]
    if not fits(value):
        raise InvalidInput(f"trainer.{name}", value, allowed)


def check_trainer(trainer: Trainer) -> None:
    """Refuse a trainer, built by whomever, that would train something else, never end, or fail on the way.

    Raises:
        InvalidInput: a prediction, a setting or a callback that does not fit.
    """
    fits = trainer.state.fn in (TrainerFn.FITTING, None)
    if trainer.state.fn == TrainerFn.PREDICTING:
        raise InvalidInput("trainer.predict", "a rule", "rule(x_RBD), which gives its layers' states, or trainer.test")
    check_precision(trainer.precision)
    for name in TRAINER_SETTINGS if fits else IN_TEST:
        value = getattr(trainer, name, "a time")
        if name in SHARES and isinstance(value, float) and value == 1.0:  # nothing was said
            continue
        check_setting(name, value)
    if not fits:
        return
    for callback in callbacks_of(trainer):
        for kind, instead in CALLBACKS.items():
            if isinstance(callback, kind):
                raise InvalidInput("trainer.callbacks", type(callback).__name__, instead)
        if isinstance(callback, DeviceStatsMonitor) and callback._cpu_stats is not False and find_spec("psutil") is None:
            allowed = "DeviceStatsMonitor with cpu_stats=False, or psutil, which is not installed"
            raise InvalidInput("trainer.callbacks", "DeviceStatsMonitor", allowed)
    validates = trainer.limit_val_batches and isinstance(trainer.val_check_interval, int)
    if not validates and (watching := [*monitored(trainer)]):
        allowed = "trainer.val_check_interval in steps: it watches what a validation measures"
        raise InvalidInput("trainer.callbacks", f"{watching[0]} in a run without validation", allowed)
    if not validates and trainer.limit_val_batches:
        rank_zero_warn("no validation in this run: trainer.val_check_interval, in steps, was not given")


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """A trainer's callbacks, which Lightning does not declare."""
    return list(vars(trainer).get("callbacks", []))


def monitored(trainer: Trainer) -> dict[str, str]:
    """The metrics that callbacks need, such as ``test/accuracy``, by the callback's description."""
    watching = [c for c in callbacks_of(trainer) if isinstance(c, EarlyStopping | ModelCheckpoint) and c.monitor is not None]
    return {f"{type(c).__name__} of {c.monitor}": str(c.monitor) for c in watching if getattr(c, "strict", True)}


def check_monitored(trainer: Trainer) -> None:
    """Refuse, at the end of the first validation of a fit, a metric that it has not measured.

    Raises:
        InvalidInput: a callback waits for it.
    """
    if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
        return
    for callback, name in monitored(trainer).items():
        if name not in trainer.callback_metrics:
            known = ", ".join(sorted(trainer.callback_metrics))
            raise InvalidInput("trainer.callbacks", callback, f"one of {known}{nearest(name, trainer.callback_metrics)}")


def check_datamodule(trainer: Trainer) -> ReplicaDataModule:
    """The datamodule that a trainer was given.

    Raises:
        InvalidInput: none, loaders instead, or one of another kind.
    """
    hooks = trainer._data_connector._datahook_selector
    data = None if hooks is None else hooks.datamodule  # of this call; trainer.datamodule is that of any before
    if not isinstance(data, ReplicaDataModule):
        what = f"trainer.{trainer.state.fn.value}" if trainer.state.fn else "trainer.fit"
        got = "no datamodule" if data is None else type(data).__name__
        raise InvalidInput(
            "data", got, f"an RHMDataModule or a StringsDataModule, as in {what}(rule, datamodule=RHMDataModule())"
        )
    return data

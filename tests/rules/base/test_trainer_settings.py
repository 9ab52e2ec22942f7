"""What a trainer may be, whoever has built it."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning import callbacks
from rule_helpers import make_data
from torch.utils.data import DataLoader

import rules.base.trainer_settings as trainer_settings
from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.backprop import Backprop
from rules.base.trainer_settings import TRAINER_SETTINGS

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def trainer(**settings) -> pl.Trainer:
    return pl.Trainer(**{"max_steps": 4, "val_check_interval": 2, "accelerator": "cpu", **QUIET, **settings})


def rule() -> Backprop:
    return Backprop(HierarchicalNetwork(width=12))


def refused(call, *args, **kwargs) -> InvalidInput:
    with pytest.raises(InvalidInput) as error:
        call(*args, **kwargs)
    assert "\n" not in str(error.value)
    return error.value


WRONG = {
    "fast_dev_run": True,
    "overfit_batches": 2,
    "max_steps": -1,
    "max_epochs": 5,
    "val_check_interval": 0.5,
    "gradient_clip_val": 1.0,
    "accumulate_grad_batches": 2,
    "limit_train_batches": 1,
    "limit_val_batches": 3,
    "precision": "16-true",
}


@pytest.mark.parametrize("key", WRONG)
def test_a_trainer_that_would_train_something_else_is_refused_by_its_setting(key):
    error = refused(trainer(**{key: WRONG[key]}).fit, rule(), make_data())
    assert error.key == f"trainer.{key}" and error.got == WRONG[key]


def test_every_setting_of_the_table_is_refused_somewhere():
    assert TRAINER_SETTINGS.keys() <= {*WRONG, "limit_test_batches"}
    assert refused(trainer(limit_test_batches=1).test, rule(), make_data()).key == "trainer.limit_test_batches"


@pytest.mark.parametrize("settings", [{}, {"max_epochs": 1}, {"max_time": "00:00:00:05"}], ids=str)
def test_a_run_without_a_number_of_steps_would_not_end(settings):
    """What everybody tries first."""
    error = refused(pl.Trainer(accelerator="cpu", **QUIET, **settings).fit, rule(), make_data())
    assert error.key == "trainer.max_steps" and "counted in steps" in error.allowed


def test_a_time_between_validations_is_refused():
    try:
        made = trainer(val_check_interval="00:00:00:05")
    except TypeError:
        pytest.skip("this version of Lightning takes no time here")
    assert refused(made.fit, rule(), make_data()).key == "trainer.val_check_interval"


def test_a_trainer_that_is_told_its_steps_alone_trains_and_warns_that_it_does_not_validate():
    untold = {"max_steps": 4, "accelerator": "cpu", **QUIET}
    with pytest.warns(UserWarning, match="no validation in this run"):
        pl.Trainer(**untold).fit(one := rule(), make_data())
    trainer().fit(other := rule(), make_data())
    assert all(torch.equal(value, one.state_dict()[name]) for name, value in other.state_dict().items())


@pytest.mark.parametrize("method", ["validate", "test"])
def test_a_rule_that_was_not_trained_can_be_measured(method):
    assert 0 <= getattr(trainer(), method)(rule(), make_data(), verbose=False)[0]["test/accuracy"] <= 1


def test_there_is_nothing_to_predict():
    assert "rule(x_RBD)" in refused(trainer().predict, rule(), make_data()).allowed


@pytest.mark.parametrize("method", ["fit", "validate", "test"])
def test_a_run_without_a_datamodule_is_refused(method):
    assert f"trainer.{method}(rule, datamodule=" in refused(getattr(trainer(), method), rule()).allowed


def test_loaders_are_refused_also_after_a_run_with_a_datamodule():
    used, trained = trainer(), rule()
    used.fit(trained, make_data())
    assert refused(used.fit, trained, train_dataloaders=DataLoader([1, 2])).got == "no datamodule"
    assert refused(used.validate, trained).got == "no datamodule"
    assert refused(trainer().fit, trained, make_data()).got == "another datamodule"


CANNOT = {
    "StochasticWeightAveraging": lambda: callbacks.StochasticWeightAveraging(0.01),
    "LearningRateFinder": callbacks.LearningRateFinder,
    "BatchSizeFinder": callbacks.BatchSizeFinder,
    "GradientAccumulationScheduler": lambda: callbacks.GradientAccumulationScheduler({0: 2}),
    "ModelPruning": lambda: callbacks.ModelPruning("l1_unstructured", amount=0.5),
}


@pytest.mark.parametrize("name", CANNOT)
def test_a_callback_that_cannot_work_is_refused_with_what_to_use_instead(name):
    error = refused(trainer(callbacks=[CANNOT[name]()]).fit, rule(), make_data())
    assert (error.key, error.got) == ("trainer.callbacks", name) and error.allowed


def test_device_stats_without_psutil_are_refused(monkeypatch):
    monkeypatch.setattr(trainer_settings, "find_spec", lambda name: None)
    assert "psutil" in refused(trainer(callbacks=[callbacks.DeviceStatsMonitor()]).fit, rule(), make_data()).allowed


WATCHING = {
    "EarlyStopping": lambda name: callbacks.EarlyStopping(name),
    "ModelCheckpoint": lambda name: callbacks.ModelCheckpoint(monitor=name),
}


@pytest.mark.parametrize("kind", WATCHING)
def test_a_metric_that_is_not_there_is_refused_at_the_first_validation(kind, tmp_path):
    settings = {"enable_checkpointing": True, "default_root_dir": tmp_path}
    used = trainer(callbacks=[WATCHING[kind]("test/acuracy")], **settings)
    error = refused(used.fit, rule(), make_data())
    assert error.got == f"{kind} of test/acuracy" and "did you mean 'test/accuracy'" in error.allowed
    assert used.global_step == 2
    trainer(callbacks=[WATCHING[kind]("test/accuracy")], **settings).fit(rule(), make_data())


@pytest.mark.parametrize("settings", [{"limit_val_batches": 0}, {"val_check_interval": None}], ids=str)
def test_a_callback_that_watches_a_metric_needs_validations(settings):
    error = refused(trainer(callbacks=[callbacks.EarlyStopping("test/accuracy")], **settings).fit, rule(), make_data())
    assert "without validation" in error.got


ALLOWED = {
    "Timer": lambda: callbacks.Timer("00:01:00:00"),
    "ModelSummary": callbacks.ModelSummary,
    "LearningRateMonitor": callbacks.LearningRateMonitor,
    "EarlyStopping": lambda: callbacks.EarlyStopping("nothing", strict=False),
    "RichProgressBar": callbacks.RichProgressBar,
}


def test_other_callbacks_change_no_weight(tmp_path):
    trainer().fit(alone := rule(), make_data())
    settings = {"logger": pl.loggers.CSVLogger(tmp_path), "enable_progress_bar": True, "enable_model_summary": True}
    used = trainer(callbacks=[make() for make in ALLOWED.values()], **settings)
    used.fit(watched := rule(), make_data())
    assert used.global_step == 4
    assert all(torch.equal(value, watched.state_dict()[name]) for name, value in alone.state_dict().items())


@pytest.mark.skipif(not hasattr(callbacks, "EMAWeightAveraging"), reason="of later versions of Lightning")
def test_averaged_weights_are_those_of_the_steps():
    """The callback copies the network when it sets up: there must be one by then."""
    trainer().fit(alone := rule(), make_data())
    trainer(callbacks=[callbacks.EMAWeightAveraging(decay=1.0)]).fit(averaged := rule(), make_data())
    start = rule().prepare(make_data())
    trainer(max_steps=1).fit(first := rule(), make_data())
    weights = [r.readout.weight_RFN for r in (alone, averaged, first, start)]
    assert not torch.equal(weights[1], weights[0])
    assert any(torch.equal(weights[1], w) for w in weights[2:])

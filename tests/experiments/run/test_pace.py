"""Several steps in a call of the trainer: nothing that a person sees is another."""

from __future__ import annotations

import signal

import pytest
import torch
from command_line import refused
from pytorch_lightning import Callback
from rule_helpers import RULES, every, from_settings, train
from run_processes import SIGNAL, assert_same_run, fit, results, steps
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.step_log import StepLog
from experiments.cli import main
from experiments.run.pace import operations, steps_per_call
from rhm import InvalidInput
from rules import LocalRule

PACES = {"trainer__val_check_interval": 20, "checkpoint_every": 10}
LOG = ["--trainer.callbacks=StepLog", "--trainer.callbacks.every=5"]


def points(run_dir) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows but for times."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "per_second" not in tag]
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags}


@pytest.mark.parametrize("name", every(6, RULES))
def test_steps_of_one_call_are_those_of_calls_of_one_for_every_rule(name):
    found = []
    for each in 1, 3:
        rule = from_settings(name, seeds=(0, 1))
        rule.steps_per_call = each
        found.append({key: value.clone() for key, value in train(rule).items()})
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())


@pytest.mark.parametrize("decay", [[], ["--trainer.callbacks+=CosineDecay"]], ids=["", "a rate that falls"])
def test_a_run_of_five_steps_a_call_is_that_of_one(decay, tmp_path, monkeypatch):
    """Weights, results, checkpoints and events; a run's end need not be a multiple."""
    calls, step = [], LocalRule.training_step

    def count(self, batch, batch_idx):
        calls.append(self.trainer.global_step)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LocalRule, "training_step", count)
    for each in 1, 5:
        main(fit(tmp_path / str(each), *LOG, *decay, **PACES, trainer__max_steps=47, steps_per_call=each))
    assert calls == [*range(47), *range(0, 47, 5)]
    assert_same_run(tmp_path / "1", tmp_path / "5")
    assert steps(tmp_path / "1") == steps(tmp_path / "5") == [40, 47]
    one, five = points(tmp_path / "1"), points(tmp_path / "5")
    assert one == five and [step for step, _ in one["test/accuracy"]] == [20, 40, 47]


@pytest.mark.parametrize("each", [pytest.param(1, marks=pytest.mark.chaos), 5, pytest.param(10, marks=pytest.mark.chaos)])
def test_a_run_that_was_stopped_goes_on_with_any_number_of_steps_a_call(each, tmp_path):
    """From step 47, in the middle of a call; validations come at the steps at which they would have come."""
    stopped = tmp_path / "a"
    at = {"trainer__callbacks__step": 47, "trainer__callbacks__signum": int(signal.SIGTERM)}
    with pytest.raises(SystemExit):
        main(fit(stopped, SIGNAL, **PACES, **at, trainer__max_steps=100))
    main(fit(stopped, **PACES, trainer__max_steps=100, steps_per_call=each))
    assert [step for step, _ in points(stopped)["test/accuracy"]] == [20, 40, 60, 80, 100]
    main(fit(tmp_path / "b", **PACES, trainer__max_steps=100))
    assert_same_run(tmp_path / "b", stopped)
    assert results(stopped)["status"] == "finished"


@pytest.mark.parametrize(
    ("each", "words"), [(0, "at least 1"), (7, "trainer.val_check_interval=20"), (4, "checkpoint_every=10")]
)
def test_a_number_that_does_not_fit_the_paces_is_refused(each, words, tmp_path, capsys):
    paces = {"trainer__val_check_interval": 20, "checkpoint_every": 10}
    line = refused(capsys, *fit(tmp_path / "a", **paces, steps_per_call=each))
    assert f"steps_per_call: got {each}" in line and words in line and not list(tmp_path.iterdir())


def test_calls_are_as_long_as_paces_and_patience_allow():
    paces, found = {"trainer.val_check_interval": 500, "checkpoint_every": 100}, []
    for width in 8, 512, 2048:
        rule = from_settings("backprop", f"--model.network.width={width}", "--data.batch_size=128", seeds=(0,))
        found.append(steps_per_call(None, rule, rule.data, dict(paces), []))
    assert found[0] == 100 and 1 < found[1] < 100 and found[2] == 1 and not 100 % found[1], found


def test_a_callback_that_looks_at_steps_has_a_pace_and_a_persons_own_sees_each_step():
    class Looks(Callback):
        def on_train_batch_end(self, *_):
            pass

    rule = from_settings("backprop", "--model.network.width=8", "--data.batch_size=128", seeds=(0,))
    for callbacks, each in (([], 100), ([Callback()], 100), ([StepLog(every=30)], 10), ([StepLog(every=30), Looks()], 1)):
        assert steps_per_call(None, rule, rule.data, {"checkpoint_every": 100}, callbacks) == each
    assert steps_per_call(5, rule, rule.data, {"checkpoint_every": 100}, [Looks()]) == 5, "what is asked for"
    with pytest.raises(InvalidInput, match=r"steps_per_call: got 20, .* StepLog.every=30"):
        steps_per_call(20, rule, rule.data, {"checkpoint_every": 100}, [StepLog(every=30)])


def test_partners_are_work_and_weights_of_their_own_at_each_position_are_none():
    def work(*args):
        rule = from_settings("lpl", "--model.block.separate_heads=false", "--model.block.head=null", *args)
        return operations(rule, rule.data)

    assert work("--data.pairs=ClassPairs") == 2 * work()
    assert work("--model.network=LocallyConnectedNetwork") == work() > 0

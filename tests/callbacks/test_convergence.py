"""A run ends when it has converged, on the step on which it would have without a stop.

Shape suffixes: R replica, W losses of the rule.
"""

from __future__ import annotations

import json
import math

import pytest
import torch
from command_line import SMALL, rhm, weights

from callbacks.convergence import Convergence
from rhm import InvalidInput


def by_hand(losses, own, replica):
    """The first step at which a replica has converged, from lists ``[look][loss][replica]``; None if it has not."""
    for last in range(1, len(losses) + 1):
        done = True
        for w in range(len(losses[0])):
            mean = lowest = losses[0][w][replica]
            since = 1
            for look in range(2, last + 1):
                mean += (losses[look - 1][w][replica] - mean) / min(look, own.window)
                if mean < lowest - own.tolerance * abs(lowest):
                    lowest, since = mean, look
            latest = [losses[look][w][replica] for look in range(max(0, last - own.window), last)]
            small = len(latest) == own.window and all(abs(loss) < own.threshold for loss in latest)
            done &= small or (last - since) * own.every >= own.patience or not math.isfinite(mean)
        if done:
            return last * own.every
    return None


def test_the_step_at_which_replicas_converge_is_that_of_loops_over_looks_losses_and_replicas():
    torch.manual_seed(0)
    own = Convergence(threshold=0.05, patience=60, tolerance=0.02, window=3, every=10)
    t = torch.arange(80.0)[:, None, None]
    losses = torch.exp(-t / torch.tensor([[4.0, 20, 20], [6, 3, 5]])) + torch.tensor([[0, 0.3, 0], [0, -2, 0.2]])
    losses = (losses + 0.01 * torch.randn(80, 2, 3)).double()
    losses[24:, 0, 1] = math.nan
    for look, loss_WR in enumerate(losses, 1):
        own.look(look * own.every, loss_WR)
    found = own.ended_R.tolist()
    assert found == [by_hand(losses.tolist(), own, r) for r in range(3)] and 0 not in found and len(set(found)) == 3


def test_the_first_looks_are_averaged_and_later_ones_forgotten():
    own, means = Convergence(window=4, every=1), []
    for look, loss in enumerate([4.0, 0, 0, 0, 0, 8], 1):
        own.look(look, torch.tensor([[loss]]))
        means.append(own.seen["mean"].item())
    assert means == pytest.approx([4, 2, 4 / 3, 1, 0.75, 0.5625 + 2])


def test_a_loss_under_its_threshold_ends_nothing_before_a_window_is_full_and_a_slow_fall_is_an_improvement():
    own = Convergence(threshold=0.5, patience=40, tolerance=0.1, window=4, every=10)
    for look in range(1, 4):
        own.look(10 * look, torch.tensor([[0.1]]))
        assert not own.ended_R
    own.look(40, torch.tensor([[0.1]]))
    assert own.ended_R
    negative = Convergence(threshold=0.5, patience=100, window=2, every=10)
    for look in range(1, 6):
        negative.look(10 * look, torch.tensor([[-2.0]]))
        assert not negative.ended_R  # it may fall further
    slow = Convergence(threshold=0, patience=40, tolerance=0.1, window=1, every=10)
    for look in range(1, 100):  # 3 % a look, a tenth in four
        slow.look(10 * look, torch.tensor([[-1.0 * 1.03**look, 0.97**look]]).T)
        assert not slow.ended_R
    flat = Convergence(threshold=0, patience=40, tolerance=0.1, window=1, every=10)
    for look in range(1, 6):
        assert not (flat.looks and flat.ended_R)
        flat.look(10 * look, torch.tensor([[0.99**look]]))
    assert flat.ended_R


SETTINGS = {"threshold": 0.05, "patience": 300, "window": 2, "every": 4}
ARGUMENTS = [
    "fit",
    "--model=Backprop",
    *SMALL,
    "--data.train_size=[16,32]",
    "--model.optimizer.lr=0.03",
    "--checkpoint_every=8",
    "--tables=false",
]


def callback(**changes):
    return f"--trainer.callbacks={json.dumps([{'class_path': 'Convergence', 'init_args': {**SETTINGS, **changes}}])}"


def result(folder):
    return json.loads((folder / "results.json").read_text())


def test_a_run_ends_when_all_its_replicas_have_converged_and_a_resumed_one_at_the_same_step_with_the_same_weights(
    tmp_path, monkeypatch
):
    arguments = [*ARGUMENTS, "--data.train_size=[8,64]", "--trainer.max_steps=400", callback()]
    rhm(*arguments, f"--run_dir={tmp_path / 'a'}")
    whole = result(tmp_path / "a")
    assert 24 < whole["steps"] < 400 and whole["steps"] % 4 == 0 and whole["max_steps"] == 400 and whole["status"] == "finished"
    assert [replica["converged"] for replica in whole["replicas"]] == [True, True]
    first, last = sorted(replica["steps"] for replica in whole["replicas"])
    assert first < last == whole["steps"]
    seen = Convergence.look
    for stop in first, last:  # one replica has ended; both have, and the results are not written

        def look(self, step, loss_WR, stop=stop):
            seen(self, step, loss_WR)
            if step == stop:
                self.stopped = True

        def interrupted(self, trainer, pl_module, *_):
            if getattr(self, "stopped", False):
                raise KeyboardInterrupt

        folder = tmp_path / f"at{stop}"
        with monkeypatch.context() as patch, pytest.raises(SystemExit):
            patch.setattr(Convergence, "look", look)
            patch.setattr(Convergence, "on_test_start" if stop == last else "on_train_batch_start", interrupted)
            rhm(*arguments, f"--run_dir={folder}")
        rhm(*arguments, f"--run_dir={folder}")
        again = result(folder)
        assert again["steps"] == whole["steps"] and again["replicas"] == whole["replicas"]
        assert all(torch.equal(value, weights(folder)[name]) for name, value in weights(tmp_path / "a").items())


@pytest.mark.parametrize("rule", ["WeightMirror", pytest.param("Backprop", marks=pytest.mark.chaos)])
def test_a_replica_that_has_converged_keeps_what_it_would_have_alone(rule, tmp_path):
    """Weights, and what a rule tracks, whether or not its run goes on with another one's, and with many steps a call."""
    falls = '[{"class_path": "CosineDecay"}, ' + callback().partition("=[")[2]
    arguments = [
        "fit",
        f"--model={rule}",
        *ARGUMENTS[2:],
        "--trainer.max_steps=400",
        f"--trainer.callbacks={falls}",
        "--data.seeds=[3]",
    ]
    sizes, ends = (8, 64), []
    for size in sizes:
        rhm(*arguments, f"--data.train_size={size}", f"--run_dir={tmp_path / str(size)}")
        ends.append((result(tmp_path / str(size))["steps"], True))
    assert ends[0] != ends[1] and max(ends)[0] < 400
    for steps in 1, 2:
        folder = tmp_path / f"calls of {steps}"
        rhm(*arguments, f"--data.train_size={[*sizes]}", f"--steps_per_call={steps}", f"--run_dir={folder}")
        assert [(replica["steps"], replica["converged"]) for replica in result(folder)["replicas"]] == ends
        together = weights(folder)
        for r, size in enumerate(sizes):
            for key, value in weights(tmp_path / str(size)).items():
                torch.testing.assert_close(together[key][r], value[0], rtol=1e-4, atol=1e-5, msg=f"{size} {key}")


def test_a_run_that_hits_its_limit_says_which_replicas_had_converged_and_one_without_the_callback_says_nothing(tmp_path):
    rhm(*ARGUMENTS, "--trainer.max_steps=8", callback(), f"--run_dir={tmp_path / 'a'}")
    content = result(tmp_path / "a")
    assert content["steps"] == 8 and [replica["converged"] for replica in content["replicas"]] == [False, False]
    rhm(*ARGUMENTS, "--trainer.max_steps=8", f"--run_dir={tmp_path / 'b'}")
    assert [replica["converged"] for replica in result(tmp_path / "b")["replicas"]] == [None, None]


def test_rules_whose_layers_learn_in_turns_are_looked_at_after_the_last_one(tmp_path, monkeypatch):
    """A layer's noise falls over its turn: before its end nothing has converged, and layers are not compared with one another."""
    looks, look = [], Convergence.look
    monkeypatch.setattr(
        Convergence, "look", lambda own, step, loss_WR: looks.append((step, len(loss_WR))) or look(own, step, loss_WR)
    )
    arguments = ["fit", "-c=rules/exchange_clustering", *SMALL, "--tables=false", "--trainer.max_steps=60", "--model.turn=12"]
    for together, end in ("true", 24), ("false", 12):
        looks.clear()
        folder = tmp_path / together
        rhm(*arguments, f"--model.one_by_one={together}", callback(threshold=1e9), f"--run_dir={folder}")
        assert looks == [(end + 4, 1), (end + 8, 1)] and result(folder)["steps"] == end + 8


@pytest.mark.parametrize("wrong", [{"window": 0}, {"every": 0}, {"patience": 499}, {"tolerance": 1.0}, {"tolerance": -0.1}])
def test_numbers_that_are_none_are_refused(wrong):
    with pytest.raises(InvalidInput, match=f"Convergence.{next(iter(wrong))}"):
        Convergence(**wrong)

"""How many floating-point operations a rule takes."""

from __future__ import annotations

import pytest
import torch
from rule_helpers import RULES, every, from_settings, parsed
from torch.utils.flop_counter import FlopCounterMode

from experiments.run.hollow import hollow_batch
from experiments.run.memory import check_run
from experiments.run.operations import operations_of
from experiments.settings import build
from rules.backprop import Backprop

SIZES = ["--data.v=4", "--data.n=4", "--data.m=2", "--data.L=3", "--model.network.width=8"]


def test_backpropagation_takes_three_products_a_layer_but_two_at_the_tokens():
    rule = from_settings("backprop", *SIZES, "--data.batch_size=10")
    first, above, top = 4 * (2 * 4) * 8, (2 + 1) * (2 * 8) * 8, 8 * 4  # positions x inputs x units
    assert operations_of(rule, rule.data) == 2 * (2 * first + 3 * above + 3 * top)


def test_random_feedback_takes_what_backpropagation_does_and_direct_feedback_less():
    found = {
        name: operations_of(rule, rule.data)
        for name in ("backprop", "dfa", "feedback_alignment", "frozen")
        for rule in [of(name)]
    }
    assert found["backprop"] == found["feedback_alignment"] > found["dfa"] > found["frozen"]


def of(name):
    return build(parsed(name).clone())


@pytest.mark.parametrize("name", every(6, RULES))
def test_every_rule_is_counted_without_content_as_with_it(name):
    rule = of(name)
    found = operations_of(rule, rule.data)
    assert not hasattr(rule, "network")
    rule.prepare(rule.data)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        rule.updates(rule.compute(rule.data.train_batch(0)))
    assert found == counter.get_total_flops() / (rule.data.replicas * rule.data.batch_size)


@pytest.mark.parametrize("pairs", ["ClassPairs", "RandomHalfPairs", "MaskedPairs"])
def test_every_pass_that_pairs_take_is_counted(pairs):
    rule = from_settings("clapp", f"--data.pairs={pairs}")
    found = operations_of(rule, rule.data)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        rule.updates(rule.compute(rule.data.train_batch(0)))
    assert found == counter.get_total_flops() / (rule.data.replicas * rule.data.batch_size)


class Peeking(Backprop):
    """Looks at what tensors hold."""

    def layer_updates(self, step):
        assert float(step.readout.loss_RB.mean()) > 0
        return super().layer_updates(step)


class PeekingFirst(Backprop):
    """Does so before there is a network."""

    def prepare(self, data):
        assert int(data.train_batch(0).x_RBD.max()) > 0
        super().prepare(data)


@pytest.mark.parametrize("own", [Peeking, PeekingFirst])
def test_of_a_rule_that_looks_at_what_tensors_hold_nothing_is_said(own, monkeypatch):
    rule = of("backprop")
    own = own(rule.network_config)
    monkeypatch.setattr(rule.data, "train_batch", lambda step: hollow_batch(rule.data, 2, training=True))
    assert operations_of(own, rule.data) is None
    check_run(own, rule.data, on_gpu=False)


def test_one_rank_of_several_counts_the_whole_batch_and_asks_nothing_of_the_others():
    rule = of("sibling_contrastive")
    alone = operations_of(rule, rule.data)
    rule.data.rank, rule.data.world = 1, 2
    assert operations_of(rule, rule.data) == alone and (rule.data.rank, rule.data.world) == (1, 2)

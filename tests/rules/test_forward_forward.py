"""Forward-Forward: the classes that it shows, and what it comes to.

Shape suffixes: R replica, B batch, D position, C channel.
"""

from __future__ import annotations

import math

import pytest
import torch
from rule_helpers import compute, from_settings, train
from torch import Tensor

from rules import LocalRule


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def wrong_classes(rule: LocalRule, number: int) -> Tensor:
    """The class that the second half of a step's views shows, read from the first layer's label slot, ``[R, B]``."""
    step = compute(rule, number)
    v, size = rule.data.task.v, step.batch.x_RBD.shape[1]
    layer = rule.network.layers[0]
    state = layer.split(step.view_states[0], size)[1]
    return layer.unfold(state.input_RGMF, size)[..., 0, v:].argmax(-1)


def test_the_negative_class_is_every_class_but_the_strings_own():
    rule = from_settings("forward_forward", "--data.train_size=null", "--data.batch_size=1024", seeds=(0,))
    wrong = wrong_classes(rule, 0)
    count = torch.bincount((wrong - compute(rule).batch.y_RB.long()).flatten() % 4, minlength=4)
    assert count[0] == 0 and (count[1:] - 1024 / 3).abs().max() < 5 * math.sqrt(1024 * 2 / 9)
    assert not torch.equal(wrong, wrong_classes(rule, 1))


def test_readout_and_probes_see_the_string_without_a_class():
    rule = from_settings("forward_forward")
    step = compute(rule)
    with torch.no_grad():
        other = rule.compute(step.batch._replace(y_RB=(step.batch.y_RB + 1) % 4))
        neutral = rule.network(step.batch.x_RBD)
    for a, b, c in zip(step.states, other.states, neutral, strict=True):
        torch.testing.assert_close(a.out_RBDC, c.out_RBDC)
        assert torch.equal(a.out_RBDC, b.out_RBDC)
    assert torch.equal(step.readout.logits_RBN, other.readout.logits_RBN)


def test_the_goodness_of_right_and_wrong_classes_parts():
    slot = "--model.network.label_slot=true", "--model.network.normalise=true"
    dense = "--model.network=DenseNetwork", "--model.network.width=32", *slot
    rule = from_settings("forward_forward", *dense, "--model.optimizer.lr=1e-2", seeds=(0, 1))
    train(rule, 150)
    step = compute(rule, 200)
    for layer, both in zip(rule.network.layers, step.view_states, strict=True):
        right, wrong = (state.units_RGME.square().mean((1, 2, 3)) for state in layer.split(both, 16))
        assert (right > 1.2 * wrong).all()


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("--model.network.label_slot=false", "model.network.label_slot"),
        ("--model.network.normalise=false", "model.network.normalise"),
        ("--model.network.bottleneck=4", "model.network.bottleneck"),
        ("--model.threshold=0", "model.threshold"),
        ("--data.n=1", "data.n"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(argument, key):
    with pytest.raises(ValueError, match=f"{key}: got "):
        from_settings("forward_forward", argument)

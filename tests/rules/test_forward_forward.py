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
from rules.base.evaluation import TEST


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


@pytest.mark.parametrize("network", ["HierarchicalNetwork", "LocallyConnectedNetwork"])
def test_the_answer_is_the_class_with_the_largest_goodness_of_all_layers_but_the_first(network):
    """Against a loop over replicas, strings, classes and layers; with ``answer=readout`` it is the readout's."""
    slot = "--model.network.label_slot=true", "--model.network.normalise=true"
    args = f"--model.network={network}", "--model.network.width=6", *slot
    rule = from_settings("forward_forward", *args, "--data.batch_size=4", seeds=(0, 1))
    batch, n = compute(rule).batch, 4
    with torch.no_grad():
        states = rule.network(batch.x_RBD)
        answers = rule.answers(batch, states)
        for label in range(n):
            shown = rule.network(batch.x_RBD, torch.full_like(batch.y_RB, label))
            for r in range(2):
                for b in range(4):
                    total = 0.0
                    for layer, state in zip(list(rule.network.layers)[1:], shown[1:], strict=True):
                        units = layer.by_position(state.units_RGME, state)[r, b].flatten().tolist()
                        total += sum(unit**2 for unit in units) / len(units)
                    assert answers[r, b, label].item() == pytest.approx(total)
        rule.answer = "readout"
        assert torch.equal(rule.answers(batch, states), rule.readout(states[-1].out_RBDC, batch.y_RB).logits_RBN)


def test_the_answer_is_what_test_accuracy_counts():
    rule = from_settings("forward_forward", seeds=(0, 1))
    batch = compute(rule).batch
    rule.answers = lambda batch, states: torch.nn.functional.one_hot((batch.y_RB.long() + 1) % 4, 4)
    rule.validation_step(batch, 0, TEST)
    assert (rule.accuracy.compute() == 0).all()


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("--model.network.label_slot=false", "model.network.label_slot"),
        ("--model.network.normalise=false", "model.network.normalise"),
        ("--model.network.bottleneck=4", "model.network.bottleneck"),
        ("--model.threshold=0", "model.threshold"),
        ("--model.slope=0", "model.slope"),
        ("--model.answer=best", "model.answer"),
        ("--model.network.depth=1", "model.answer"),
        ("--data.n=1", "data.n"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(argument, key):
    with pytest.raises(ValueError, match=f"{key}: got "):
        from_settings("forward_forward", argument)

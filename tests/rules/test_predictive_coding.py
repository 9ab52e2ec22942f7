"""Predictive coding: what its settled errors are, and where they are backpropagation's.

Shape suffixes: R replica, B batch, D position, C channel.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import compute, make, updates

from networks import DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork
from rhm import InvalidInput
from rules.backprop import Backprop
from rules.predictive_coding import PredictiveCoding


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def off_the_kinks(rule) -> None:
    """Biases, so that no unit stands on the kink of ReLU, where the forward pass of silent patches is."""
    with torch.no_grad():
        for layer in rule.network.layers:
            layer.bias_RG1E.copy_(torch.linspace(-0.2, 0.31, layer.bias_RG1E.shape[-1]).expand_as(layer.bias_RG1E))


TANH = [network(12, activation="tanh") for network in (HierarchicalNetwork, LocallyConnectedNetwork, DenseNetwork)]


@pytest.mark.parametrize("network", TANH)
def test_as_the_nudge_tends_to_zero_the_update_is_that_of_backprop(network):
    apart = []
    for nudge in 1e-1, 1e-2, 1e-6:
        rule = make(PredictiveCoding, network, seeds=(0,), batch_size=4, steps=250, nudge=nudge)
        exact = make(Backprop, network, seeds=(0,), batch_size=4)
        off_the_kinks(rule)
        off_the_kinks(exact)
        ours, theirs = updates(rule, compute(rule)), updates(exact, compute(exact))
        assert all(a.keys() == b.keys() for a, b in zip(ours, theirs, strict=True))
        pairs = [(a[key], b[key]) for a, b in zip(ours, theirs, strict=True) for key in a]
        apart.append(max(float((a - b).norm() / b.norm()) for a, b in pairs))
    assert apart[2] < 1e-3 and 5 * apart[2] < apart[1] < apart[0] / 5


def test_one_step_carries_the_error_one_layer_down():
    for steps in 1, 2, 3:
        rule = make(PredictiveCoding, HierarchicalNetwork(12), steps=steps)
        reached = [bool(update["weight_RGFE"].any()) for update in updates(rule, compute(rule))]
        assert reached == [k > 3 - steps for k in (1, 2, 3)]


def test_settling_lowers_the_energy_until_nothing_is_left_of_its_slope():
    said = []
    for steps in 1, 5, 20, 400:
        rule = make(PredictiveCoding, HierarchicalNetwork(12, activation="tanh"), steps=steps)
        said.append(rule.layer_updates(compute(rule)).losses)
    energy = torch.stack([losses["loss/energy"] for losses in said])
    assert (energy[1:] < energy[:-1]).all()
    assert (said[-1]["loss/unsettled"] < 1e-4).all()


@pytest.mark.parametrize(
    ("arguments", "key"), [({"steps": 0}, "model.steps"), ({"rate": 0.0}, "model.rate"), ({"nudge": 0.0}, "model.nudge")]
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(PredictiveCoding, HierarchicalNetwork(12), **arguments)
    assert error.value.key == key

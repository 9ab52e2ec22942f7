"""Difference target propagation: with true inverses a target that is met below is the target above.

Shape suffixes: R replica, B batch; G groups, E channels handed on, F inputs.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import compute, make

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.dtp import DifferenceTargetPropagation


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_with_true_inverses_a_target_met_below_is_the_target_above():
    square = HierarchicalNetwork(4, patch=1, activation="linear")  # as many units as inputs: each layer can be undone
    rule = make(DifferenceTargetPropagation, square)
    with torch.no_grad():
        for layer in list(rule.network.layers)[1:]:
            layer.bias_RG1E.copy_(torch.linspace(-0.2, 0.3, 4).expand_as(layer.bias_RG1E))
            layer.get_parameter("inverse_RGEF").copy_(layer.weight_RGFE.inverse())
            layer.get_parameter("inverse_bias_RG1F").copy_(-layer.bias_RG1E @ layer.weight_RGFE.inverse())
        step = compute(rule)
        targets, said = rule.targets(step), rule.layer_updates(step)
        for k in (2, 3):
            torch.testing.assert_close(rule.network.layers[k - 1](targets[k - 2]).out_RBDC, targets[k - 1])
            assert not torch.equal(targets[k - 1], step.states[k - 1].out_RBDC)
            assert (said.losses[f"loss/inverse{k}"] < 1e-20).all()
            assert said.layers[k - 1]["inverse_RGEF"].abs().max() < 1e-10


@pytest.mark.parametrize(("arguments", "key"), [({"reach": 0.0}, "model.reach"), ({"sigma": 0.0}, "model.sigma")])
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(DifferenceTargetPropagation, HierarchicalNetwork(12), **arguments)
    assert error.value.key == key

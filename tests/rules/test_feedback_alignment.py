"""Feedback alignment: with the weights as feedback it is backpropagation.

Shape suffixes: those of the parameters.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import NETWORKS, assert_same, compute, make, set_buffer, updates

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.backprop import Backprop
from rules.feedback_alignment import FeedbackAlignment


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_feedback_alignment_with_the_weights_as_feedback_is_backprop(network):
    rule, exact = make(FeedbackAlignment, network), make(Backprop, network)
    step = compute(rule)
    for k, name, matrix in rule.carriers():
        set_buffer(rule, f"feedback_{k}_{name}", matrix)
    assert_same(updates(rule, step), updates(exact, step))
    k, name, _ = rule.carriers()[-1]
    rule.get_buffer(f"feedback_{k}_{name}").neg_()
    assert not torch.allclose(updates(rule, step)[0]["weight_RGFE"], updates(exact, step)[0]["weight_RGFE"])


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"form": "other"}, "model.form"),
        ({"feedback_scale": 0.0}, "model.feedback_scale"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(FeedbackAlignment, **{"network": HierarchicalNetwork(12), **arguments})
    assert error.value.key == key

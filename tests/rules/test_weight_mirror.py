"""Weight mirror: the feedback comes to the weights.

Shape suffixes: R replica.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import compute, cosine, make, track

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.weight_mirror import WeightMirror


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("activation", "scale"), [("linear", 1.0), ("relu", 0.5)])
def test_weight_mirror_comes_to_the_weights_in_a_linear_network_and_to_half_of_them_with_relu(activation, scale):
    network = HierarchicalNetwork(width=8, activation=activation, bottleneck=4)
    rule = make(WeightMirror, network, samples=60, rate=0.05)
    assert all(abs(cosine(rule.feedback(k, name), matrix)) < 0.6 for k, name, matrix in rule.carriers())
    for t in range(80):
        track(rule, compute(rule, t))
    for k, name, matrix in rule.carriers():
        for r in range(3):
            feedback, weight = rule.feedback(k, name)[r], matrix[r].detach()
            assert cosine(feedback, weight) > 0.99
            expected = scale if name == "weight_RGFE" else 1.0
            assert abs(float((feedback * weight).sum() / weight.square().sum()) / expected - 1) < 0.03, (k, name)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"samples": 0}, "model.samples"),
        ({"rate": 0.0}, "model.rate"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(WeightMirror, **{"network": HierarchicalNetwork(12), **arguments})
    assert error.value.key == key

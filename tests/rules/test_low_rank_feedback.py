"""Low-rank feedback: what its matrices come to, and how little goes down.

Shape suffixes: R replica, N classes.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import CLOSE, NETWORKS, assert_same, compute, make, track, updates

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.backprop import Backprop
from rules.low_rank_feedback import LowRankFeedback


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("bottleneck", [None, 4])
def test_low_rank_feedback_of_full_rank_with_q_from_the_weights_is_backprop(bottleneck):
    network = HierarchicalNetwork(width=4, bottleneck=bottleneck)  # as wide as there are classes
    rule, exact = make(LowRankFeedback, network), make(Backprop, network)
    with torch.no_grad():
        for k, name, matrix in rule.carriers():
            p = rule.get_buffer(f"P_{k}_{name}")
            p.copy_(torch.linalg.qr(p)[0])
            rule.parts[k - 1].get_parameter(f"Q_{name}").copy_(matrix @ p.transpose(-1, -2))
    step = compute(rule)
    assert_same(updates(rule, step), updates(exact, step), **CLOSE)


@pytest.mark.parametrize("network", ["shared, bottleneck", "local", "tanh"])
def test_low_rank_p_finds_the_leading_directions_of_the_errors(network):
    rule = make(LowRankFeedback, NETWORKS[network], rank=2, rate=0.5)
    step = compute(rule)
    for _ in range(600):
        track(rule, step)
    error, p = step.readout.error_RBN, rule.get_buffer("P_4_weight_RFN")
    covariance = error.mT @ error  # it does not depend on P
    values = torch.linalg.eigvalsh(covariance)
    kept = (p @ covariance @ p.mT).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(kept, values[:, -2:].sum(1), rtol=5e-3, atol=0)
    assert (values[:, -2:].sum(1) / values.sum(1) < 0.99).all()
    torch.testing.assert_close(p @ p.mT, torch.eye(2).expand(3, 2, 2), rtol=0, atol=1e-3)


def test_low_rank_feedback_hands_down_no_more_than_its_rank():
    rule = make(LowRankFeedback, HierarchicalNetwork(width=12), rank=2)
    for k, name, _ in rule.carriers():
        with torch.no_grad():
            assert torch.linalg.matrix_rank(rule.feedback(k, name)).unique().tolist() == [2]


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"rank": 0}, "model.rank"),
        ({"rank": 5}, "model.rank"),
        ({"decay": 1.0}, "model.decay"),
        ({"rate": 1.5}, "model.rate"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(LowRankFeedback, **{"network": HierarchicalNetwork(12), **arguments})
    assert error.value.key == key

"""GrAPE: direct feedback comes to point where the mean Jacobian does.

Shape suffixes: R replica, N classes, F positions times channels.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import compute, cosine, make, track

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.grape import GradientAlignedProjectedError, turned


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_in_a_linear_network_feedback_turns_to_the_transposed_weights_and_keeps_its_norm():
    rule = make(GradientAlignedProjectedError, HierarchicalNetwork(6, activation="linear"), batch_size=64)
    start = {k: rule.feedback(k).clone() for k in (1, 2, 3)}
    for step in range(400):
        track(rule, compute(rule, step))
    for k, weights in enumerate(rule.weight_products(), 1):
        assert cosine(rule.feedback(k), weights) > 0.9 > cosine(start[k], weights) + 0.5, k
        torch.testing.assert_close(rule.feedback(k).flatten(1).norm(dim=1), start[k].flatten(1).norm(dim=1))


def test_a_turn_raises_the_cosine_and_stops_at_one():
    generator = torch.Generator().manual_seed(0)
    feedback, jacobian = (torch.randn(3, 4, 10, generator=generator) for _ in range(2))
    before = cosine(feedback, jacobian)
    assert cosine(turned(feedback, jacobian, 0.1), jacobian) > before
    torch.testing.assert_close(turned(2.5 * jacobian, jacobian, 0.1), 2.5 * jacobian)


@pytest.mark.parametrize("rate", [0.0, 1.5])
def test_a_rate_that_cannot_be_is_refused(rate):
    with pytest.raises(InvalidInput, match="model.rate"):
        make(GradientAlignedProjectedError, HierarchicalNetwork(12), rate=rate)

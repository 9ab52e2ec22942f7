"""Direct difference target propagation: its feedback comes to be the pseudo-inverse of the way up.

Shape suffixes: R replica, B batch, N classes, F positions times channels.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import make, updates

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.ddtp import DirectTargetPropagation


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_in_a_linear_network_feedback_rests_at_the_damped_pseudo_inverse():
    """``Q = J^T (J J^T + decay)^-1``, ``J`` the product of the weights above: there the mean gradient over noise is 0."""
    rule = make(DirectTargetPropagation, HierarchicalNetwork(4, activation="linear"), seeds=(0,), decay=0.5)
    batch, copies = rule.data.train_batch(0), 2000
    batch = batch._replace(
        x_RBD=batch.x_RBD.repeat(1, copies, 1), y_RB=batch.y_RB.repeat(1, copies), key_RB=torch.arange(16 * copies)[None]
    )
    with torch.no_grad():
        step = rule.compute(batch)
        before = [update["feedback_RNF"].norm() for update in updates(rule, step)]
        for k, jacobian_RNF in enumerate(rule.weight_products(), 1):
            grown = jacobian_RNF @ jacobian_RNF.transpose(1, 2) + 0.5 * torch.eye(4)
            rule.feedback(k).copy_(torch.linalg.solve(grown, jacobian_RNF))
        after = [update["feedback_RNF"].norm() for update in updates(rule, step)]
    assert all(there < 0.05 * away for there, away in zip(after, before, strict=True))


def test_a_decay_under_zero_is_refused():
    with pytest.raises(InvalidInput, match="model.decay"):
        make(DirectTargetPropagation, HierarchicalNetwork(12), decay=-0.1)

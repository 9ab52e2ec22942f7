"""Activity perturbation: on average over noise it is the gradient.

Shape suffixes: R replica, B batch.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import compute, cosine, make, updates

from networks import DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork
from rhm import InvalidInput
from rules import LocalRule
from rules.activity_perturbation import ActivityPerturbation
from rules.backprop import Backprop
from rules.local_cross_entropy import LocalCrossEntropy


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("network", [HierarchicalNetwork(6, bottleneck=3), LocallyConnectedNetwork(6), DenseNetwork(6)])
@pytest.mark.parametrize("loss", ["local", "output"])
def test_on_average_over_noise_it_is_the_gradient_of_its_loss(network, loss):
    rule: LocalRule = make(ActivityPerturbation, network, seeds=(0,), loss=loss)
    exact: LocalRule = make(Backprop if loss == "output" else LocalCrossEntropy, network, seeds=(0,))
    for ours, theirs in zip(rule.network.layers, exact.network.layers, strict=True):
        theirs.load_state_dict(ours.state_dict())
    batch, copies = rule.data.train_batch(0), 8000
    batch = batch._replace(x_RBD=batch.x_RBD[:, :4].repeat(1, copies, 1), y_RB=batch.y_RB[:, :4].repeat(1, copies), key_RB=None)
    key = torch.arange(4 * copies)[None] * 7919 + 13
    with torch.no_grad():
        step, other = rule.compute(batch._replace(key_RB=key)), exact.compute(batch)
    for a, b in zip(updates(rule, step), updates(exact, other), strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert cosine(a[name], b[name]) > 0.97, name
            assert abs(float((a[name] * b[name]).sum() / b[name].square().sum()) - 1) < 0.1, name


def test_the_noise_of_an_update_is_that_of_the_channels_that_share_a_slope():
    """``sum_j g_j v_j v_i`` has a variance of ``g_i^2 + sum_j g_j^2``: of ``n`` channels alike, ``n + 1`` times that of ``g``."""
    exact, size = make(LocalCrossEntropy, HierarchicalNetwork(12)), {12: 0.0, 4: 0.0, 1: 0.0}
    rules = {group: make(ActivityPerturbation, HierarchicalNetwork(12), group=group) for group in size}
    for rule in rules.values():
        for ours, theirs in zip(rule.network.layers, exact.network.layers, strict=True):
            ours.load_state_dict(theirs.state_dict())
    for step in range(20):
        gradient = updates(exact, compute(exact, step))
        for group, rule in rules.items():
            for a, b in zip(updates(rule, compute(rule, step)), gradient, strict=True):
                size[group] += float((a["weight_RGFE"] - b["weight_RGFE"]).square().sum())
    assert size[12] / size[4] == pytest.approx(13 / 5, rel=0.2) and size[4] / size[1] == pytest.approx(5 / 2, rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"loss": "global"}, "model.loss"),
        ({"group": 0}, "model.group"),
        ({"group": 2, "loss": "output"}, "model.group"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(ActivityPerturbation, HierarchicalNetwork(12), **arguments)
    assert error.value.key == key

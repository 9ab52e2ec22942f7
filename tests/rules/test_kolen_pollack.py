"""Kolen-Pollack: the feedback comes to the weights, and with the weights as feedback it is backpropagation.

Shape suffixes: R replica; others are those of the parameters.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import NETWORKS, all_updates, assert_same, compute, make, train

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.backprop import Backprop
from rules.kolen_pollack import KolenPollack


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_kolen_pollack_with_the_weights_as_feedback_is_backprop_and_feedback_learns_what_weights_learn(network):
    rule, exact = make(KolenPollack, network), make(Backprop, network)
    step = compute(rule)
    with torch.no_grad():
        for k, name, matrix in rule.carriers():
            rule.parts[k - 1].get_parameter(f"feedback_{name}").copy_(matrix)
        ours, theirs = all_updates(rule, step), all_updates(exact, step)
    assert_same(ours[:-1], theirs[:-1])
    assert torch.equal(ours[-1]["weight_RFN"], theirs[-1]["weight_RFN"])
    for k, name, _ in rule.carriers():
        assert torch.equal(ours[k - 1][f"feedback_{name}"], theirs[k - 1][name])


@pytest.mark.parametrize("clip", [None, 1e-3])
@pytest.mark.parametrize("network", ["shared, bottleneck", "local"])
def test_kolen_pollack_feedback_comes_to_the_weights_at_the_rate_of_decay(network, clip):
    rule = make(KolenPollack, NETWORKS[network], decay=0.03, clip=clip, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))

    def gaps():
        return [rule.feedback(k, name).detach() - matrix.detach() for k, name, matrix in rule.carriers()]

    start, weights = [gap.clone() for gap in gaps()], [matrix.detach().clone() for _, _, matrix in rule.carriers()]
    assert all(gap.abs().max() > 0.1 for gap in start)
    train(rule, 12)
    for before, after in zip(start, gaps(), strict=True):
        torch.testing.assert_close(after, before * 0.97**12, rtol=1e-6, atol=1e-10)
    for before, (_, _, matrix) in zip(weights, rule.carriers(), strict=True):
        assert (matrix - before * 0.97**12).abs().max() > 1e-2  # it was not decay alone that moved the weights


def test_clipping_scales_weights_and_their_feedback_once():
    rule = make(KolenPollack, clip=1e-3, decay=0.0, optimizer=lambda p: torch.optim.SGD(p, lr=1.0))
    before = [[p.detach().clone() for p in part.parameters()] for part in rule.parts]
    train(rule, 1)
    for part, old in zip(rule.parts, before, strict=True):
        square_R = sum((p.detach() - q).square().flatten(1).sum(1) for p, q in zip(part.parameters(), old, strict=True))
        torch.testing.assert_close(square_R.sqrt(), torch.full((3,), 1e-3), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"decay": 1.0}, "model.decay"),
        ({"decay": -0.1}, "model.decay"),
        ({"form": "other"}, "model.form"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(KolenPollack, **{"network": HierarchicalNetwork(12), **arguments})
    assert error.value.key == key

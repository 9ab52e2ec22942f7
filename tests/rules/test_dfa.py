"""Direct feedback alignment: its matrices, and when it is backpropagation."""

from __future__ import annotations

import copy

import pytest
import torch
from rule_helpers import NETWORKS, compute, make_data, updates

from networks import HierarchicalNetwork
from rules.backprop import Backprop
from rules.dfa import DirectFeedbackAlignment


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_dfa_with_the_readouts_weights_and_one_hidden_layer_is_backprop(network):
    network = copy.copy(network)
    network.depth = 1
    dfa, bp = (kind(network).prepare(make_data()) for kind in (DirectFeedbackAlignment, Backprop))
    dfa.get_buffer("feedback_1").copy_(dfa.readout.weight_RFN.transpose(1, 2))
    step = compute(dfa)
    for ours, exact in zip(updates(dfa, step)[0].values(), updates(bp, step)[0].values(), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-10, atol=1e-14)


def test_feedback_matrices_differ_between_layers_and_replicas_and_do_not_learn():
    rule = DirectFeedbackAlignment(HierarchicalNetwork(width=12)).prepare(make_data())
    first, second, third = (rule.get_buffer(f"feedback_{k}") for k in (1, 2, 3))
    assert first.shape == (3, 4, 4 * 12) and second.shape == (3, 4, 2 * 12)
    assert not torch.allclose(first[:, :, :24], second) and not torch.allclose(second[:, :, :12], third)
    assert not torch.allclose(first[0], first[1])
    assert 0.8 < float(first.var() * 4) < 1.2  # 576 numbers: a standard error of .06
    assert "feedback_1" in rule.state_dict() and "feedback_1" not in dict(rule.named_parameters())

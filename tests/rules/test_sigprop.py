"""Signal propagation: classes pass the layers that strings pass.

Shape suffixes: R replica, B batch, D position, C channel, N classes, F = D * C.
"""

from __future__ import annotations

import pytest
import torch
from rule_helpers import make_data

from networks import HierarchicalNetwork, LocallyConnectedNetwork
from rhm import InvalidInput
from rules.sigprop import SignalPropagation


@torch.no_grad()
@pytest.mark.parametrize("kind", [HierarchicalNetwork, LocallyConnectedNetwork])
def test_a_target_that_is_a_strings_activity_goes_where_the_string_goes(kind):
    rule = SignalPropagation(kind(12)).prepare(make_data())
    batch = rule.data.train_batch(0)
    states = rule.network(batch.x_RBD)
    pre_RBDC = rule.network.layers[0].by_position(states[0].pre_RGME, states[0])
    rule.network.layers[0].get_parameter("target_RNF").copy_(pre_RBDC[:, :4].flatten(2))
    for strings, classes in zip(states, rule.compute(batch).view_states, strict=True):
        torch.testing.assert_close(classes.out_RBDC, strings.out_RBDC[:, :4])


@pytest.mark.parametrize(
    ("network", "key"),
    [
        (HierarchicalNetwork(12, bottleneck=6), "model.network.bottleneck"),
        (HierarchicalNetwork(12, normalise=True), "model.network.normalise"),
    ],
)
def test_a_network_that_does_not_hand_on_its_units_is_refused(network, key):
    with pytest.raises(InvalidInput) as error:
        SignalPropagation(network).prepare(make_data())
    assert error.value.key == key

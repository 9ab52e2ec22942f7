"""Node perturbation: on average it is backpropagation.

Shape suffixes: R replica, B batch.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import cosine, make, updates

from networks import DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork
from rhm import InvalidInput
from rules.backprop import Backprop
from rules.node_perturbation import NodePerturbation


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("network", [HierarchicalNetwork(6, bottleneck=3), LocallyConnectedNetwork(6), DenseNetwork(6)])
def test_node_perturbation_is_backprop_on_average(network):
    rule, exact = make(NodePerturbation, network, seeds=(0,), sigma=1e-4), make(Backprop, network, seeds=(0,))
    with torch.no_grad():  # no unit stands on the kink of ReLU, as those do whose inputs are all silent and whose bias is 0
        for one, two in zip(rule.network.layers, exact.network.layers, strict=True):
            one.bias_RG1E.copy_(torch.linspace(-0.2, 0.3, 6).expand_as(one.bias_RG1E))
            two.bias_RG1E.copy_(one.bias_RG1E)
    batch, copies = rule.data.train_batch(0), 20000
    batch = batch._replace(x_RBD=batch.x_RBD[:, :4].repeat(1, copies, 1), y_RB=batch.y_RB[:, :4].repeat(1, copies), key_RB=None)
    key = torch.arange(4 * copies)[None] * 7919 + 13
    with torch.no_grad():
        step, other = rule.compute(batch._replace(key_RB=key)), exact.compute(batch)
    ours, theirs = updates(rule, step), updates(exact, other)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert cosine(a[name], b[name]) > 0.97, name
            assert abs(float((a[name] * b[name]).sum() / b[name].square().sum()) - 1) < 0.15, name


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"sigma": 0.0}, "model.sigma"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(NodePerturbation, **{"network": HierarchicalNetwork(12), **arguments})
    assert error.value.key == key

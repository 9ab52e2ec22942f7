"""SoftHebb: where its weights go.

Shape suffixes: G groups of positions that share weights, F inputs, E units.
"""

from __future__ import annotations

import pytest
import torch
from rule_helpers import from_settings, train

from rhm import InvalidInput
from rules.softhebb import SoftHebb, SoftHebbDescent


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_weights_come_to_unit_length_and_nothing_else_moves():
    network = "--model.network=HierarchicalNetwork", "--model.network.bottleneck=6"
    rule = from_settings("softhebb", *network, "--model.temperature=1", seeds=(0, 1))
    rule.optimizer = lambda groups: torch.optim.SGD(groups, lr=0.3)
    rule.network.layers[0].weight_RGFE.data *= 0.6
    before = {name: value.clone() for name, value in rule.state_dict().items()}
    train(rule, 600)
    length = rule.network.layers[0].weight_RGFE.norm(dim=-2)
    assert (before["network.layers.0.weight_RGFE"].norm(dim=-2) - 1).abs().mean() > 0.15
    assert (length - 1).abs().mean() < 0.05, length
    for name, parameter in rule.named_parameters():
        moved = name.endswith("weight_RGFE") or name.startswith("readout")
        assert torch.equal(parameter, before[name]) != moved, name


def test_its_own_steps_take_weights_to_unit_length_from_either_side():
    args = "--model.temperature=1", "--model.optimizer.eta=0.1", "--model.network.radius=3"
    rule = from_settings("softhebb", *args, seeds=(0, 1))
    rule.network.layers[1].weight_RGFE.data /= 6
    train(rule, 300)
    for layer in rule.network.layers:
        assert (layer.weight_RGFE.norm(dim=-2) - 1).abs().max() < 0.02


def test_a_sharp_softmax_makes_no_numbers_too_small_for_a_fast_multiplication():
    torch.set_default_dtype(torch.float32)
    rule = from_settings("softhebb", "--model.network.radius=9", "--data.batch_size=2", seeds=range(20))  # few add up
    for update in rule.updates(rule.compute(rule.data.train_batch(0))).layers[:-1]:  # the last is of the readout
        size = update["weight_RGFE"].abs()
        assert size.max() > 1e-3 and not ((size > 0) & (size < torch.finfo(torch.float32).tiny)).any()


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"temperature": 0.0}, "model.temperature"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        SoftHebb(**arguments)
    assert error.value.key == key


@pytest.mark.parametrize("key", ["eta", "norm_power"])
def test_steps_that_cannot_be_are_refused_by_name(key):
    weight = torch.nn.Parameter(torch.zeros(1, 1, 2, 3))
    with pytest.raises(InvalidInput) as error:
        SoftHebbDescent([{"params": [weight], "name": "layer1"}], **{key: -0.1})
    assert error.value.key == f"model.optimizer.{key}"

"""Equilibrium propagation: its rests are rests, and its update is the gradient of the loss there.

Shape suffixes: R replica, B batch, D position, C channel.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import compute, make, updates
from torch import Tensor

from networks import DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork
from rhm import InvalidInput
from rules.equilibrium_propagation import EquilibriumPropagation


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", [HierarchicalNetwork, LocallyConnectedNetwork, DenseNetwork])
def test_as_the_nudge_tends_to_zero_the_update_is_the_gradient_of_the_settled_networks_loss(kind):
    """By finite differences of the loss after many sweeps, along one random direction of each layer's parameters."""
    long, network = {"free_steps": 30, "nudged_steps": 30}, kind(12, activation="tanh")
    rule, generator, apart = (
        make(EquilibriumPropagation, network, seeds=(0,), batch_size=4, **long),
        torch.Generator().manual_seed(0),
        [],
    )
    for layer in rule.network.layers:  # smaller weights settle sooner
        layer.weight_RGFE.data *= 0.4
    directions = [
        {name: torch.randn(p.shape, generator=generator) for name, p in layer.named_parameters()}
        for layer in rule.network.layers
    ]

    def loss(layer, direction, size: float) -> float:
        for name, p in layer.named_parameters():
            p.data += size * direction[name]
        found = float(compute(rule).readout.loss_R)
        for name, p in layer.named_parameters():
            p.data -= size * direction[name]
        return found

    slopes = [
        (loss(layer, direction, 1e-5) - loss(layer, direction, -1e-5)) / 2e-5
        for layer, direction in zip(rule.network.layers, directions, strict=True)
    ]
    for nudge in 0.3, 0.1, 0.003:
        rule.nudge = nudge
        for update, direction, slope in zip(updates(rule, compute(rule)), directions, slopes, strict=True):
            along = sum(float((update[name] * direction[name]).sum()) for name in direction)
            apart.append(abs(along / slope - 1))
    assert max(apart[-3:]) < 1e-4 and 20 * max(apart[-3:]) < max(apart[:3])


def energy(rule: EquilibriumPropagation, x_RBDC: Tensor, s: list[Tensor]) -> Tensor:
    """``sum_l G(s_l) - s_l . (W_l s_{l-1} + b_l)`` of each string, ``G' = tanh^-1``."""
    total = torch.zeros(3, 16)
    for layer, below, activity in zip(rule.network.layers, [x_RBDC, *s[:-1]], s, strict=True):
        own = activity * torch.atanh(activity) + (1 - activity**2).log() / 2
        state = layer(below)
        total = total + (own - activity * layer.by_position(state.pre_RGME, state)).sum((2, 3))
    return total


def test_the_energy_falls_with_each_free_sweep_until_it_has_no_slope():
    rule = make(EquilibriumPropagation, HierarchicalNetwork(12, activation="tanh"))
    x_RBDC = rule.network.encode(rule.data.train_batch(0).x_RBD)
    with torch.no_grad():
        for layer in rule.network.layers:  # smaller weights: no unit is at its bound
            layer.weight_RGFE.mul_(0.4)
        s = [state.out_RBDC for state in rule.network.forward_from(0, x_RBDC)]
        before = energy(rule, x_RBDC, s)
        for _ in range(10):
            s = [state.out_RBDC for state in rule.sweeps(x_RBDC, s, 1)]
            assert (energy(rule, x_RBDC, s) <= before + 1e-9).all()
            before = energy(rule, x_RBDC, s)
        s = [state.out_RBDC for state in rule.sweeps(x_RBDC, s, 200)]
    rest = [activity.requires_grad_() for activity in s]
    slopes = torch.autograd.grad(energy(rule, x_RBDC, rest).sum(), rest)
    assert max(float(slope.abs().max()) for slope in slopes) < 1e-8
    rule.free_steps = 100
    assert (rule.layer_updates(compute(rule)).losses["loss/unsettled"] < 1e-8).all()


def test_strings_are_answered_at_rest():
    rule = make(EquilibriumPropagation, HierarchicalNetwork(12, activation="tanh"))
    batch = rule.data.train_batch(0)
    with torch.no_grad():
        answered, forward = rule.validation_step(batch, 0)["states"], rule.network(batch.x_RBD)
        at_rest = rule.compute(batch).states
    assert all(torch.equal(a.out_RBDC, b.out_RBDC) for a, b in zip(answered, at_rest, strict=True))
    assert not any(torch.equal(a.out_RBDC, b.out_RBDC) for a, b in zip(answered, forward, strict=True))


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"free_steps": 0}, "model.free_steps"),
        ({"nudged_steps": 0}, "model.nudged_steps"),
        ({"nudge": 0.0}, "model.nudge"),
        ({"network": HierarchicalNetwork(12)}, "model.network.activation"),
        ({"network": HierarchicalNetwork(12, activation="tanh", bottleneck=6)}, "model.network.bottleneck"),
        ({"network": HierarchicalNetwork(12, activation="tanh", normalise=True)}, "model.network.normalise"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(EquilibriumPropagation, **{"network": HierarchicalNetwork(12, activation="tanh"), **arguments})
    assert error.value.key == key

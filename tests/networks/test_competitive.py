"""Competitive layers: what they compute, how signals pass them, and what their inputs come to.

Shape suffixes: R replica, B batch, D position, C channel; N strings times positions.
"""

from __future__ import annotations

import pytest
import torch
from rule_helpers import compute, make_data, train
from torch import Tensor

from networks import CompetitiveNetwork
from rhm import InvalidInput
from rules import LocalRule
from rules.backprop import Backprop
from rules.base.perturbed import shake
from rules.softhebb import SoftHebb


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def competing(power: float = 1.3, shaken: bool = True, **network: float) -> LocalRule:
    rule = SoftHebb(CompetitiveNetwork(width=12, power=power, **network)).prepare(make_data(None, (0, 1)))
    if shaken:
        with torch.no_grad():
            shake(rule)
    return rule


def plain(layer, h_RBDC: Tensor, power: float) -> Tensor:
    """A layer's output with einsum."""
    x = (h_RBDC - layer.mean_RC[:, None, None]) / (layer.variance_RC[:, None, None] + 1e-5).sqrt()
    a = torch.einsum("rbdf,rfe->rbde", x.unflatten(2, (-1, 2)).flatten(3), layer.weight_RGFE[:, 0]) + layer.bias_RG1E
    return (a - a.mean(-1, keepdim=True)).clamp_min(0) ** power


def test_a_signal_goes_back_as_by_autograd_and_a_change_forward_as_by_finite_differences():
    rule = competing()
    step, generator = compute(rule), torch.Generator().manual_seed(0)
    below = rule.network.encode(step.batch.x_RBD)
    for layer, state in zip(rule.network.layers, step.states, strict=True):
        h = below.detach().requires_grad_()
        out = plain(layer, h, 1.3)
        torch.testing.assert_close(state.out_RBDC, out.detach())
        signal, change = (torch.randn(shape, generator=generator) for shape in (out.shape, h.shape))
        names, parameters = zip(*layer.named_parameters(), strict=True)
        *grads, down = torch.autograd.grad((out * signal).sum(), [*parameters, h])
        with torch.no_grad():
            update, delta = layer.backward(state, signal)
            torch.testing.assert_close(layer.hand_down(delta, 16), down)
            ahead, behind = (layer(below + sign * 1e-7 * change).out_RBDC for sign in (1, -1))
            torch.testing.assert_close(layer.tangent(state, change), (ahead - behind) / 2e-7, rtol=1e-5, atol=1e-6)
        for name, grad in zip(names, grads, strict=True):
            torch.testing.assert_close(update[name], grad)
        below = state.out_RBDC


def test_inputs_come_to_a_mean_of_0_and_a_variance_of_1():
    rule = competing(shaken=False, radius=3.0)
    train(rule, 60)
    states = rule.network(rule.data.strings(torch.arange(64)).x_RBD)
    for k, state in enumerate(states):
        x_RNC = state.input_RGMF.unflatten(-1, (2, -1)).flatten(1, 3)
        assert x_RNC.mean(1).square().mean() < 0.05 and abs(x_RNC.var(1).mean() - 1) < 0.2
        if k:  # and were something else
            below = states[k - 1].out_RBDC.flatten(1, 2)
            assert below.mean(1).square().mean() > 0.2 and abs(below.var(1).mean() - 1) > 0.2


def test_what_a_layer_makes_of_a_string_does_not_depend_on_other_strings():
    rule = competing()
    x_RBD = compute(rule).batch.x_RBD
    for whole, alone in zip(rule.network(x_RBD), rule.network(x_RBD[:, 3:4]), strict=True):
        torch.testing.assert_close(whole.out_RBDC[:, 3:4], alone.out_RBDC)


@pytest.mark.parametrize("radius", [1.0, 25.0])
def test_weights_start_with_the_stated_length(radius):
    network = CompetitiveNetwork(width=256, radius=radius).build(make_data().task, torch.arange(4))
    for layer in network.layers:
        square = layer.weight_RGFE.square().sum(2)
        assert abs(square.mean() / radius**2 - 1) < 6 * (2 / layer.weight_RGFE.numel()) ** 0.5


@pytest.mark.parametrize("key", ["power", "radius"])
def test_what_cannot_be_is_refused_by_name(key):
    with pytest.raises(InvalidInput) as error:
        CompetitiveNetwork(**{key: 0.0})
    assert error.value.key == f"model.network.{key}"
    with pytest.raises(InvalidInput, match="a network without competition for Backprop"):
        Backprop(CompetitiveNetwork()).prepare(make_data())

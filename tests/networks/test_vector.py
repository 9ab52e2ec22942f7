"""Vector units: the contract of a layer, and rules on them.

Shape suffixes: R replica, B batch, D position, C channel; E units, K components of a vector unit.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from feedback_helpers import all_updates
from rule_helpers import compute, make_data, train, updates
from torch import Tensor
from torch.nn import functional
from vector_helpers import plain_vector_logits, vector_rule

from networks import VectorNetwork
from rhm import InvalidInput, whitened_one_hot
from rules import LocalRule
from rules.backprop import Backprop
from rules.dfa import DirectFeedbackAlignment
from rules.feedback_alignment import FeedbackAlignment
from rules.frozen import FrozenFeatures
from rules.gevb import GlobalErrorVectorBroadcast
from rules.maths.plasticity import autograd_backward


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_half_of_the_gates_are_open_and_gates_do_not_learn():
    rule = vector_rule(GlobalErrorVectorBroadcast)
    gate = rule.network.layers[1].get_buffer("gate_REK").clone()
    assert torch.equal(gate.abs(), torch.ones(2, 6, 4)) and torch.equal(gate[:, ::2], -gate[:, 1::2])
    assert not torch.equal(gate[0], gate[1])
    share = rule.network.layers[0].mask(compute(rule).states[0]).mean()
    assert 0.35 < share < 0.65
    train(rule, 3)
    assert torch.equal(rule.network.layers[1].get_buffer("gate_REK"), gate)


@pytest.mark.parametrize("signed", [False, True])
def test_backprop_on_vector_units_is_autograd(signed):
    rule = vector_rule(Backprop, signed=signed)
    step = compute(rule)
    ours = all_updates(rule, step)
    logits, outs = plain_vector_logits(rule, step.batch.x_RBD)
    for state, out in zip(step.states, outs, strict=True):
        torch.testing.assert_close(state.out_RBDC, out.detach().flatten(3))
    losses = functional.cross_entropy(logits.flatten(0, 1), step.batch.y_RB.long().flatten(), reduction="none")
    loss = losses.view(2, 16).mean(1).sum()
    for update, part in zip(ours, rule.parts, strict=True):
        parameters = dict(part.named_parameters())
        assert update.keys() == parameters.keys()
        for name, grad in zip(parameters, torch.autograd.grad(loss, parameters.values(), retain_graph=True), strict=True):
            torch.testing.assert_close(update[name], grad, rtol=1e-9, atol=1e-12)


def test_other_rules_take_vector_units_as_they_take_others():
    bp, fa = vector_rule(Backprop), vector_rule(FeedbackAlignment)
    for k, name, matrix in fa.carriers():
        fa.get_buffer(f"feedback_{k}_{name}").copy_(matrix.detach())
    dfa, frozen = vector_rule(DirectFeedbackAlignment), vector_rule(FrozenFeatures)
    step = compute(bp)
    for ours, exact in zip(updates(fa, step), updates(bp, step), strict=True):
        for name, grad in exact.items():
            torch.testing.assert_close(ours[name], grad, rtol=1e-10, atol=1e-14)
    # direct feedback with an identity for every unit is the broadcast of the error vector
    for k in range(1, 4):
        feedback = dfa.get_buffer(f"feedback_{k}")
        feedback.copy_(torch.eye(4).repeat(1, feedback.shape[-1] // 4).expand_as(feedback))
    for ours, exact in zip(updates(dfa, step), updates(vector_rule(GlobalErrorVectorBroadcast), step), strict=True):
        for name, grad in exact.items():
            torch.testing.assert_close(ours[name], grad, rtol=1e-10, atol=1e-14)
    train(frozen, 2)


def test_a_vector_layer_keeps_the_contract_of_a_layer():
    rule = vector_rule(Backprop)
    step = compute(rule)
    layer, state = rule.network.layers[1], step.states[1]
    below = step.states[0].out_RBDC
    assert state.out_RBDC.shape[-1] == layer.out_channels == 24
    # explicit products are autograd of <output, signal>
    signal = noise(*state.out_RBDC.shape)
    explicit, delta = layer.backward(state, signal)
    graph, graph_delta = autograd_backward(layer, state, signal)
    torch.testing.assert_close(delta, graph_delta)
    for name in explicit:
        torch.testing.assert_close(explicit[name], graph[name])
    # the tangent is a finite difference and the adjoint of what is handed down
    change = noise(*below.shape, seed=5)
    tangent = layer.tangent(state, change)
    with torch.no_grad():
        ahead, behind = (layer(below + sign * 1e-7 * change).out_RBDC for sign in (1, -1))
    torch.testing.assert_close(tangent, (ahead - behind) / 2e-7, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((tangent * signal).sum(), (change * layer.hand_down(delta, 16)).sum())
    features = step.readout.features_RBF
    moved = rule.readout.logits(features + noise(*features.shape)) - rule.readout.logits(features)
    torch.testing.assert_close(rule.readout.tangent(noise(*features.shape)), moved)
    for part, rows in zip(layer.split(state, 5), (slice(0, 5), slice(5, None)), strict=True):
        with torch.no_grad():
            for t, expected in zip(part, layer(below[:, rows]), strict=True):
                assert (t is None and expected is None) or torch.allclose(t, expected)


# -------------------------------------------------------------------- pairs of units (ON and OFF)


def paired_rule(width: int = 6, classes: int = 4) -> LocalRule:
    """As it starts: biases are 0."""
    network = VectorNetwork(width=width, paired=True)
    return GlobalErrorVectorBroadcast(network=network).prepare(make_data(None, (0, 1), n=classes))


def test_the_two_units_of_a_pair_start_with_opposite_vectors_and_one_gate():
    rule = paired_rule()
    for layer, state in zip(rule.network.layers, compute(rule).states, strict=True):
        first, second = state.out_RBDC.unflatten(-1, (3, 2, 4)).unbind(-2)  # R B D, pair, component
        torch.testing.assert_close(first, -second)
        assert 0.3 < (first != 0).double().mean() < 0.7
        assert (layer.weight_RGFE >= 0).all() != (layer is rule.network.layers[0])
    assert (rule.readout.weight_RFN >= 0).all()
    assert all(parameter.is_contiguous() for parameter in rule.parameters())  # a fused optimizer steps through memory


def test_paired_units_start_as_half_as_many_units_with_signed_weights():
    """Between pairs a weight is what the first unit has from the first less what it has from the second: in numpy, one replica."""
    rule = paired_rule()
    step, K = compute(rule), 4
    x_BDV = whitened_one_hot(step.batch.x_RBD[1], 4).numpy()
    h = np.zeros((*x_BDV.shape[:2], 4 * K, K))  # string, position, unit, component
    for b, d, j in np.ndindex(x_BDV.shape):
        for k in range(K):
            h[b, d, j * K + k, k] = x_BDV[b, d, j]
    for number, layer in enumerate(rule.network.layers):
        weight, directions = layer.weight_RGFE[1, 0].detach().numpy(), layer.get_buffer("gate_REK")[1].numpy()
        signed = weight[:, ::2] if number == 0 else weight[::2, ::2] - weight[1::2, ::2]
        inputs = np.concatenate([h[:, ::2], h[:, 1::2]], 2)
        h = np.einsum("bdjk,ji->bdik", inputs, signed)
        h *= np.einsum("bdik,ik->bdi", h, directions[::2])[..., None] >= 0
    weight = rule.readout.weight_RFN[1, :, 0].detach().numpy()
    logits = np.einsum("bik,i->bk", h.reshape(len(h), -1, K), weight[::2] - weight[1::2])
    np.testing.assert_allclose(step.readout.logits_RBN[1].numpy(), logits, rtol=1e-10, atol=1e-12)


def test_paired_weights_keep_the_scale_of_what_comes_in():
    """``N(0, K / inputs)`` in the first layer, ``N(0, 4 / inputs)`` between pairs above."""
    rule = paired_rule(width=128, classes=3)
    for k, part in enumerate(rule.parts):
        weight = (part.weight_RFN[:, None] if k == 3 else part.weight_RGFE).detach()
        variance, pairs = (3, weight[..., ::2]) if k == 0 else (4, weight[..., ::2, ::2] - weight[..., 1::2, ::2])
        inputs, count = weight.shape[-2], pairs.numel()
        assert abs(pairs.mean()) < 6 * (variance / inputs / count) ** 0.5
        assert abs(pairs.square().mean() * inputs / variance - 1) < 6 * (2 / count) ** 0.5
        assert ((weight != 0).double().mean() - (1 if k == 0 else 0.5)).abs() < 6 * (0.25 / count) ** 0.5


@pytest.mark.parametrize(
    ("arguments", "key"), [({"width": 7}, "model.network.width"), ({"signed": True}, "model.network.paired")]
)
def test_pairs_that_cannot_be_are_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        VectorNetwork(paired=True, **arguments)
    assert error.value.key == key

"""Backpropagation against autograd of a network written with einsum.

Shape suffixes: R replica, B batch, D position.
"""

from __future__ import annotations

import math

import pytest
import torch
from rule_helpers import NETWORKS, compute, make_data
from torch import Tensor
from torch.nn import functional

from rules import LocalRule
from rules.backprop import Backprop


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def plain_forward(rule: LocalRule, x_RBD: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and the outputs of all layers, written with einsum from the rule's parameters; differentiable."""
    h = (functional.one_hot(x_RBD.long(), rule.data.task.v).double() - 1 / rule.data.task.v) / math.sqrt(
        (1 / rule.data.task.v) * (1 - 1 / rule.data.task.v)
    )
    outs = []
    for layer in rule.network.layers:
        patches = h.reshape(*h.shape[:2], -1, layer.patch * h.shape[-1])  # R B D F
        shared = layer.weight_RGFE.shape[1] == 1
        weight = layer.weight_RGFE.expand(-1, patches.shape[2], -1, -1) if shared else layer.weight_RGFE
        bias = layer.bias_RG1E[:, :, 0].expand(-1, patches.shape[2], -1) if shared else layer.bias_RG1E[:, :, 0]
        a = torch.einsum("rbdf,rdfe->rbde", patches, weight) + bias[:, None]
        h = torch.tanh(a) if rule.network_config.activation == "tanh" else torch.relu(a)
        if layer.projection_RGEC is not None:
            projection = layer.projection_RGEC.expand(-1, h.shape[2], -1, -1) if shared else layer.projection_RGEC
            z = torch.einsum("rbde,rdec->rbdc", h, projection)
            h = z / z.square().mean(-1, keepdim=True).sqrt()
        outs.append(h)
    logits = torch.einsum("rbf,rfn->rbn", h.flatten(2), rule.readout.weight_RFN) + rule.readout.bias_R1N
    return logits, outs


def assert_equal_updates(ours: list[dict[str, Tensor]], modules, loss: Tensor) -> None:
    for update, module in zip(ours, modules, strict=True):
        parameters = dict(module.named_parameters())
        assert update.keys() == parameters.keys()
        for name, grad in zip(parameters, torch.autograd.grad(loss, parameters.values(), retain_graph=True), strict=True):
            torch.testing.assert_close(update[name], grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_backprop_is_autograd_of_the_cross_entropy(network):
    rule = Backprop(network).prepare(make_data())
    step = compute(rule)
    logits, _ = plain_forward(rule, step.batch.x_RBD)
    losses = functional.cross_entropy(logits.flatten(0, 1), step.batch.y_RB.long().flatten(), reduction="none")
    loss_R = losses.view(step.batch.y_RB.shape).mean(1)
    torch.testing.assert_close(step.readout.loss_R, loss_R)
    with torch.no_grad():
        ours = rule.updates(step).layers
    assert_equal_updates(ours, rule.parts, loss_R.sum())

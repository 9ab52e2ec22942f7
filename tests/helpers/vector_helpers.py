"""Rules on networks of vector units, and such a network in einsum.

Shape suffixes: R replica, B batch, D position, E units, K components of a vector unit.
"""

from __future__ import annotations

import torch
from rule_helpers import make_data
from torch import Tensor

from networks import VectorNetwork
from rhm import whitened_one_hot
from rules import LocalRule


def vector_rule(
    kind, depth=None, patch=None, signed=False, seeds=(0, 1), width: int = 6, paired: bool = False, **kwargs
) -> LocalRule:
    """A rule whose biases, which start at 0, are random: so that a test sees them."""
    network = VectorNetwork(width=width, depth=depth, patch=patch, signed=signed, paired=paired)
    rule = kind(network=network, **kwargs).prepare(make_data(None, seeds))
    generator = torch.Generator().manual_seed(0)
    for layer in rule.network.layers:
        layer.bias_RG1E.data.normal_(0, 0.3, generator=generator)
    return rule


def plain_vector_logits(rule: LocalRule, x_RBD: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and outputs ``[R, B, D, E, K]`` with einsum; the gates are constants of the gradient."""
    x = whitened_one_hot(x_RBD, 4)
    h = torch.einsum("rbdj,kq->rbdjkq", x, torch.eye(4)).flatten(3, 4)  # unit (j, k) has x_j in component k
    outs = []
    for layer in rule.network.layers:
        patches = h.unflatten(2, (-1, layer.patch)).flatten(3, 4)
        a = torch.einsum("rbdfq,rfe->rbdeq", patches, layer.weight_RGFE[:, 0])
        a = a + layer.bias_RG1E.unflatten(-1, (-1, 4))[:, :, 0][:, None]
        on = torch.einsum("rbdeq,req->rbde", a, layer.get_buffer("gate_REK")) >= 0
        h = a * on.detach()[..., None]
        outs.append(h)
    top = h.flatten(2, 3)
    return torch.einsum("rbfq,rf->rbq", top, rule.readout.weight_RFN[..., 0]) + rule.readout.bias_R1N, outs

"""Rules that carry an error down, on a small task, and what tests ask of them.

Shape suffixes: R replica, B batch, D position, C channel, E units, N classes.
"""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional

from datamodules import RHMDataModule
from networks import DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork
from rules import LocalRule, Step

NETWORKS = {
    "shared": HierarchicalNetwork(width=12),
    "shared, bottleneck": HierarchicalNetwork(width=12, bottleneck=6),
    "shared, normalise": HierarchicalNetwork(width=12, normalise=True),
    "local": LocallyConnectedNetwork(width=12),
    "local, bottleneck": LocallyConnectedNetwork(width=12, bottleneck=6),
    "dense": DenseNetwork(width=12),
    "dense, bottleneck": DenseNetwork(width=12, bottleneck=6),
    "tanh": HierarchicalNetwork(width=12, activation="tanh"),
}
CLOSE = {"rtol": 1e-9, "atol": 1e-13}


def make(kind, network=None, seeds=(0, 1, 2), batch_size=16, **kwargs) -> LocalRule:
    task = {"v": 4, "n": 4, "m": 2, "s": 2, "L": 3}
    data = RHMDataModule(seeds=list(seeds), train_size=64, batch_size=batch_size, test_size=32, probe_size=32, **task)
    return kind(network=network or HierarchicalNetwork(width=12, bottleneck=6), **kwargs).prepare(data)


@torch.no_grad()
def compute(rule: LocalRule, step: int = 0) -> Step:
    return rule.compute(rule.data.train_batch(step))


@torch.no_grad()
def updates(rule: LocalRule, step: Step) -> list[dict[str, Tensor]]:
    """Gradients of the rule's layers."""
    return rule.layer_updates(step).layers


@torch.no_grad()
def all_updates(rule: LocalRule, step: Step) -> list[dict[str, Tensor]]:
    """Gradients of all layers and of the readout."""
    return rule.updates(step).layers


@torch.no_grad()
def estimates(rule: LocalRule, step: Step) -> dict[str, Tensor]:
    """The batch's value for each tracked buffer."""
    return rule.layer_updates(step).estimates


@torch.no_grad()
def track(rule: LocalRule, step: Step) -> None:
    """What a step does to tracked buffers, without its weights."""
    for name, estimate in rule.tracked(estimates(rule, step)).items():
        rule.get_buffer(name).lerp_(estimate, rule.rate)


def own(update: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: grad for name, grad in update.items() if name in ("weight_RGFE", "bias_RG1E", "projection_RGEC")}


def assert_same(ours, theirs, **tolerance) -> None:
    """The same updates of the layers' own parameters, to the last bit without a tolerance."""
    for a, b in zip(ours, theirs, strict=True):
        a, b = own(a), own(b)
        assert a.keys() == b.keys() and a
        for name in a:
            if tolerance:
                torch.testing.assert_close(a[name], b[name], **tolerance)
            else:
                assert torch.equal(a[name], b[name]), name


def cosine(a: Tensor, b: Tensor) -> float:
    return float(functional.cosine_similarity(a.detach().flatten(), b.detach().flatten(), dim=0))


def set_buffer(rule, name: str, value: Tensor) -> None:
    rule.get_buffer(name).copy_(value.detach())


def train(rule: LocalRule, steps: int, precision: Any = "64-true") -> dict[str, Tensor]:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    limits = {"max_steps": steps, "max_epochs": -1, "num_sanity_val_steps": 0, "limit_val_batches": 0}
    pl.Trainer(accelerator="cpu", precision=precision, **quiet, **limits).fit(rule, rule.data)
    return rule.state_dict()


# -------------------------------------------------------------------- an independent, differentiable network


def phi_of(rule):
    return {"tanh": torch.tanh, "relu": torch.relu, "linear": lambda a: a}[rule.network_config.activation]


def by_position(matrix: Tensor, positions: int) -> Tensor:
    """A parameter ``[R, G, ...]`` for each position."""
    return matrix.expand(-1, positions, *matrix.shape[2:])


def encoded(rule, x_RBD: Tensor) -> Tensor:
    v = rule.data.task.v
    return (functional.one_hot(x_RBD.long(), v).double() - 1 / v) / math.sqrt((1 / v) * (1 - 1 / v))


def plain_layer(rule, k: int, h_RBDC: Tensor) -> Tensor:
    """The output of layer ``k`` from 1, by einsum."""
    layer = rule.network.layers[k - 1]
    patches = h_RBDC.reshape(*h_RBDC.shape[:2], -1, layer.patch * h_RBDC.shape[-1])
    positions = patches.shape[2]
    a = torch.einsum("rbdf,rdfe->rbde", patches, by_position(layer.weight_RGFE, positions))
    out = phi_of(rule)(a + by_position(layer.bias_RG1E, positions)[:, :, 0][:, None])
    if layer.projection_RGEC is not None:
        out = torch.einsum("rbde,rdec->rbdc", out, by_position(layer.projection_RGEC, positions))
    if layer.projection_RGEC is not None or rule.network_config.normalise:
        out = out / out.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-9)  # a patch may have no active unit
    return out


def plain_logits(rule, h_RBDC: Tensor) -> Tensor:
    return torch.einsum("rbf,rfn->rbn", h_RBDC.flatten(2), rule.readout.weight_RFN) + rule.readout.bias_R1N

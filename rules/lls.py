"""Local learning by synchronization: layers follow fixed class vectors.

Shape suffixes: R replica, B batch, D position, C channel, N classes, F = D * C.
"""

from __future__ import annotations

import torch
from torch import Tensor

from networks import LayerUpdate, error_and_loss
from rhm import InvalidInput
from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network


class LocalSynchronization(LocalRule):
    """Local learning by synchronization (LLS, Apolinario et al. 2025): ``CE(C_l h_l / |h_l| / temperature, y)`` at every layer.

    Fixed: ``C_l``, one vector for each class, the same in all replicas: ``sin(f_n t)`` at the ``t``-th of a layer's numbers,
    ``f_n`` spaced evenly from 50 to 512 radians. That is fast enough to look random, but nothing is drawn. Nothing beside the
    weights is learned. The authors average the activity over space first; here all positions stand side by side. Their other
    forms learn a gain of each class or a matrix of classes beside it.

    Kind: a control (supervised layerwise). A class vector scores the layer and is also the signal back.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        temperature: of the scores.

    Raises:
        InvalidInput: a temperature not above 0.
    """

    source = "Apolinario, Roy, Roy 2025, arXiv 2405.15868"
    family = "supervised layerwise"
    knowledge = "labels"
    locality = Locality(label=True, lateral=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        temperature: float = 1.0,
    ):
        super().__init__(network, optimizer, clip)
        if temperature <= 0:
            raise InvalidInput("model.temperature", temperature, "a number above 0")
        self.temperature = temperature
        self.locality = self.locality.through_output(network)

    def build(self) -> None:
        for k, layer in enumerate(self.network.layers, 1):
            vectors = class_vectors(self.data.task.n, self.network.positions[k - 1] * layer.out_channels)
            self.register_buffer(f"class_vectors_{k}", vectors.repeat(self.data.replicas, 1, 1))

    def layer_updates(self, step: Step) -> Updates:
        updates: list[LayerUpdate] = []
        losses = {}
        for k, (layer, state) in enumerate(zip(self.network.layers, step.states, strict=True), 1):
            vectors_RNF = self.get_buffer(f"class_vectors_{k}") / self.temperature
            flat = state.out_RBDC.flatten(2).to(vectors_RNF.dtype)
            size = flat.norm(dim=-1, keepdim=True).clamp_min(1e-12)
            direction = flat / size
            scores = torch.bmm(direction, vectors_RNF.transpose(1, 2)).to(flat.dtype)
            error, loss_RB = error_and_loss(scores, step.batch.y_RB)
            signal = tangential(torch.bmm(error / error.shape[1], vectors_RNF).to(flat.dtype), direction) / size
            updates.append(layer.backward(state, signal.view_as(state.out_RBDC).to(state.out_RBDC.dtype))[0])
            losses[f"loss/layer{k}"] = loss_RB.mean(1)
        return Updates(updates, losses=losses)


def tangential(signal: Tensor, direction: Tensor) -> Tensor:
    """What is left of a signal without its part along a direction of length 1, which changes no direction."""
    return signal - direction * (direction * signal).sum(-1, keepdim=True)


def class_vectors(classes: int, numbers: int) -> Tensor:
    """``sin(f_n t)``, ``[N, F]``."""
    frequency = torch.linspace(50.0, 512.0, classes, dtype=torch.float64)
    angle = frequency[:, None] * torch.arange(numbers, dtype=torch.float64)
    return angle.sin().to(torch.get_default_dtype())

"""Layerwise supervised controls: each layer has the labels, and nothing passes between layers.

Shape suffixes: R replica, B batch, D position, C channel, F all channels of a layer, E outputs of its head.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from rhm.hashing import normal
from rules.base.contract import Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network


class LocalLabelLoss(LocalRule):
    """A loss of the layer's whole output and the labels, at every layer, through a linear head that is not handed on."""

    family = "supervised layerwise"
    knowledge = "labels"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
    ):
        super().__init__(network, optimizer, clip)
        self.locality = self.locality.through_output(network)

    @abstractmethod
    def head_width(self) -> int:
        """Outputs of a layer's head."""

    @abstractmethod
    def label_loss(self, z_RBE: Tensor, out_RBF: Tensor, y_RB: Tensor) -> Tensor:
        """A layer's loss ``[R]`` for the head's output, the layer's output and the classes; differentiable."""

    def build(self) -> None:
        for k, layer in enumerate(self.network.layers, 1):
            inputs = self.network.positions[k - 1] * layer.out_channels
            matrix = normal(self.keys_R("head", k), (inputs, self.head_width())) / math.sqrt(inputs)
            layer.register_parameter("label_head_RFE", nn.Parameter(matrix.to(torch.get_default_dtype())))

    def layer_updates(self, step: Step) -> Updates:
        updates, losses, compares = [], {}, self.compares_strings
        outs = [state.out_RBDC for state in step.states]
        outs = self.strings_of_all_ranks(outs) if compares else outs
        y_RB = self.batch_of_all_ranks(step.batch).y_RB if compares else step.batch.y_RB
        for k, (layer, state, seen) in enumerate(zip(self.network.layers, step.states, outs, strict=True), 1):
            head = layer.get_parameter("label_head_RFE")
            with torch.enable_grad():
                out = seen.detach().to(head.dtype).requires_grad_()
                flat = out.flatten(2)
                loss_R = self.label_loss(torch.bmm(flat, head).to(head.dtype), flat, y_RB)
                signal, grad = torch.autograd.grad(loss_R.sum(), [out, head])
            signal = self.share(signal) if compares else signal
            updates.append(layer.backward(state, signal.to(state.out_RBDC.dtype))[0] | {"label_head_RFE": grad})
            losses[f"loss/layer{k}"] = loss_R.detach()
        return Updates(updates, losses=losses)

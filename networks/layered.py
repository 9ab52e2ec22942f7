"""A stack of layers that can be addressed one by one.

Shape suffixes: R replica, B batch, D position, C channel, N classes; G groups of positions that share weights, F inputs, E
units.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.layer import Layer
from networks.readout import Readout
from networks.state import LayerState
from rhm import TaskSizes, whitened_one_hot


class LayeredNetwork(nn.Module):
    """Layers ``1..depth`` on whitened one-hot tokens.

    Args:
        task: gives the vocabulary and the string length.
        layers: the stack.
        label_slot: whether a class can be shown at every position of the input, in ``n`` channels of its own.
    """

    def __init__(self, task: TaskSizes, layers: list[Layer], label_slot: bool = False):
        super().__init__()
        self.task, self.label_slot = task, label_slot
        self.layers = cast(Sequence[Layer], nn.ModuleList(layers))
        positions = task.length
        self.positions: list[int] = []
        for layer in layers:
            positions //= layer.patch
            self.positions.append(positions)

    def __len__(self) -> int:
        return len(self.layers)

    def encode(self, x_RBD: Tensor, label_RB: Tensor | None = None) -> Tensor:
        """Tokens as the network's input ``h_RBDC``, ``C = v``; with a label slot ``C = v + n``, zero if no label is shown."""
        dtype = self.layers[0].weight_RGFE.dtype
        x_RBDC = whitened_one_hot(x_RBD, self.task.v, dtype)
        if not self.label_slot:
            return x_RBDC
        if label_RB is None:
            return functional.pad(x_RBDC, (0, self.task.n))
        label_RBN = whitened_one_hot(label_RB, self.task.n, dtype)
        return torch.cat([x_RBDC, label_RBN[:, :, None].expand(-1, -1, x_RBDC.shape[2], -1)], -1)

    def forward(self, x_RBD: Tensor, label_RB: Tensor | None = None) -> list[LayerState]:
        """One state a layer, for tokens ``[R, B, s**L]`` and, in the label slot, classes ``[R, B]``."""
        return self.forward_from(0, self.encode(x_RBD, label_RB))

    def readout(self, seeds: Tensor, features: int) -> Readout:
        """A readout of the classes from the top layer's features, one replica for each seed."""
        return Readout(seeds, features, self.task.n)

    def forward_from(self, first: int, h_RBDC: Tensor) -> list[LayerState]:
        """States of ``layers[first:]`` for an input of ``layers[first]``."""
        states = []
        for layer in islice(self.layers, first, None):  # a slice of modules is a new module
            states.append(layer(h_RBDC))
            h_RBDC = states[-1].out_RBDC
        return states

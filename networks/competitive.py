"""A network whose units compete: standardised input, and what exceeds the mean of a position's units handed on.

Shape suffixes: R replica, B batch, D position, C channel; G groups (always 1 here), M rows of a matrix product, F inputs of a
unit, E units, N strings times positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from networks.activations import Activation
from networks.architectures import HierarchicalNetwork
from networks.layer import Layer, multiply
from networks.layered import LayeredNetwork
from networks.state import LayerState
from rhm import InvalidInput, TaskSizes
from rhm.hashing import seed_keys

EPS, MOMENTUM = 1e-5, 0.1
"""Of batch norm: what is added to variances, and the step of what is tracked."""


class CompetitiveLayer(Layer):
    """``a = W x + b`` of a standardised input ``x = (h - mean) / sqrt(variance + eps)``, and ``relu(a - mean a)^p`` handed on.

    What stands around SoftHebb's plasticity in Journe et al. 2023: batch norm of each channel without a learned scale, and the
    triangle activation (Coates, Ng, Lee 2011). Mean and variance are those that a rule has tracked, in training too, so that
    what a layer makes of a string does not depend on the other strings of a batch. A unit's mask is its slope at a mean that is
    held fixed; a signal that goes back goes back through the mean, too.

    Args:
        keys_R: int64 keys of the initial weights.
        patch: neighbouring positions that are merged into one.
        channels: channels of the input.
        units: number of units.
        power: ``p``.
        radius: length with which a unit's weights start, in the mean square.

    Attributes:
        mean_RC, variance_RC: of the input's channels; 0 and 1 at first.
    """

    mean_RC: Tensor
    variance_RC: Tensor

    def __init__(self, keys_R: Tensor, patch: int, channels: int, units: int, power: float, radius: float):
        super().__init__(keys_R, 1, patch, channels, units, None, "linear")
        self.weight_RGFE.data *= radius
        self.power = power
        self.activation = Activation(self._triangle, self._slope, self._masked, 1.0)
        self.register_buffer("mean_RC", torch.zeros(len(keys_R), channels, dtype=torch.get_default_dtype()))
        self.register_buffer("variance_RC", torch.ones(len(keys_R), channels, dtype=torch.get_default_dtype()))

    def forward(self, h_RBDC: Tensor, noise_RGME: Tensor | None = None, projection_noise: Tensor | None = None) -> LayerState:
        x_RBDC = (h_RBDC - self.mean_RC[:, None, None]) / self.deviation_RC[:, None, None]
        return super().forward(x_RBDC.to(h_RBDC.dtype), noise_RGME, projection_noise)

    @property
    def deviation_RC(self) -> Tensor:
        """By which the input is divided."""
        return (self.variance_RC + EPS).sqrt()

    def _above_mean(self, a_RGME: Tensor) -> Tensor:
        return (a_RGME - a_RGME.mean(-1, keepdim=True)).relu()

    def _triangle(self, a_RGME: Tensor) -> Tensor:
        return self._above_mean(a_RGME) ** self.power

    def _slope(self, a_RGME: Tensor) -> Tensor:
        above = self._above_mean(a_RGME)
        return torch.where(above > 0, self.power * above.clamp_min(1e-12) ** (self.power - 1), 0)

    def _masked(self, signal_RGME: Tensor, a_RGME: Tensor) -> Tensor:
        signal = signal_RGME * self._slope(a_RGME)
        return signal - signal.mean(-1, keepdim=True)

    def moments(self, state: LayerState) -> dict[str, Tensor]:
        """The batch's mean of each channel and its variance about the tracked mean, over strings and positions; a batch's are
        the means of its strings'."""
        x_RNC = state.input_RGMF.to(self.mean_RC.dtype).unflatten(-1, (self.patch, -1)).flatten(1, 3)
        return {
            "mean_RC": self.mean_RC + self.deviation_RC * x_RNC.mean(1),
            "variance_RC": self.deviation_RC.square() * x_RNC.square().mean(1),
        }

    def hand_down(self, delta_RGME: Tensor, batch: int, weight_RGFE: Tensor | None = None) -> Tensor:
        return super().hand_down(delta_RGME, batch, weight_RGFE) / self.deviation_RC[:, None, None]

    def tangent(self, state: LayerState, tangent_RBDC: Tensor) -> Tensor:
        change = multiply(self.fold(tangent_RBDC / self.deviation_RC[:, None, None]), self.weight_RGFE)
        return self.by_position(self.mask(state) * (change - change.mean(-1, keepdim=True)), state)


def moments(layers: Sequence[Layer], states: Sequence[LayerState]) -> dict[str, Tensor]:
    """What the mean and the variance of each competitive layer go towards, by the buffers' names in a rule."""
    found: dict[str, Tensor] = {}
    for k, (layer, state) in enumerate(zip(layers, states, strict=True)):
        if isinstance(layer, CompetitiveLayer):
            found |= {f"network.layers.{k}.{name}": moment for name, moment in layer.moments(state).items()}
    return found


class CompetitiveNetwork(HierarchicalNetwork):
    """Hierarchical network of competitive layers (Journe et al. 2023), with weights shared between positions.

    Args:
        width, depth, patch: see :class:`networks.HierarchicalNetwork`.
        power: ``p`` of ``relu(a - mean a)^p``, which a layer hands on.
        radius: length with which a unit's weights start, in the mean square.

    Raises:
        InvalidInput: a power or a radius that is not above 0.
    """

    def __init__(
        self,
        width: int = 256,
        depth: int | None = None,
        patch: int | None = None,
        power: float = 1.0,
        radius: float = 1.0,
    ):
        super().__init__(width, depth, activation="linear", patch=patch)
        for key, value in ("power", power), ("radius", radius):
            if value <= 0:
                raise InvalidInput(f"model.network.{key}", value, "a number above 0")
        self.power, self.radius = power, radius

    def build(self, task: TaskSizes, seeds_R: Tensor) -> LayeredNetwork:
        layers: list[Layer] = []
        channels = task.v
        for k, (_, patch) in enumerate(self.shapes(task, self.depth or task.L), 1):
            keys_R = seed_keys(seeds_R, "layer", k)
            layers.append(CompetitiveLayer(keys_R, patch, channels, self.width, self.power, self.radius))
            channels = self.width
        return LayeredNetwork(task, layers)

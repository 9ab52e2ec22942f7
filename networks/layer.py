"""A layer with a forward pass and a backward pass of its own.

Nothing here uses autograd: a rule decides which signal reaches a layer's output, and the layer turns it into updates of
its own weights. Backpropagation is the rule that hands each layer's input gradient to the layer below.

Shape suffixes: R replica, B batch, D position, C channel; G groups of positions that share weights, M rows of a matrix product
(strings times positions of a group), F inputs of a unit, E units before a bottleneck.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from networks.activations import ACTIVATIONS
from networks.state import LayerState, LayerUpdate
from rhm.hashing import fold, normal


class Layer(nn.Module):
    """One layer of ``R`` replicas: ``h = phi(W x + b)``, and, with a bottleneck, ``z = sqrt(C) U h / |U h|``.

    Its backward pass is a product of what is at hand: presynaptic activity, mask and a signal. It uses no autograd.

    Args:
        keys_R: int64 keys of the initial weights.
        groups: 1 if all positions share weights, else the number of output positions.
        patch: neighbouring positions that are merged into one.
        channels: channels of the input.
        units: number of units.
        bottleneck: width of the projection that is handed on; None hands on the units.
        activation: a key of :data:`ACTIVATIONS`.
        normalise: hand on the units as ``sqrt(E) h / |h|``; a bottleneck is always normalised.

    Attributes:
        OWN: names of the layer's own parameters; a rule may register others that its loss needs.
    """

    OWN: ClassVar[tuple[str, ...]] = ("weight_RGFE", "bias_RG1E", "projection_RGEC")

    def __init__(
        self,
        keys_R: Tensor,
        groups: int,
        patch: int,
        channels: int,
        units: int,
        bottleneck: int | None,
        activation: str,
        normalise: bool = False,
    ):
        super().__init__()
        self.groups, self.patch, self.normalise = groups, patch, normalise or bottleneck is not None
        self.activation = ACTIVATIONS[activation]
        fan_in, dtype = patch * channels, torch.get_default_dtype()
        weight = normal(fold(keys_R, "weight"), (groups, fan_in, units)) * (self.activation.gain / math.sqrt(fan_in))
        self.weight_RGFE = nn.Parameter(weight.to(dtype))
        self.bias_RG1E = nn.Parameter(torch.zeros(len(keys_R), groups, 1, units, dtype=dtype))
        self.projection_RGEC: nn.Parameter | None = None
        if bottleneck is not None:
            projection = normal(fold(keys_R, "projection"), (groups, units, bottleneck)) / math.sqrt(units)
            self.projection_RGEC = nn.Parameter(projection.to(dtype))

    @property
    def out_channels(self) -> int:
        """Channels of what the layer hands on."""
        return (self.weight_RGFE if self.projection_RGEC is None else self.projection_RGEC).shape[-1]

    def fold(self, h_RBDC: Tensor) -> Tensor:
        """Merge neighbouring positions into patches, ``[R, G, M, patch * C]``: a view if positions share weights."""
        R, B, D, C = h_RBDC.shape
        if self.groups == 1:
            return h_RBDC.reshape(R, 1, B * D // self.patch, self.patch * C)
        return h_RBDC.reshape(R, B, D // self.patch, self.patch * C).transpose(1, 2)

    def unfold(self, x_RGMF: Tensor, batch: int) -> Tensor:
        """The inverse of :meth:`fold` for any number of channels: ``[R, B, D, C]`` with ``D * patch`` positions of a patch."""
        R, _, _, F = x_RGMF.shape
        x = x_RGMF if self.groups == 1 else x_RGMF.transpose(1, 2)
        return x.reshape(R, batch, -1, F // self.patch)

    def forward(self, h_RBDC: Tensor, noise_RGME: Tensor | None = None, projection_noise: Tensor | None = None) -> LayerState:
        """The layer's state for input ``h_RBDC``; its gradient is left to :meth:`Layer.backward`.

        Args:
            h_RBDC: what the layer below hands on.
            noise_RGME: is added to the pre-activation.
            projection_noise: ``[R, G, M, out_channels]``, is added to the projection, before it is normalised.
        """
        batch, positions = h_RBDC.shape[1], h_RBDC.shape[2] // self.patch
        x = self.fold(h_RBDC)
        pre = multiply_add(self.bias_RG1E, x, self.weight_RGFE)
        if noise_RGME is not None:
            pre = pre + noise_RGME
        units = self.activation.phi(pre)
        z, scale = self.hand_on(units, projection_noise)
        return LayerState(x, pre, units, scale, self._by_position(z, batch, positions))

    def hand_on(self, units_RGME: Tensor, projection_noise: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """What the layer hands on, ``[R, G, M, out_channels]``, and what it was multiplied by to normalise it, if it was."""
        z = units_RGME if self.projection_RGEC is None else multiply(units_RGME, self.projection_RGEC)
        if projection_noise is not None:
            z = z + projection_noise
        if not self.normalise:
            return z, None
        scale = math.sqrt(z.shape[-1]) / z.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        return z * scale, scale

    def mask(self, state: LayerState) -> Tensor:
        """The layer's own mask ``D = diag(phi'(a))``, ``[R, G, M, E]``."""
        return self.activation.mask(state.pre_RGME)

    def by_position(self, x_RGME: Tensor, state: LayerState) -> Tensor:
        """Any activity of the layer's units, such as ``state.units_RGME``, as ``[R, B, D, E]``."""
        return self._by_position(x_RGME, *state.out_RBDC.shape[1:3])

    def by_group(self, x_RBDC: Tensor) -> Tensor:
        """The inverse of :meth:`by_position`: ``[R, G, M, C]``."""
        R, B, D, C = x_RBDC.shape
        return x_RBDC.reshape(R, 1, B * D, C) if self.groups == 1 else x_RBDC.transpose(1, 2)

    def backward(
        self, state: LayerState, grad_RBDC: Tensor, projection_RGEC: Tensor | None = None
    ) -> tuple[LayerUpdate, Tensor]:
        """The layer's own updates for a gradient with respect to what it handed on.

        Args:
            state: of the forward pass.
            grad_RBDC: ``dLoss / d out``, or whatever signal a rule puts in its place.
            projection_RGEC: takes the signal through the bottleneck instead of the projection itself.

        Returns:
            the updates, and ``delta_RGME``, the signal at the pre-activation, behind the layer's own mask.
        """
        update, signal = self.backward_output(state, grad_RBDC, projection_RGEC)
        delta = self.activation.masked(signal, state.pre_RGME)
        return update | self.hebbian(state, delta), delta

    def backward_output(
        self, state: LayerState, grad_RBDC: Tensor, projection_RGEC: Tensor | None = None
    ) -> tuple[LayerUpdate, Tensor]:
        """The first half of :meth:`Layer.backward`: the projection's update, and the signal at the units, before the mask."""
        grad = self.before_normalisation(state, self.by_group(grad_RBDC))
        if self.projection_RGEC is None:
            return {}, grad
        update = {"projection_RGEC": multiply(state.units_RGME.transpose(-1, -2), grad)}
        projection = self.projection_RGEC if projection_RGEC is None else projection_RGEC
        return update, multiply(grad, projection.transpose(-1, -2))

    def before_normalisation(self, state: LayerState, grad_RGMC: Tensor) -> Tensor:
        """A signal at what the layer handed on, or a change of it, taken through the normalisation if there is one."""
        if not self.normalise:
            return grad_RGMC
        out, scale = self.by_group(state.out_RBDC), state.scale_RGM1
        assert scale is not None
        # z = c u / |u|  =>  dz/du = (c / |u|) (1 - z z^T / c^2), symmetric, with c^2 = C
        return scale * (grad_RGMC - out * (out * grad_RGMC).mean(-1, keepdim=True))

    def hebbian(self, state: LayerState, delta_RGME: Tensor) -> LayerUpdate:
        """Presynaptic activity times a postsynaptic factor, summed over strings and the positions that share weights."""
        return {
            "weight_RGFE": multiply(state.input_RGMF.transpose(-1, -2), delta_RGME),
            "bias_RG1E": delta_RGME.sum(-2, keepdim=True),
        }

    def hand_down(self, delta_RGME: Tensor, batch: int, weight_RGFE: Tensor | None = None) -> Tensor:
        """``W^T delta``, the gradient with respect to the layer's input ``h_RBDC``: what backprop tells the layer below.

        Args:
            delta_RGME: the signal at the pre-activation.
            batch: number of strings.
            weight_RGFE: carries the signal instead of the layer's weights.
        """
        weight = self.weight_RGFE if weight_RGFE is None else weight_RGFE
        return self.unfold(multiply(delta_RGME, weight.transpose(-1, -2)), batch)

    def tangent(self, state: LayerState, tangent_RBDC: Tensor) -> Tensor:
        """Forward-mode derivative: how the output changes, ``[R, B, D, C]``, along a change of the input ``h_RBDC``."""
        change = self.activation.masked(multiply(self.fold(tangent_RBDC), self.weight_RGFE), state.pre_RGME)
        if self.projection_RGEC is not None:
            change = multiply(change, self.projection_RGEC)
        return self.by_position(self.before_normalisation(state, change), state)

    def split(self, state: LayerState, size: int) -> tuple[LayerState, LayerState]:
        """The states of the first ``size`` strings of a batch and of the rest, as views."""
        rows = size * (state.out_RBDC.shape[2] if self.groups == 1 else 1)
        inner = [(None, None) if t is None else t.tensor_split([rows], dim=2) for t in state[:-1]]
        outs = state.out_RBDC.tensor_split([size], dim=1)
        first, rest = (LayerState._make([*(part[j] for part in inner), outs[j]]) for j in (0, 1))
        return first, rest

    def _by_position(self, x_RGMC: Tensor, batch: int, positions: int) -> Tensor:
        R, C = x_RGMC.shape[0], x_RGMC.shape[3]
        return x_RGMC.reshape(R, batch, positions, C) if self.groups == 1 else x_RGMC.transpose(1, 2)


def multiply(a_RGMF: Tensor, b_RGFE: Tensor) -> Tensor:
    """One matrix product for all replicas and groups."""
    R, G, M, _ = a_RGMF.shape
    return torch.bmm(a_RGMF.flatten(0, 1), b_RGFE.flatten(0, 1)).view(R, G, M, b_RGFE.shape[-1])


def multiply_add(c_RG1E: Tensor, a_RGMF: Tensor, b_RGFE: Tensor) -> Tensor:
    """``c + a b`` in one pass."""
    R, G, M, _ = a_RGMF.shape
    return torch.baddbmm(c_RG1E.flatten(0, 1), a_RGMF.flatten(0, 1), b_RGFE.flatten(0, 1)).view(R, G, M, b_RGFE.shape[-1])

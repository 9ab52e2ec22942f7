"""Vector units: each unit holds one number a class, and passes all or none of them on.

Shape suffixes: R replica, B batch, D position, C channel; G groups (always 1 here), M rows of a matrix product, F input units,
E units, K components of a unit, one for each class; N classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from networks.activations import Activation
from networks.architectures import HierarchicalNetwork
from networks.layer import Layer, multiply
from networks.layered import LayeredNetwork
from networks.readout import Readout, ReadoutState
from networks.state import LayerState, LayerUpdate
from rhm import InvalidInput, TaskSizes
from rhm.hashing import fold, normal, seed_keys, uniform


class VectorLayer(Layer):
    """A layer of vector units (Clark, Abbott, Chung 2021): ``a_i = sum_j w_ij h_j + b_i``, ``h_i = 1[t_i . a_i >= 0] a_i``.

    ``h_i`` and ``b_i`` have ``K`` components, a weight is one number for all of them. The gates' directions ``t_i`` are fixed
    signs, opposite for the two units of a pair. A state's pre-activations, units and outputs have ``E * K`` channels, the
    components of a unit side by side. The gate is the layer's activation: who asks it for a mask is given the gates.

    Weights start independent of one another, or ``paired``, as the authors' (their ON/OFF initialisation): the two units of a
    pair then have opposite vectors, and their gates open together. The first layer has ``W`` and ``-W`` with
    ``W ~ N(0, K / fan_in)``, as of the input units of a component all but a ``K``-th are 0; above see :func:`on_off`.

    Args:
        keys_R: int64 keys of the initial weights.
        patch: neighbouring positions that are merged into one.
        channels: units of the input, each with ``K`` components.
        units: number of units.
        components: ``K``.
        signed: whether weights may be negative; if not, they start positive and are kept so by the rule.
        paired: whether units start in pairs; signed weights are then those of a first layer.
    """

    OWN = ("weight_RGFE", "bias_RG1E")

    def __init__(
        self, keys_R: Tensor, patch: int, channels: int, units: int, components: int, signed: bool, paired: bool = False
    ):
        super().__init__(keys_R, 1, patch, channels, units, None, "linear")
        self.components, self.signed = components, signed
        self.activation = Activation(self._gated, self._gates, self._masked, math.sqrt(2))
        dtype, fan_in = torch.get_default_dtype(), patch * channels
        if paired and signed:
            weight = normal(fold(keys_R, "weight"), (1, fan_in, units // 2)) * math.sqrt(components / fan_in)
            self.weight_RGFE = nn.Parameter(torch.stack([weight, -weight], -1).flatten(-2).to(dtype))
        elif paired:
            self.weight_RGFE = nn.Parameter(on_off(fold(keys_R, "weight"), fan_in, units)[:, None].to(dtype))
        elif not signed:
            # exponential weights, on average small enough that the sum of half the inputs keeps their scale
            weight = -torch.log(uniform(fold(keys_R, "weight"), (1, fan_in, units))) * (2 / fan_in)
            self.weight_RGFE = nn.Parameter(weight.to(dtype))
        else:
            self.weight_RGFE.data *= math.sqrt(2)  # half of the units are off
        self.bias_RG1E = nn.Parameter(torch.zeros(len(keys_R), 1, 1, units * components, dtype=dtype))
        sign = normal(fold(keys_R, "gate"), (-(-units // 2), components)).sign()
        self.register_buffer("gate_REK", torch.stack([sign, -sign], 2).flatten(1, 2)[:, :units].to(dtype))

    @property
    def out_channels(self) -> int:
        return self.weight_RGFE.shape[-1] * self.components

    def fold(self, h_RBDC: Tensor) -> Tensor:
        """Merge neighbours: ``[R, 1, M, patch * C]``, the units of a patch side by side, each with its components."""
        return h_RBDC.unflatten(2, (-1, self.patch)).flatten(3).flatten(1, 2)[:, None]

    def forward(self, h_RBDC: Tensor, noise_RGME: Tensor | None = None, projection_noise: Tensor | None = None) -> LayerState:
        batch, positions = h_RBDC.shape[1], h_RBDC.shape[2] // self.patch
        x = self.fold(h_RBDC)
        pre = self._linear(x) + self.bias_RG1E
        if noise_RGME is not None:
            pre = pre + noise_RGME
        units = self._gated(pre)
        return LayerState(x, pre, units, None, self._by_position(units, batch, positions))

    def hebbian(self, state: LayerState, delta_RGME: Tensor) -> LayerUpdate:
        """``dw_ij = sum delta_i . h_j``: the product of vectors is a number."""
        x, delta = self._components(state.input_RGMF), self._components(delta_RGME)
        return {
            "weight_RGFE": multiply(x.transpose(-1, -2), delta),
            "bias_RG1E": delta_RGME.sum(-2, keepdim=True),
        }

    def hand_down(self, delta: Tensor, batch: int, weight_RGFE: Tensor | None = None) -> Tensor:
        weight_RGFE = self.weight_RGFE if weight_RGFE is None else weight_RGFE
        below = multiply(self._components(delta), weight_RGFE.transpose(-1, -2))  # delta has E * K channels
        return self.unfold(self._channels(below), batch)

    def tangent(self, state: LayerState, tangent_RBDC: Tensor) -> Tensor:
        return self.by_position(self._masked(self._linear(self.fold(tangent_RBDC)), state.pre_RGME), state)

    def _linear(self, x_RGMF: Tensor) -> Tensor:
        return self._channels(multiply(self._components(x_RGMF), self.weight_RGFE))

    def _gated(self, pre_RGME: Tensor) -> Tensor:
        return pre_RGME * self._gates(pre_RGME)

    def _masked(self, signal_RGME: Tensor, pre_RGME: Tensor) -> Tensor:
        return signal_RGME * self._gates(pre_RGME)

    def _gates(self, pre_RGME: Tensor) -> Tensor:
        a = pre_RGME.unflatten(-1, (-1, self.components))
        on = (a * self.get_buffer("gate_REK")[:, None, None]).sum(-1, keepdim=True) >= 0
        return on.to(pre_RGME.dtype).expand_as(a).flatten(-2)

    def _components(self, x_RGMC: Tensor) -> Tensor:
        """``[R, G, M * K, F]`` of channels ``F * K``: every component is a row."""
        return x_RGMC.unflatten(-1, (-1, self.components)).transpose(-1, -2).flatten(2, 3)

    def _channels(self, x_RGMF: Tensor) -> Tensor:
        """The inverse of :meth:`_components`."""
        return x_RGMF.unflatten(2, (-1, self.components)).transpose(-1, -2).flatten(-2)


def on_off(keys_R: Tensor, inputs: int, units: int) -> Tensor:
    """Non-negative weights between pairs of units, ``[R, inputs, units]``, that do what signed ones would.

    With ``W ~ N(0, 4 / inputs)`` between pairs a unit has ``relu(W)`` from its own kind, the first or the second of a pair, and
    ``relu(-W)`` from the other kind. As the two of a pair below have opposite vectors, so have the two of a pair.
    """
    weight = normal(keys_R, (inputs // 2, units // 2)) * (2 / math.sqrt(inputs))
    own, other = weight.relu(), (-weight).relu()
    to_first, to_second = (torch.stack(kinds, 2) for kinds in ((own, other), (other, own)))
    return torch.stack([to_first, to_second], -1).flatten(3, 4).flatten(1, 2)


class VectorReadout(Readout):
    """One vector unit without a gate: ``o = sum_i w_i h_i + b``, one weight for all components of a unit.

    Args:
        seeds: of the initial weights.
        features: units times components.
        classes: components.
        signed: whether weights may be negative.
        paired: whether it starts as the first unit of a pair, see :func:`on_off`.
    """

    def __init__(self, seeds: Tensor, features: int, classes: int, signed: bool, paired: bool = False):
        super().__init__(seeds, features, classes)
        units, dtype = features // classes, torch.get_default_dtype()
        keys_R = fold(seed_keys(seeds), "readout")
        if paired:
            weight = on_off(keys_R, units, 2)[..., :1].contiguous()
        elif signed:
            weight = normal(keys_R, (units, 1)) / math.sqrt(units)
        else:
            weight = -torch.log(uniform(keys_R, (units, 1))) * (2 / units)
        self.weight_RFN = nn.Parameter(weight.to(dtype))

    def logits(self, features_RBF: Tensor) -> Tensor:
        vectors = features_RBF.unflatten(-1, (-1, self.bias_R1N.shape[-1]))
        return torch.einsum("rbfk,rf->rbk", vectors, self.weight_RFN[..., 0]) + self.bias_R1N

    def backward(self, state: ReadoutState) -> LayerUpdate:
        error = self._mean_error(state)
        vectors = state.features_RBF.unflatten(-1, (-1, error.shape[-1]))
        return {
            "weight_RFN": torch.einsum("rbfk,rbk->rf", vectors, error)[..., None],
            "bias_R1N": error.sum(1, keepdim=True),
        }

    def hand_down(self, state: ReadoutState, shape: torch.Size, weight_RFN: Tensor | None = None) -> Tensor:
        weight = self.weight_RFN if weight_RFN is None else weight_RFN
        return torch.einsum("rbk,rf->rbfk", self._mean_error(state), weight[..., 0]).reshape(shape)

    def tangent(self, tangent_RBF: Tensor) -> Tensor:
        vectors = tangent_RBF.unflatten(-1, (-1, self.bias_R1N.shape[-1]))
        return torch.einsum("rbfk,rf->rbk", vectors, self.weight_RFN[..., 0])


class VectorLayeredNetwork(LayeredNetwork):
    """Vector layers; a token's channel ``j`` is ``K`` input units, of which unit ``(k, j)`` has ``x_j`` in component ``k``
    and 0 elsewhere.
    """

    signed: bool
    paired: bool

    def encode(self, x_RBD: Tensor, label_RB: Tensor | None = None) -> Tensor:
        x_RBDC = super().encode(x_RBD, label_RB)
        eye = torch.eye(self.task.n, dtype=x_RBDC.dtype, device=x_RBDC.device)
        return (x_RBDC[..., None, None] * eye).flatten(3)  # channel, unit of the channel, component

    def readout(self, seeds: Tensor, features: int) -> Readout:
        return VectorReadout(seeds, features, self.task.n, self.signed, self.paired)


class VectorNetwork(HierarchicalNetwork):
    """Hierarchical network of vector units (Clark, Abbott, Chung 2021), with weights shared between positions.

    Weights above the first layer, and the readout's, start positive and are kept so by a rule that needs it, unless they are
    ``signed``.

    Args:
        width: units of a layer, each with one component a class.
        depth, patch: see :class:`networks.HierarchicalNetwork`.
        signed: whether weights above the first layer may be negative.
        paired: start with pairs of units of opposite vectors, as the authors do; behind independent weights with Adam at 1e-3
            (docs/rules-at-their-best.md).

    Raises:
        InvalidInput: pairs in an odd width, or of signed weights, which need none.
    """

    def __init__(
        self, width: int = 64, depth: int | None = None, patch: int | None = None, signed: bool = False, paired: bool = False
    ):
        super().__init__(width, depth, patch=patch)
        if paired and signed:
            raise InvalidInput("model.network.paired", True, "false with model.network.signed")
        if paired and width % 2:
            raise InvalidInput("model.network.width", width, "an even number with model.network.paired")
        self.signed, self.paired = signed, paired

    def build(self, task: TaskSizes, seeds_R: Tensor) -> LayeredNetwork:
        layers: list[Layer] = []
        channels = task.v * task.n
        for k, (_, patch) in enumerate(self.shapes(task, self.depth or task.L), 1):
            keys_R = seed_keys(seeds_R, "layer", k)
            layers.append(VectorLayer(keys_R, patch, channels, self.width, task.n, self.signed or k == 1, self.paired))
            channels = self.width
        network = VectorLayeredNetwork(task, layers)
        network.signed, network.paired = self.signed, self.paired
        return network

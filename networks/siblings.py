"""A network in which siblings, the positions that the next layer merges, have weights of their own.

Shape suffixes: R replica, B batch, D position, C channel; G groups (always 1 here), M rows of a matrix product, F inputs of a
unit, one place after the other, E units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from networks.architectures import HierarchicalNetwork
from networks.layer import Layer
from networks.layered import LayeredNetwork
from rhm import TaskSizes
from rhm.hashing import seed_keys


class SiblingLayer(Layer):
    """A layer whose positions share the weights of their place: of two siblings, all left ones have one set and all right ones
    another.

    A unit's inputs are those of all places, and those of the other places are 0: so that all else is as in a layer that shares
    its weights. The bias is that of the unit, whatever the place.

    Args:
        keys_R, patch, channels, units, bottleneck, activation, normalise: see :class:`networks.Layer`.
        places: how many positions the next layer merges.
    """

    def __init__(
        self,
        keys_R: Tensor,
        patch: int,
        channels: int,
        units: int,
        bottleneck: int | None,
        activation: str,
        normalise: bool,
        places: int,
    ):
        super().__init__(keys_R, 1, patch, channels * places, units, bottleneck, activation, normalise)
        self.weight_RGFE.data *= math.sqrt(places)  # of the inputs, one place's are there
        self.places = places

    def fold(self, h_RBDC: Tensor) -> Tensor:
        rows = super().fold(h_RBDC)
        return (rows[..., None, :] * self._own(rows)).flatten(-2)

    def unfold(self, x_RGMF: Tensor, batch: int) -> Tensor:
        rows = x_RGMF.unflatten(-1, (self.places, -1))
        return super().unfold((rows * self._own(x_RGMF)).sum(-2), batch)

    def _own(self, rows_RGMF: Tensor) -> Tensor:
        """1 at each row's own place, ``[M, places, 1]``."""
        place_M = torch.arange(rows_RGMF.shape[2], device=rows_RGMF.device) % self.places
        return functional.one_hot(place_M, self.places)[..., None].to(rows_RGMF.dtype)


class SiblingNetwork(HierarchicalNetwork):
    """As the hierarchical network, with a set of weights for each place among siblings, shared between parents.

    So a layer can tell left from right, as a rule needs that adds up what two siblings say. The top layer has no siblings.

    Args:
        width, depth, bottleneck, activation, normalise, label_slot, patch: see :class:`networks.HierarchicalNetwork`.
    """

    def build(self, task: TaskSizes, seeds_R: Tensor) -> LayeredNetwork:
        depth = self.depth or task.L
        patches = [patch for _, patch in self.shapes(task, depth)]
        layers: list[Layer] = []
        channels = task.v + (task.n if self.label_slot else 0)
        for k, (patch, places) in enumerate(zip(patches, [*patches[1:], 1], strict=True), 1):
            keys_R = seed_keys(seeds_R, "layer", k)
            bottleneck = self.handed_on(task) if k < depth else None
            sizes = patch, channels, self.width, bottleneck, self.activation, self.normalise
            layers.append(SiblingLayer(keys_R, *sizes, places))
            channels = layers[-1].out_channels
        return LayeredNetwork(task, layers, self.label_slot)

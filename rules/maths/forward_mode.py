"""Forward-mode derivatives through a network: how activity changes along noise, on the way up.

Shape suffixes: R replica, B batch, D position, C channel.
"""

from __future__ import annotations

from torch import Tensor

from networks import LayeredNetwork, LayerState


def tangents(network: LayeredNetwork, states: list[LayerState], noise_RBDC: list[Tensor]) -> list[Tensor]:
    """How what each layer hands on would change, ``[R, B, D, C]``, along its own noise and that of all layers below."""
    found = [noise_RBDC[0]]
    for layer, state, noise in zip(list(network.layers)[1:], states[1:], noise_RBDC[1:], strict=True):
        found.append(layer.tangent(state, found[-1]) + noise)
    return found

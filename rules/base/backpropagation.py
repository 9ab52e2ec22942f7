"""Exact gradients of the readout's loss, layer by layer: a rule, and what others are compared with.

Shape suffixes: R replica, B batch, D position, C channel, F = D * C, N classes; G groups of positions, E units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from networks import LayeredNetwork, LayerState, LayerUpdate, Readout, ReadoutState, multiply


def backpropagate(
    network: LayeredNetwork, readout: Readout, states: list[LayerState], answer: ReadoutState, down_to: int
) -> list[LayerUpdate]:
    """Gradients for the layers above the first ``down_to``, in their order, from the states of all layers and the answer."""
    updates: list[LayerUpdate] = []
    if down_to == len(network):
        return updates
    grad = readout.hand_down(answer, states[-1].out_RBDC.shape)
    for k in range(len(network) - 1, down_to - 1, -1):
        layer = network.layers[k]
        update, delta = layer.backward(states[k], grad)
        updates.insert(0, update)
        if k > down_to:
            grad = layer.hand_down(delta, grad.shape[1])
    return updates


def weight_products(network: LayeredNetwork, readout: Readout) -> list[Tensor]:
    """``W_{l+1}^T ... W_L^T W_o^T``, which carry an error from the logits to each layer's output if no mask and no
    normalisation stands in its way: ``[R, N, D * C]``, one a layer."""
    weight, N = readout.weight_RFN, readout.bias_R1N.shape[-1]
    R = len(weight)
    eye = torch.eye(N, dtype=weight.dtype, device=weight.device).expand(R, N, N)
    unit_errors = ReadoutState(eye, eye, eye * N, eye[:, 0])  # one string a class; the mean over strings divides by N
    shape = torch.Size((R, N, network.positions[-1], network.layers[-1].out_channels))
    signal = readout.hand_down(unit_errors, shape)
    products = [signal.flatten(2)]
    for layer in reversed(list(network.layers)[1:]):
        grad = layer.by_group(signal)
        if layer.projection_RGEC is not None:
            grad = multiply(grad, layer.projection_RGEC.transpose(-1, -2))
        signal = layer.hand_down(grad, N)
        products.insert(0, signal.flatten(2))
    return products

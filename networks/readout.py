"""The readout: what labels can be read from a network's features, without changing the features.

Shape suffixes: R replica, B batch, D position, C channel, F = D * C features, N classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from networks.state import LayerUpdate
from rhm.hashing import fold, normal, seed_keys


class ReadoutState(NamedTuple):
    """What the readout computed for a batch.

    Attributes:
        features_RBF: its input.
        logits_RBN: its output ``o``.
        error_RBN: ``e = softmax(o) - y``, the gradient of the cross-entropy of one string.
        loss_RB: cross-entropy.
    """

    features_RBF: Tensor
    logits_RBN: Tensor
    error_RBN: Tensor
    loss_RB: Tensor

    @property
    def loss_R(self) -> Tensor:
        """Cross-entropy, a mean over the batch."""
        return self.loss_RB.mean(1)

    def weighted(self, weight_RB: Tensor) -> ReadoutState:
        """The same with each string's loss and error times a weight."""
        weight_RB = weight_RB.to(self.error_RBN.dtype)
        return self._replace(error_RBN=self.error_RBN * weight_RB[..., None], loss_RB=self.loss_RB * weight_RB)


def error_and_loss(logits_RBN: Tensor, y_RB: Tensor) -> tuple[Tensor, Tensor]:
    """``softmax(o) - y``, ``[R, B, N]``, and the cross-entropy of which it is the gradient, ``[R, B]``, of each string."""
    log_p = torch.log_softmax(logits_RBN, -1)
    y_RB1 = y_RB.long()[..., None]
    error = log_p.exp().scatter_add(-1, y_RB1, torch.full_like(log_p[..., :1], -1.0))
    return error, -log_p.gather(-1, y_RB1)[..., 0]


class Readout(nn.Module):
    """A linear classifier, ``o = F W + b``, trained by its own cross-entropy.

    Args:
        seeds: of the initial weights, one for each replica.
        features: number of inputs.
        classes: number of outputs.
    """

    def __init__(self, seeds: Tensor, features: int, classes: int):
        super().__init__()
        weight = normal(fold(seed_keys(seeds), "readout"), (features, classes)) / math.sqrt(features)
        self.weight_RFN = nn.Parameter(weight.to(torch.get_default_dtype()))
        self.bias_R1N = nn.Parameter(torch.zeros(len(seeds), 1, classes))

    def forward(self, out_RBDC: Tensor, y_RB: Tensor) -> ReadoutState:
        """Logits, error and loss for the top layer's output and the classes."""
        features = out_RBDC.flatten(2)
        logits = self.logits(features)
        return ReadoutState(features, logits, *error_and_loss(logits.to(self.bias_R1N.dtype), y_RB))

    def logits(self, features_RBF: Tensor) -> Tensor:
        """``o``, ``[R, B, N]``."""
        return torch.baddbmm(self.bias_R1N, features_RBF, self.weight_RFN)

    def tangent(self, tangent_RBF: Tensor) -> Tensor:
        """Forward-mode derivative: how the logits change, ``[R, B, N]``, along a change of the features."""
        return torch.bmm(tangent_RBF, self.weight_RFN)

    def backward(self, state: ReadoutState) -> LayerUpdate:
        """The readout's updates for the mean loss over the batch."""
        error = self._mean_error(state)
        return {
            "weight_RFN": torch.bmm(state.features_RBF.transpose(1, 2), error),
            "bias_R1N": error.sum(1, keepdim=True),
        }

    def hand_down(self, state: ReadoutState, shape: torch.Size, weight_RFN: Tensor | None = None) -> Tensor:
        """``W^T e``, the gradient of the mean loss with respect to the top layer's output of a given shape.

        Args:
            state: of the forward pass.
            shape: of the top layer's output.
            weight_RFN: carries the error instead of the readout's weights.
        """
        weight = self.weight_RFN if weight_RFN is None else weight_RFN
        return torch.bmm(self._mean_error(state), weight.transpose(1, 2)).view(shape)

    @staticmethod
    def _mean_error(state: ReadoutState) -> Tensor:
        return (state.error_RBN / state.error_RBN.shape[1]).to(state.features_RBF.dtype)

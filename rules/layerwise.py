"""Layerwise self-supervised rules: each layer minimises a loss on its own output, and nothing passes between layers.

Shape suffixes: R replica, B batch, D pair of a string, C channel.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from networks import Layer, LayerUpdate
from rhm import InvalidInput
from rhm.hashing import normal
from rules.local_rule import Locality, LocalRule, NetworkConfig, OptimizerCallable, Step, default_network
from rules.losses import bilinear_scores, cosine_scores, info_nce, project


class LayerwiseRule(LocalRule):
    """A loss on the positive pairs of each layer's output; a subclass gives the loss.

    The loss's gradient with respect to the output is all that reaches the layer, which turns it into updates of its own
    weights. With a bottleneck it passes the projection inside the layer.
    """

    uses_pairs = True
    locality = Locality(pair=True)

    @abstractmethod
    def pair_loss(self, layer: Layer, z1_RBDC: Tensor, z2_RBDC: Tensor) -> Tensor:
        """A layer's loss ``[R]`` for the two sides of its pairs; differentiable."""

    def build_head(self, k: int, layer: Layer, channels: int) -> None:
        """Give layer ``k`` (from 1) the parameters that its loss needs, for sides of so many channels; none by default."""

    def add_matrix(self, layer: Layer, name: str, k: int, rows: int, columns: int, scale: float) -> None:
        """Give layer ``k`` a learned matrix ``[R, rows, columns]``, normal with standard deviation ``scale`` at the start."""
        matrix = normal(self.keys_R(name, k), (rows, columns)) * scale
        layer.register_parameter(name, nn.Parameter(matrix.to(torch.get_default_dtype())))

    def build(self) -> None:
        if self.trained_layers == 0:
            network, pairs = type(self.network_config).__name__, type(self.pairs).__name__
            got = f"{pairs} with a {network} of {len(self.network)} layers"
            raise InvalidInput("data.pairs", got, "pairs that a layer of the network has, such as ClassPairs or HalfPairs")
        for k, layer in enumerate(self.network.layers[: self.trained_layers], 1):
            self.build_head(k, layer, self.pairs.channels(layer.out_channels, self.network.positions[k - 1]))

    @property
    def trained_layers(self) -> int:
        return self.pairs.layers([layer.patch for layer in self.network.layers])

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        layers, updates = self.network.layers, []
        for k, layer in enumerate(layers[: self.trained_layers]):
            states = [step.states[k]] if step.view_states is None else [step.states[k], step.view_states[k]]
            outs = [state.out_RBDC.detach().requires_grad_() for state in states]
            heads = {name: p for name, p in layer.named_parameters() if name not in Layer.OWN}
            with torch.enable_grad():
                patch = layers[k + 1].patch if k + 1 < len(layers) else 1
                sides = self.pairs.positives(outs[0], outs[1] if len(outs) > 1 else None, patch)
                loss_R = self.pair_loss(layer, *sides)
                grads = torch.autograd.grad(loss_R.sum(), [*outs, *heads.values()])
            update = dict(zip(heads, grads[len(outs) :], strict=True))
            for state, grad in zip(states, grads, strict=False):
                for name, part in layer.backward(state, grad)[0].items():
                    update[name] = update[name] + part if name in update else part
            updates.append(update)
            self.step_metrics[f"loss/layer{k + 1}"] = loss_R.detach()
        return updates


class LayerwiseContrastive(LayerwiseRule):
    """InfoNCE at every layer (Oord et al. 2018; layerwise: Lowe et al. 2019).

    ``Loss_l = -log exp(u_bb / t) / sum_b' exp(u_bb' / t)`` with ``u = z1^T W_l z2`` (``bilinear``) or the cosine of ``z1`` and
    ``z2`` (``cosine``) for the two sides of a pair; the negatives are the batch's other strings. With a head the sides are
    ``z = U_l h``, a linear projection that is not handed on (Chen et al. 2020).

    Learned: the weights, the head ``U_l`` and, with the bilinear score, the predictor ``W_l``; both belong to the layer.
    Siblings need the predictor: the left and the right symbol of a tuple predict one another but are not alike, and a cosine
    would call every symbol most like itself. Not known: which pairs, score and temperature the source paper used.

    Args:
        network, optimizer, clip: see :class:`rules.local_rule.LocalRule`.
        score: ``bilinear`` or ``cosine``.
        temperature: ``t``.
        head: width of the head; None compares the layer's output itself.

    Raises:
        InvalidInput: an unknown score; a temperature or head not above 0; a network without layers that have pairs.
    """

    source = "Oord et al. 2018, arXiv 1807.03748; Lowe et al. 2019, arXiv 1905.11786"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        score: str = "bilinear",
        temperature: float = 1.0,
        head: int | None = None,
    ):
        super().__init__(network, optimizer, clip)
        if score not in ("bilinear", "cosine"):
            raise InvalidInput("model.score", score, "bilinear or cosine")
        if temperature <= 0:
            raise InvalidInput("model.temperature", temperature, "a number above 0")
        if head is not None and head < 1:
            raise InvalidInput("model.head", head, "an integer of at least 1, or null")
        self.score, self.temperature, self.head = score, temperature, head

    def build_head(self, k: int, layer: Layer, channels: int) -> None:
        if self.head is not None:
            self.add_matrix(layer, "head_RCC", k, channels, self.head, scale=1 / math.sqrt(channels))
            channels = self.head
        if self.score == "bilinear":
            self.add_matrix(layer, "predictor_RCC", k, channels, channels, scale=1 / channels)

    def pair_loss(self, layer: Layer, z1_RBDC: Tensor, z2_RBDC: Tensor) -> Tensor:
        if self.head is not None:
            head_RCC = layer.get_parameter("head_RCC")
            z1_RBDC, z2_RBDC = project(z1_RBDC, head_RCC), project(z2_RBDC, head_RCC)
        if self.score == "bilinear":
            predictor = layer.get_parameter("predictor_RCC") / self.temperature
            return info_nce(bilinear_scores(z1_RBDC, predictor, z2_RBDC))
        return info_nce(cosine_scores(z1_RBDC, z2_RBDC) / self.temperature)

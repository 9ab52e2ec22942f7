"""A predictor and a stopped gradient in place of negatives: SimSiam, and BYOL with a target that follows slowly.

Shape suffixes: R replica, B batch, D pair of a string, C channel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from networks import Layer, LayerUpdate
from rhm import InvalidInput
from rules.layerwise import Block, LayerwiseRule, Pair
from rules.local_rule import NetworkConfig, OptimizerCallable, Step, default_network
from rules.losses import negative_cosine, project


class SimSiam(LayerwiseRule):
    """SimSiam (Chen, He 2021, eq. 1 and 2) at every layer: ``-cos(q(z1), stop z2) / 2 - cos(q(z2), stop z1) / 2``.

    Learned: the weights and the predictor ``q``, two matrices with a relu between them, which belong to the layer. No
        negatives.

    Args:
        network, optimizer, clip, block: see :class:`rules.layerwise.LayerwiseRule`.
        hidden: width of the predictor's hidden layer.

    Raises:
        InvalidInput: ``hidden`` under 1.
    """

    source = "Chen, He 2021, arXiv 2011.10566"
    compares_strings = False

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(),
        hidden: int = 32,
    ):
        super().__init__(network, optimizer, clip, block)
        if hidden < 1:
            raise InvalidInput("model.hidden", hidden, "an integer of at least 1")
        self.hidden = hidden

    def build_head(self, head: nn.Module, k: int, channels: int) -> None:
        self.add_matrix(head, "predictor_in_RCE", k, (channels, self.hidden), scale=math.sqrt(2 / channels))
        self.add_matrix(head, "predictor_out_REC", k, (self.hidden, channels), scale=1 / math.sqrt(self.hidden))

    def predict(self, pair: Pair, z_RBDC: Tensor) -> Tensor:
        """``q(z)``."""
        hidden = project(z_RBDC, pair.head.get_parameter("predictor_in_RCE")).relu()
        return project(hidden, pair.head.get_parameter("predictor_out_REC"))

    def targets(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """What each side is predicted to be; constants."""
        return pair.z1_RBDC.detach(), pair.z2_RBDC.detach()

    def pair_loss(self, pair: Pair) -> Tensor:
        t1, t2 = self.targets(pair)
        forth = negative_cosine(self.predict(pair, pair.z1_RBDC), t2)
        return (forth + negative_cosine(self.predict(pair, pair.z2_RBDC), t1)) / 2


class BYOL(SimSiam):
    """BYOL (Grill et al. 2020, eq. 2) at every layer: SimSiam whose targets come from a slow copy of the layer.

    The copy's weights follow the layer's, ``target += (1 - momentum) (W - target)``, with ``W`` as it was in the step (the
    paper: after it), and see the same input, from the layers below as they are; end to end all layers are copies, as in the
    paper. Heads have no copy.

    Args:
        network, optimizer, clip, block, hidden: see :class:`SimSiam`.
        momentum: of the copy.

    Raises:
        InvalidInput: ``momentum`` outside [0, 1); units with a loss of their own.
    """

    source = "Grill et al. 2020, arXiv 2006.07733"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(),
        hidden: int = 32,
        momentum: float = 0.99,
    ):
        super().__init__(network, optimizer, clip, block, hidden)
        if not 0 <= momentum < 1:
            raise InvalidInput("model.momentum", momentum, "a number in [0, 1)")
        if block.expansion == "local":
            raise InvalidInput("model.block.expansion", "local", "backprop or random with BYOL")
        self.rate = 1 - momentum

    def build(self) -> None:
        super().build()
        for k, name, parameter in self._own():
            self.register_buffer(f"target_{k}_{name}", parameter.detach().clone())

    def _own(self) -> list[tuple[int, str, Tensor]]:
        layers = self.network.layers[: self.trained_layers]
        return [(k, name, p) for k, layer in enumerate(layers, 1) for name, p in layer.named_parameters() if name in Layer.OWN]

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        self.estimates = {f"target_{k}_{name}": parameter.detach().clone() for k, name, parameter in self._own()}
        return super().layer_updates(step)

    def targets(self, pair: Pair) -> tuple[Tensor, Tensor]:
        layers, first = self.network.layers, 1 if self.block.end_to_end else pair.k
        patch = layers[pair.k].patch if pair.k < len(layers) else 1
        outs = []
        with torch.no_grad():
            for state in self._states(pair.step, first):
                h_RBDC = layers[first - 1].unfold(state.input_RGNF, state.out_RBDC.shape[1])
                for k in range(first, pair.k + 1):
                    slow = {name: self.get_buffer(f"target_{j}_{name}") for j, name, _ in self._own() if j == k}
                    h_RBDC = functional_call(layers[k - 1], slow, (h_RBDC,)).out_RBDC
                outs.append(h_RBDC.to(pair.z1_RBDC.dtype))
            t1, t2 = self.pairs.positives(outs[0], outs[1] if len(outs) > 1 else None, patch)
            return self._behind_head(t1, t2, pair.head)

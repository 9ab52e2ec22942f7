"""SimSiam with a target that follows slowly.

Shape suffixes: R replica, B batch, D position or pair of a string, C channel; G groups of positions, M rows, F inputs.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.func import functional_call

from networks import Layer
from rhm import InvalidInput
from rules.base.block import Block
from rules.base.contract import Step, Updates
from rules.base.layerwise import Activity
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.base.pair import Pair
from rules.simsiam import SimSiam


class BYOL(SimSiam):
    """BYOL (Grill et al. 2020, eq. 2) at every layer: SimSiam whose targets come from a slow copy of the layer.

    The loss is SimSiam's, ``-(cos + cos') / 2``: a quarter of the paper's symmetric ``4 - 2 (cos + cos')``, up to a constant.

    The copy's weights follow the layer's, ``target += (1 - momentum) (W - target)``, with ``W`` as it was in the step (the
    paper: after it), and see the same input, from the layers below as they are; end to end all layers are copies, as in the
    paper. Heads have no copy.

    Args:
        network, optimizer, clip, block, hidden: see :class:`rules.simsiam.SimSiam`.
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

    def layer_updates(self, step: Step) -> Updates:
        here = {f"target_{k}_{name}": parameter.detach().clone() for k, name, parameter in self._own()}
        return replace(super().layer_updates(step), estimates=here)

    def shown(self, step: Step, k: int, activity: Activity) -> tuple[Tensor, ...]:
        """The sides of the slow copy's pairs, before the head."""
        layers, first, outs = self.network.layers, 1 if self.block.end_to_end else k, []
        with torch.no_grad():
            for state in self.states(step, first):
                h_RBDC = layers[first - 1].unfold(state.input_RGMF, state.out_RBDC.shape[1])
                for j in range(first, k + 1):
                    slow = {name: self.get_buffer(f"target_{own}_{name}") for own, name, _ in self._own() if own == j}
                    h_RBDC = functional_call(layers[j - 1], slow, (h_RBDC,)).out_RBDC
                outs.append(h_RBDC)
            return self.positives(outs, k)

    def targets(self, pair: Pair) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return pair.head(*(side.to(pair.z1_RBDC.dtype) for side in pair.shown))

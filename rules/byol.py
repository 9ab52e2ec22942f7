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
from rules.base.pair import LossHead, Pair
from rules.simsiam import SimSiam


class BYOL(SimSiam):
    """BYOL (Grill et al. 2020, eq. 2) at every layer: SimSiam whose targets come from a slow copy of the layer.

    The loss is SimSiam's, ``-(cos + cos') / 2``: a quarter of the paper's symmetric ``4 - 2 (cos + cos')``, up to a constant.

    The weights of the copy and of its heads follow the layer's, ``target += (1 - momentum) (W - target)``, with ``W`` as it
    was in the step (the paper: after it), and see the same input, from the layers below as they are; end to end all layers
    are copies, as in the paper. Batch norm is SimSiam's; the paper has it in the hidden layers of projector and predictor
    (app. C).

    Tried at 1,408 and 5,632 strings, L = 3 (docs/rules-at-their-best.md): 32 hidden units (.70 and .92) and 64 (.46 and .76),
    AdamW with rate 1e-2, which falls, and weight decay .1.

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
            self.register_buffer(target(k, name), parameter.detach().clone())

    def _own(self) -> list[tuple[int, str, Tensor]]:
        """What has a slow copy: layer, name and value."""
        layers, copied = self.network.layers[: self.trained_layers], (*Layer.OWN, *HEADS)
        return [(k, name, p) for k, layer in enumerate(layers, 1) for name, p in layer.named_parameters() if name in copied]

    def layer_updates(self, step: Step) -> Updates:
        here = {target(k, name): parameter.detach().clone() for k, name, parameter in self._own()}
        return replace(super().layer_updates(step), estimates=here)

    def shown(self, step: Step, k: int, activity: Activity) -> tuple[Tensor, ...]:
        """The sides of the slow copy's pairs, before the head."""
        layers, first, outs = self.network.layers, 1 if self.block.end_to_end else k, []
        with torch.no_grad():
            for state in self.states(step, first):
                h_RBDC = layers[first - 1].unfold(state.input_RGMF, state.out_RBDC.shape[1])
                for j in range(first, k + 1):
                    h_RBDC = functional_call(layers[j - 1], self.slow(j, Layer.OWN), (h_RBDC,)).out_RBDC
                outs.append(h_RBDC)
            if step.batch.x_RBD.shape[1] > outs[0].shape[1]:  # of this rank, where those of all are compared
                outs = self.strings_of_all_ranks(outs)
            return self.positives(step, outs, k)

    def slow(self, k: int, names: tuple[str, ...]) -> dict[str, Tensor]:
        """The slow copies of some parameters of layer ``k``, by their names in the layer."""
        return {name: self.get_buffer(target(k, name)) for own, name, _ in self._own() if own == k and name in names}

    def targets(self, pair: Pair) -> tuple[Tensor, Tensor]:
        heads = {name.removeprefix("head."): slow for name, slow in self.slow(pair.k, HEADS).items()}
        with torch.no_grad():
            return functional_call(pair.head, heads, tuple(side.to(pair.z1_RBDC.dtype) for side in pair.shown))


HEADS = tuple(f"head.{name}" for name in LossHead.HEADS)


def target(k: int, name: str) -> str:
    """Name of the buffer with the slow copy of a layer's parameter."""
    return f"target_{k}_{name.replace('.', '_')}"

"""Backpropagation with a self-supervised loss at every layer beside the labels'."""

from __future__ import annotations

from dataclasses import replace

import torch

from rhm import InvalidInput
from rules.base.block import Block
from rules.base.contract import Step, Updates, add
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.contrastive import LayerwiseContrastive


class BackpropContrastive(LayerwiseContrastive):
    """The readout's loss plus ``weight`` times the InfoNCE of every layer that has pairs, all through all layers below.

    A reference and no local rule: what can be reached from labels and pairs together, as auxiliary losses at hidden layers do
    (deeply supervised nets, Lee et al. 2015, with InfoNCE in the place of their classifiers).

    Args:
        network, optimizer, clip, block, score, temperature: see :class:`rules.contrastive.LayerwiseContrastive`; the block is
            end to end with all losses.
        weight: of the layers' losses.

    Raises:
        InvalidInput: another block; ``weight`` not above 0; what :class:`rules.contrastive.LayerwiseContrastive` refuses.
    """

    family = "reference"
    source = "Lee et al. 2015, arXiv 1409.5185, with the loss of Oord et al. 2018, arXiv 1807.03748"
    end_to_end_needs_labels = True

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(end_to_end=True, all_losses=True),
        score: str = "bilinear",
        temperature: float = 1.0,
        weight: float = 1.0,
    ):
        super().__init__(network, optimizer, clip, block, score, temperature)
        if not block.all_losses:
            raise InvalidInput("model.block.all_losses", False, "true, with end_to_end, for BackpropContrastive")
        if weight <= 0:
            raise InvalidInput("model.weight", weight, "a number above 0")
        self.weight, self.knowledge = weight, "labels"
        self.locality = replace(self.locality, error=True)

    def layer_updates(self, step: Step) -> Updates:
        return self.end_to_end(step)

    def end_to_end(self, step: Step) -> Updates:
        said = super().end_to_end(step)
        layers = [{name: self.weight * gradient for name, gradient in update.items()} for update in said.layers]
        for update, supervised in zip(layers, self.backpropagate(step, down_to=0), strict=False):
            add(update, supervised)
        return Updates(layers, losses=said.losses)

"""Random features: the floor that every rule that claims to learn must pass."""

from __future__ import annotations

import torch

from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network


class FrozenFeatures(LocalRule):
    """Hidden layers stay as they were drawn; only the readout learns, from labels.

    ``dW_l = 0``. A rule that claims to learn must do better than this. Rules on sibling pairs leave the top layer to the
    labels, as the readout's hidden layer: their floor is ``top_learns``, random layers with a top layer that learns as theirs
    does.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        top_learns: whether the top layer learns with the readout, by backpropagation from labels that stops there.
    """

    family = "reference"
    source = "random features: Rahimi, Recht 2007"
    knowledge = "none"
    locality = Locality()
    takes_codes = True

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        top_learns: bool = False,
    ):
        super().__init__(network, optimizer, clip)
        self.upper_layers_learn = top_learns

    @property
    def trained_layers(self) -> int:
        """How many layers, from the first, stay as they are where the top one learns."""
        return len(self.patches) - 1 if self.upper_layers_learn else 0

    @property
    def trained_by(self) -> list[str]:
        return [by.replace("rule", "nothing") for by in super().trained_by]

    def layer_updates(self, step: Step) -> Updates:
        return Updates([{} for _ in range(self.trained_layers)])

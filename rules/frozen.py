"""Random features: the floor that every rule that claims to learn must pass."""

from __future__ import annotations

from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule


class FrozenFeatures(LocalRule):
    """Hidden layers stay as they were drawn; only the readout learns, from labels.

    ``dW_l = 0``. A rule that claims to learn must do better than this.
    """

    family = "reference"
    source = "random features: Rahimi, Recht 2007"
    knowledge = "none"
    locality = Locality()
    takes_codes = True
    upper_layers_learn = False

    @property
    def trained_layers(self) -> int:
        return 0

    def layer_updates(self, step: Step) -> Updates:
        return Updates([])

"""What a rule is shown in a step.

Shape suffixes: R replica, B batch, D position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from rhm import Derivation


class Batch(NamedTuple):
    """Strings of all replicas.

    Attributes:
        x_RBD: tokens, with noise where the data have some.
        y_RB: classes. A rule looks at them only if its locality says so; the readout always may.
        view_RBD: tokens of the positive partner of each string, or None where pairs are made within one string.
        key_RB: random bits, a key for all noise that a rule draws for a string; None in validation.
        derivation: all levels of the strings, the tokens without noise, for probes and statistics; no rule looks at it.
        weight_RB: what each string counts in losses on labels, 0 for strings without a label, so that a mean over the batch is
            one over the labelled strings of the step, on all ranks; None where all have labels.
        half_RBD: where pairs are two copies of each string: which positions the first shows and the second hides; else None.
    """

    x_RBD: Tensor
    y_RB: Tensor
    view_RBD: Tensor | None
    key_RB: Tensor | None
    derivation: Derivation
    weight_RB: Tensor | None = None
    half_RBD: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with a function applied to every tensor, for example to select strings."""
        tensors = {name: function(value) for name, value in self._asdict().items() if isinstance(value, Tensor)}
        return self._replace(**tensors, derivation=self.derivation.map(function))

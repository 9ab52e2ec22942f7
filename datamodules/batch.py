"""What a rule is shown in a step.

Shape suffixes: R replica, B batch, D position.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rhm import Derivation


class Batch(NamedTuple):
    """Strings of all replicas.

    Attributes:
        x_RBD: tokens.
        y_RB: classes. A rule looks at them only if its locality says so; the readout always may.
        view_RBD: tokens of the positive partner of each string, or None where pairs are made within one string.
        key_RB: random bits, a key for all noise that a rule draws for a string; None in validation.
        derivation: all levels of ``x_RBD``, for probes and statistics; no rule looks at it.
    """

    x_RBD: Tensor
    y_RB: Tensor
    view_RBD: Tensor | None
    key_RB: Tensor | None
    derivation: Derivation

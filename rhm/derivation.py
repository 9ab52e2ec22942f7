"""A batch of strings with all their hidden symbols.

Shape suffixes: R replica, B batch, D position (level l has ``s**(L-l)``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Derivation:
    """Strings from the leaves to the class.

    Attributes:
        symbols: ``L + 1`` tensors; ``symbols[l]`` are the symbols of level ``l``, ``[R, B, s**(L-l)]``. Where no grammar has
            made the strings there are two, tokens and classes: those of :attr:`rhm.TaskSizes.levels`.
    """

    symbols: tuple[Tensor, ...]

    @property
    def depth(self) -> int:
        """The level of the class, L."""
        return len(self.symbols) - 1

    @property
    def x_RBD(self) -> Tensor:
        """The visible tokens."""
        return self.symbols[0]

    @property
    def y_RB(self) -> Tensor:
        """The class."""
        return self.symbols[-1][..., 0]

    def map(self, function: Callable[[Tensor], Tensor]) -> Derivation:
        """The derivation with a function applied to every tensor, for example to select strings or to move it."""
        return Derivation(tuple(map(function, self.symbols)))

    def equals(self, other: Derivation) -> bool:
        """Whether all symbols are the same."""
        pairs = zip(self.symbols, other.symbols, strict=True)
        return self.depth == other.depth and all(torch.equal(ours, theirs) for ours, theirs in pairs)

"""What a rule draws at random, by the keys that its documentation names: inputs of an equation.

Shape suffixes: B batch (string).
"""

from __future__ import annotations

import numpy as np
import torch

from equations.network import Array
from rhm.hashing import below, fold, uniform


def draw(key_B: Array, size: int, *names: str | int) -> Array:
    """An integer in ``[0, size)`` for each key, drawn for a purpose."""
    return below(fold(torch.as_tensor(key_B), *names), size).numpy()


def shift(key_B: Array, name: str, k: int) -> int:
    """How many places further in the batch the negatives of layer ``k`` stand, ``[1, B)``: string ``b`` has ``(b + shift) % B``.

    One draw for all strings, by the key of the first: so no string is its own negative.
    """
    return 1 + int(draw(key_B[:1], len(key_B) - 1, name, k)[0])


def coins(key_B: Array, k: int) -> Array:
    """A fair coin for each string and layer: 1 for CLAPP's positive term, 0 for the negative one."""
    return draw(key_B, 2, "coin", k)


def half(key_B: Array, k: int, channels: int) -> Array:
    """Which channels of layer ``k`` a random half of them has: those with the smallest of as many uniform numbers.

    One draw for all strings, by the key of the first.
    """
    drawn = uniform(fold(torch.as_tensor(key_B[:1]), "half", k), (channels,))[0].numpy()
    return np.isin(np.arange(channels), np.argsort(drawn)[: channels // 2])


def wrong_class(key_B: Array, y_B: Array, n: int) -> Array:
    """A class for each string, uniform over all but its own."""
    return np.array((y_B + 1 + draw(key_B, n - 1, "wrong class")) % n)

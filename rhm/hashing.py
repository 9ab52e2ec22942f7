"""Counter-based random numbers: pure functions of a key and a counter, the same on every device and version.

All randomness of the suite comes from here, so that nothing depends on the order of calls, on the number of replicas
that share a run, or on a generator's state that a resumed run would have to restore.

Shape suffixes: R replica.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Callable
from functools import cache
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from rhm.errors import InvalidInput


def signed(x: int) -> int:
    """The int64 with the same 64 bits as ``x``."""
    x &= 2**64 - 1
    return x - 2**64 if x >= 2**63 else x


def _signed32(x: int) -> int:
    """The int32 with the same 32 bits as ``x``."""
    return x - 2**32 if x >= 2**31 else x


GOLDEN = signed(0x9E3779B97F4A7C15)
MULTIPLIER_1 = signed(0xBF58476D1CE4E5B9)
MULTIPLIER_2 = signed(0x94D049BB133111EB)
BLOCK = 2**15  # numbers that are drawn at once on a CPU


@cache
def _digest(item: int | str) -> int:
    """64 bits that stand for a name or an integer."""
    return signed(int.from_bytes(hashlib.blake2b(repr(item).encode(), digest_size=8).digest(), "little"))


def scramble(x: Tensor) -> Tensor:
    """Finaliser of splitmix64 (Steele et al. 2014), a bijection of the int64 numbers, elementwise."""
    x = x + GOLDEN
    x = x.bitwise_xor_((x >> 30).bitwise_and_(2**34 - 1)).mul_(MULTIPLIER_1)
    x = x.bitwise_xor_((x >> 27).bitwise_and_(2**37 - 1)).mul_(MULTIPLIER_2)
    return x.bitwise_xor_((x >> 31).bitwise_and_(2**33 - 1))


def fold(key: Tensor, *data: SupportsIndex | str | Tensor) -> Tensor:
    """A new key from a key and what it is for.

    Args:
        key: int64 of any shape.
        data: names, integers of Python or numpy, or tensors of integers (broadcast against the key), folded in one after
            another. A number in a tensor, also in one without axes, is another key than the number by itself.

    Raises:
        InvalidInput: a number that is no integer.
    """
    for item in data:
        if isinstance(item, Tensor):
            if item.is_floating_point() or item.is_complex():
                raise InvalidInput("key", f"a tensor of {item.dtype}", "integers")
            key = scramble(key * MULTIPLIER_2 + scramble(item.to(torch.int64)))
        else:  # hashed in Python: a tensor of one number would cost a copy to the device
            key = scramble(key * MULTIPLIER_2 + _word(item))
    return key


def _word(item: SupportsIndex | str) -> int:
    return _digest(item if isinstance(item, str) else integer(item))


torch.compiler.assume_constant_result(_word)  # a compiled step need not look into hashlib


def integer(item: SupportsIndex | Tensor) -> int:
    """An integer of Python, numpy or a tensor of one number as one of Python; true is 1.

    Raises:
        InvalidInput: it is none.
    """
    try:
        number: Any = item.item() if isinstance(item, np.generic | np.ndarray | Tensor) else item
        return operator.index(number)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInput("key", item, "an integer, a name or a tensor of integers") from error


def seed_keys(seeds: Tensor, *names: int | str) -> Tensor:
    """One key a seed: ``R`` integers of 63 bits and a name give ``R`` int64 keys."""
    return fold(scramble(seeds.to(torch.int64)), *names)


def below(bits: Tensor, size: int | Tensor) -> Tensor:
    """Map random int64 bits to ``[0, size)``, uniform to within ``size / 2**31``. ``size`` is at most ``2**32``."""
    return (((bits >> 32) & (2**31 - 1)) * size) >> 31


def uniform(key_R: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in ``(0, 1)``, float64 of shape ``[R, *shape]``, one stream for each key."""
    return _in_blocks(_uniform, (key_R,), shape)


def normal(key_R: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Standard normal numbers (Box and Muller 1958), float64 of shape ``[R, *shape]``, one stream for each key."""
    return _in_blocks(_normal, (fold(key_R, "radius"), fold(key_R, "angle")), shape)


def _uniform(key_R: Tensor, counter: Tensor) -> Tensor:
    bits = scramble(key_R[:, None] + scramble(counter))
    return (bits >> 12).bitwise_and_(2**52 - 1).to(torch.float64).add_(0.5).mul_(2.0**-52)


def _normal(radius_key_R: Tensor, angle_key_R: Tensor, counter: Tensor) -> Tensor:
    radius = _uniform(radius_key_R, counter).log_().mul_(-2).sqrt_()
    return _uniform(angle_key_R, counter).mul_(2 * math.pi).cos_().mul_(radius)


def _in_blocks(draw: Callable[..., Tensor], keys: tuple[Tensor, ...], shape: tuple[int, ...]) -> Tensor:
    """Numbers of shape ``[R, *shape]``, a function of keys ``[R]`` and counters: on a CPU in blocks that stay in its cache."""
    R, numbers, device = len(keys[0]), math.prod(shape), keys[0].device
    if device.type == "meta":
        return torch.empty(R, *shape, dtype=torch.float64, device=device)
    if device.type != "cpu" or R * numbers <= BLOCK:
        return draw(*keys, torch.arange(numbers, device=device)).view(R, *shape)
    drawn = torch.empty(R, numbers, dtype=torch.float64)
    rows = max(1, BLOCK // numbers)
    for first in range(0, R, rows):
        some = [key[first : first + rows] for key in keys]
        for start in range(0, numbers, BLOCK):
            end = min(start + BLOCK, numbers)
            drawn[first : first + rows, start:end] = draw(*some, torch.arange(start, end))
    return drawn.view(R, *shape)


def _round_bits(x: Tensor, key: Tensor, turn: int) -> Tensor:
    """Random bits from a half of a number and a round's key; 32-bit halves use murmur3's multipliers."""
    if x.dtype == torch.int64:
        bits = (x + (key + _digest(turn))).mul_(MULTIPLIER_1)
        bits = bits.bitwise_xor_(bits >> 29).mul_(MULTIPLIER_2)
        return bits.bitwise_xor_(bits >> 32)
    bits = (x + (key + (_digest(turn) >> 33))).mul_(_signed32(0x85EBCA6B))
    bits = bits.bitwise_xor_(bits >> 13).mul_(_signed32(0xC2B2AE35))
    return bits.bitwise_xor_(bits >> 16)


def permutation(i: Tensor, size: int | Tensor, key: Tensor, rounds: int = 6, inverse: bool = False) -> Tensor:
    """A keyed bijection of ``[0, size)``, without tables, for any size up to ``2**63 - 1``.

    The numbers are laid in a grid whose rows have a power of two of columns and whose last row may be shorter. A round
    rotates every row by a random amount, the next one every column: each is a bijection also of the ragged grid, so that
    no number ever leaves it (a Feistel network, Luby and Rackoff 1988, on unequal halves).

    Args:
        i: int64 numbers in ``[0, size)``.
        size: one integer, or an int64 tensor, below ``2**52``, that broadcasts against ``i``.
        key: int64, broadcasts against ``i``.
        rounds: number of rotations.
        inverse: undo the permutation instead.

    Returns:
        int64 numbers in ``[0, size)``, of the broadcast shape.
    """
    if isinstance(size, int):
        shift: int | Tensor = (size - 1).bit_length() // 2
        even = size & (size - 1) == 0
        half = torch.int32 if size <= 2**60 else torch.int64  # 32-bit arithmetic is three times faster
    else:
        shift = (torch.log2(size.double()).ceil() / 2).long()
        even, half = False, torch.int32
    columns: int | Tensor = 1 << shift if isinstance(shift, int) else torch.ones_like(shift) << shift
    full_rows, short_row = size >> shift, size & (columns - 1)
    row, column = (i >> shift).to(half), (i & (columns - 1)).to(half)
    if isinstance(columns, Tensor) and isinstance(full_rows, Tensor) and isinstance(short_row, Tensor):
        columns, full_rows, short_row = columns.to(half), full_rows.to(half), short_row.to(half)
    key = key.to(half)
    for turn in reversed(range(rounds)) if inverse else range(rounds):
        along_row = turn % 2 == 0
        fixed, moved = (row, column) if along_row else (column, row)
        bits = _round_bits(fixed, key, turn)
        if even:  # all rows are alike, and so are the columns: a mask will do
            length = columns if along_row else full_rows
            moved = (moved - bits if inverse else bits.add_(moved)).bitwise_and_(length - 1)
        else:
            if along_row:
                length = torch.where(fixed < full_rows, columns, short_row).to(half)
            else:
                length = (fixed < short_row).to(half).add_(full_rows)
            turned = (((bits.long() & (2**31 - 1)) * length) >> 31).to(half)
            if isinstance(size, Tensor):  # the same permutation as for this size as an integer
                turned = torch.where(size & (size - 1) == 0, bits & (length - 1), turned)
            if inverse:
                moved = moved - turned
                moved = torch.where(moved < 0, moved + length, moved)
            else:
                moved = turned.add_(moved)
                moved = torch.where(moved >= length, moved - length, moved)
        row, column = (fixed, moved) if along_row else (moved, fixed)
    return (row.long() << shift) + column

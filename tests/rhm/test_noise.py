"""Tokens that are replaced: how many, by what, and that a string's noise is its own."""

from __future__ import annotations

import pytest
import torch
from oracles import assert_uniform

from rhm.hashing import fold
from rhm.noise import replaced

V, STRINGS, LENGTH = 5, 4000, 6


def keys(strings: int = STRINGS) -> torch.Tensor:
    return fold(torch.tensor([[3], [4]]), torch.arange(strings))


def tokens(value: int, strings: int = STRINGS) -> torch.Tensor:
    return torch.full((2, strings, LENGTH), value, dtype=torch.uint8)


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_a_token_is_replaced_with_its_probability_by_any_of_all(rate):
    """Whether it is, and by what, is the same for every token that stands there: what it is does not matter."""
    x_RBD = replaced(tokens(2), V, rate, keys())
    other, drawn = replaced(tokens(0), V, rate, keys()), replaced(tokens(2), V, 1.0, keys())
    assert x_RBD.dtype == torch.uint8 and x_RBD.shape == (2, STRINGS, LENGTH)
    kept = (x_RBD == 2) & (other == 0)  # not replaced: neither by 2 nor by 0, as both would be
    count, mean = int((~kept).sum()), rate * kept.numel()
    assert abs(count - mean) <= 5 * (mean * (1 - rate)) ** 0.5
    assert torch.equal(x_RBD[~kept], drawn[~kept]) and torch.equal(other[~kept], drawn[~kept])
    assert_uniform(x_RBD[~kept], V)
    for r in range(2):
        for d in range(LENGTH):
            assert_uniform(drawn[r, :, d], V)
            at, before = (int((~kept)[r, :, place].sum()) for place in (d, d - 1))
            both = int(((~kept)[r, :, d] & (~kept)[r, :, d - 1]).sum())
            assert abs(at - rate * STRINGS) <= 5 * (STRINGS * rate * (1 - rate)) ** 0.5 and before > 0
            assert abs(both - rate**2 * STRINGS) <= 5 * (STRINGS * rate**2 * (1 - rate**2)) ** 0.5
        assert_uniform(drawn[r, :, 0].long() * V + drawn[r, :, 1], V * V)
    assert_uniform(drawn[0, :, 0].long() * V + drawn[1, :, 0], V * V)


def test_without_noise_nothing_is_replaced():
    assert torch.equal(replaced(tokens(1), V, 0.0, keys()), tokens(1))


def test_a_strings_noise_does_not_depend_on_the_others():
    x_RBD = torch.arange(2 * 9 * LENGTH).view(2, 9, LENGTH) % V
    whole = replaced(x_RBD, V, 0.5, keys(9))
    for b in range(9):
        assert torch.equal(replaced(x_RBD[:, [b]], V, 0.5, keys(9)[:, [b]]), whole[:, [b]])
    assert not torch.equal(replaced(x_RBD, V, 0.5, keys(9).flip(1)), whole)

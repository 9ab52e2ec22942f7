"""Barlow Twins: what it refuses."""

from __future__ import annotations

import pytest

from rhm import InvalidInput
from rules.barlow_twins import BarlowTwins


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"redundancy": -1.0}, "model.redundancy"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        BarlowTwins(**arguments)
    assert error.value.key == key

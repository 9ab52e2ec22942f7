"""SimSiam: what it refuses."""

from __future__ import annotations

import pytest

from rhm import InvalidInput
from rules.simsiam import SimSiam


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"hidden": 0}, "model.hidden"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        SimSiam(**arguments)
    assert error.value.key == key

"""VICReg: what it refuses."""

from __future__ import annotations

import pytest

from rhm import InvalidInput
from rules.vicreg import VICReg


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"similarity": -1.0}, "model.similarity"),
        ({"variance": -1.0}, "model.variance"),
        ({"covariance": -1.0}, "model.covariance"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        VICReg(**arguments)
    assert error.value.key == key

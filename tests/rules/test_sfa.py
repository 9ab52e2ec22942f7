"""Slow feature analysis: what it refuses."""

from __future__ import annotations

import pytest

from rhm import InvalidInput
from rules.sfa import SlowFeatureAnalysis


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"ridge": 0.0}, "model.ridge"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        SlowFeatureAnalysis(**arguments)
    assert error.value.key == key

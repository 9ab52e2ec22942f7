"""Latent predictive learning: what it refuses."""

from __future__ import annotations

import pytest

from rhm import InvalidInput
from rules.lpl import LatentPredictiveLearning


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"decorrelation": -1.0}, "model.decorrelation"),
        ({"hebbian": -1.0}, "model.hebbian"),
        ({"form": "loops"}, "model.form"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        LatentPredictiveLearning(**arguments)
    assert error.value.key == key

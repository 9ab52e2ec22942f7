"""PEPITA: the scale of its input feedback.

Shape suffixes: R replica, N classes, F inputs.
"""

from __future__ import annotations

import math

import pytest
import torch
from feedback_helpers import make

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.pepita import Pepita


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_the_input_feedback_is_drawn_at_its_scale():
    rule = make(Pepita, feedback_scale=2.0)
    assert 0.8 < float(rule.feedback_RNF.std()) / (2 * math.sqrt(2 / 32)) < 1.2


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"feedback_scale": 0.0}, "model.feedback_scale"),
        ({"form": "other"}, "model.form"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(Pepita, **{"network": HierarchicalNetwork(12), **arguments})
    assert error.value.key == key

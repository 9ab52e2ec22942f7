"""Error broadcast and decorrelation.

Shape suffixes: none of its own.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import make

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.ebd import ErrorBroadcastDecorrelation


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"rate": 2.0}, "model.rate"),
        ({"power": -1.0}, "model.power"),
        ({"entropy": -1.0}, "model.entropy"),
        ({"target_power": 0.0}, "model.target_power"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(ErrorBroadcastDecorrelation, **{"network": HierarchicalNetwork(12), **arguments})
    assert error.value.key == key

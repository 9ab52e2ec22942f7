"""Direct Kolen-Pollack: below the readout the feedback comes to the weights.

Shape suffixes: R replica, F features, N classes.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import make, train

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.dkp import DirectKolenPollack


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_dkp_below_the_readout_learns_what_the_readout_learns():
    rule = make(DirectKolenPollack, decay=0.03, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))

    def gap():
        return rule.network.layers[-1].get_parameter("feedback_RNF").detach().mT - rule.readout.weight_RFN.detach()

    start = gap()
    train(rule, 10)
    torch.testing.assert_close(gap(), start * 0.97**10, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"decay": 1.0}, "model.decay"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(DirectKolenPollack, **{"network": HierarchicalNetwork(12), **arguments})
    assert error.value.key == key

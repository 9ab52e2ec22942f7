"""CLAPP: its coins.

Shape suffixes: R replica, B batch, D pair of a string.
"""

from __future__ import annotations

import pytest
import torch
from rule_helpers import compute, from_settings

from rhm import InvalidInput
from rules.clapp import CLAPP


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_one_coin_a_string_has_the_mean_of_both_terms():
    both, coin = (from_settings("clapp_local", f"--model.both_terms={said}") for said in ("true", "false"))
    weights = [coin.weights(coin.pair(compute(coin, i), 1)) for i in range(300)]
    for k, certain in enumerate(both.weights(both.pair(compute(both), 1))):
        drawn = torch.stack([w[k] for w in weights])
        assert set(drawn.unique().tolist()) == {0.0, 2 * float(certain.flatten()[0])}
        torch.testing.assert_close(drawn.mean(), certain.mean(), rtol=0.05, atol=0)  # 14,400 fair coins: .8 %
    assert all(((w[0] == 0) != (w[1] == 0)).all() for w in weights)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"form": "loops"}, "model.form"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        CLAPP(**arguments)
    assert error.value.key == key

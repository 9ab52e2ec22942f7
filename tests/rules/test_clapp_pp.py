"""CLAPP++: where its context comes from.

Shape suffixes: R replica, B batch, D position, C channel.
"""

from __future__ import annotations

import pytest
import torch
from rule_helpers import compute, from_settings, updates

from rhm import InvalidInput
from rules.clapp_pp import CLAPPPlusPlus


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("context", ["own", "top", "both"])
def test_a_layer_looks_where_its_context_says(context):
    rule = from_settings("clapp_pp", f"--model.context={context}")
    assert rule.locality.other_layers == (context != "own")
    step = compute(rule)
    before = updates(rule, step)
    changed = list(step.states)
    changed[1] = changed[1]._replace(out_RBDC=changed[1].out_RBDC.flip(1))
    after = updates(rule, step._replace(states=changed))
    assert torch.equal(before[0]["weight_RGFE"], after[0]["weight_RGFE"]) == (context == "own")


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"context": "below"}, "model.context"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        CLAPPPlusPlus(**arguments)
    assert error.value.key == key

"""What every rule makes of a network that is not the usual one: vector units, a slot for a class."""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import all_updates
from rule_helpers import RULES, compute, from_settings

from rhm import InvalidInput


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_runs_on_vector_units_or_says_why_not(name):
    try:
        rule = from_settings(name, "--model.network=VectorNetwork", "--model.network.width=6")
    except (InvalidInput, ValueError) as error:  # the settings' parser wraps what a constructor refuses
        assert "model.network" in str(error) and "allowed: " in str(error)
        assert name not in ("backprop", "dfa", "feedback_alignment", "frozen", "local_cross_entropy", "gevb")
        return
    ours = all_updates(rule, compute(rule))
    for part, update in zip(rule.parts, ours, strict=True):
        for key, grad in update.items():
            assert grad.shape == part.get_parameter(key).shape and torch.isfinite(grad).all()


@pytest.mark.parametrize("name", [name for name in RULES if name not in ("forward_forward", "gevb")])
def test_only_forward_forward_takes_a_network_with_a_label_slot(name):
    with pytest.raises(InvalidInput) as error:
        from_settings(name, "--model.network.label_slot=true")
    assert error.value.key == "model.network.label_slot"

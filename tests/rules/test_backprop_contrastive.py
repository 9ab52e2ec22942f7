"""Backpropagation with InfoNCE beside it: what it refuses."""

from __future__ import annotations

import pytest
from rule_helpers import from_settings


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("--model.weight=0", "model.weight"),
        ("--model.block.all_losses=false", "model.block.all_losses"),
        ("--data.labels=false", "data.labels"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(argument, key):
    with pytest.raises(ValueError, match=f"{key}: got "):
        from_settings("backprop_contrastive", argument)

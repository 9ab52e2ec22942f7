"""Supervised contrastive learning: what it refuses."""

from __future__ import annotations

import pytest
from rule_helpers import from_settings


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("--model.head=0", "model.head"),
        ("--model.temperature=-1", "model.temperature"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(argument, key):
    with pytest.raises(ValueError, match=f"{key}: got "):
        from_settings("supervised_contrastive", argument)

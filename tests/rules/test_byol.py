"""BYOL: what it refuses."""

from __future__ import annotations

import pytest
from rule_helpers import from_settings


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("--model.momentum=1", "model.momentum"),
        ("--model.hidden=0", "model.hidden"),
        ("--model.block.expansion=local", "model.block.expansion"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(argument, key):
    with pytest.raises(ValueError, match=f"{key}: got "):
        from_settings("byol", argument)

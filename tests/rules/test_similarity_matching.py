"""Similarity matching: what it refuses."""

from __future__ import annotations

import pytest
from rule_helpers import from_settings


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("--model.similarity=1.5", "model.similarity"),
        ("--model.similarity=0", "model.similarity"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(argument, key):
    with pytest.raises(ValueError, match=f"{key}: got "):
        from_settings("similarity_matching", argument)

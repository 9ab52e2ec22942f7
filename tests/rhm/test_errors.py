"""What is raised when something cannot be."""

from __future__ import annotations

from rhm.errors import closest, nearest


def test_a_name_is_never_suggested_for_itself():
    assert nearest("activation", ["activation"]) == "" and closest("lr", ["lr", "LR"]) == "LR"

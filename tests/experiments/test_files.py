"""Files with settings, and settings that are compared."""

from __future__ import annotations

import pytest

from experiments.files import alike


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (1, 1.0),
        (0.001, "1e-3"),
        (2**62 + 1, str(2**62 + 1)),
        (True, "true"),
        (None, "null"),
        ([0.9, 0.999], (0.9, "0.999")),
        ({"lr": 1, "betas": (1, 2)}, {"lr": "1.0", "betas": [1.0, 2]}),
        ({1: [None]}, {"1": ["None"]}),
    ],
)
def test_settings_that_say_the_same_are_alike_in_whatever_form(one, other):
    assert alike(one, other) and alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 2), (1, True), (0, False), (0, None), (2**62, 2**62 + 1), (1, [1]), ([1, 2], [2, 1]), ("cpu", "auto"), ({"a": 1}, {})],
)
def test_settings_that_say_something_else_are_not_alike(one, other):
    assert not alike(one, other) and not alike(other, one)

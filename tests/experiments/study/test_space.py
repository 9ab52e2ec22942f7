"""Spaces of settings."""

from __future__ import annotations

import math

import pytest

from experiments.study.space import Range, Space, switched_on
from rhm import InvalidInput

GIVEN = {
    "lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "decay": [0, 0.1, 1],
    "share": {"low": -1, "high": 1},
    "bottleneck": [None, 8, 16],
    "normalise": [False, True],
}


def test_a_space_has_as_many_combinations_as_its_lists_or_more_than_can_be_counted():
    assert Space("a", {"b": [1, 2, 2], "c": [None, "v", 0]}).size == 6 and Space("a", {"b": [1, True, 1.0]}).size == 3
    assert Space("a", GIVEN).size == math.inf


def test_examples_show_each_value_of_each_list():
    shown = list(Space("a", GIVEN).examples())
    assert [list(example) for example in shown] == [list(GIVEN)] * 3
    assert {(e["decay"], e["bottleneck"]) for e in shown} == {(0, None), (0.1, 8), (1, 16)}
    assert {e["normalise"] for e in shown} == {False, True} and {e["lr"] for e in shown} == {1e-4}
    for place, ends in ("middle", (0.00316, 0.0)), ("high", (0.1, 1)):
        others = list(Space("a", GIVEN).examples(place))
        assert [e | {"lr": 1e-4, "share": -1} for e in others] == shown and {(e["lr"], e["share"]) for e in others} == {ends}


def test_what_was_drawn_is_read_as_values_and_numbers_of_three_digits():
    drawn = {"lr": 0.00123456, "decay": "0.1", "share": -0.98765, "bottleneck": "null", "normalise": "true"}
    read = Space("a", GIVEN).read(drawn)
    assert read == {"lr": 0.00123, "decay": 0.1, "share": -0.988, "bottleneck": None, "normalise": True}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, []),
        ({"lr": 1.4e-4}, ["lr"]),  # a twentieth of three decades is a factor of 1.41
        ({"lr": 1.5e-4}, []),
        ({"lr": 0.08}, ["lr"]),
        ({"lr": 0.07}, []),
        ({"share": -0.91}, ["share"]),
        ({"share": 0.89}, []),
        ({"decay": 0}, []),
        ({"decay": 1, "share": 1.0, "lr": 0.1}, ["lr", "decay", "share"]),
        ({"bottleneck": 16, "normalise": True}, []),
    ],
)
def test_a_value_at_an_end_of_its_range_is_found(settings, found):
    middle = {"lr": 1e-2, "decay": 0.1, "share": 0.0, "bottleneck": None, "normalise": False}
    assert Space("a", GIVEN).at_edge({**middle, **settings}) == found


def test_the_first_of_a_list_of_numbers_is_an_end_unless_it_is_zero_and_two_numbers_have_none():
    assert Space("a", {"b": [1, 2, 3]}).at_edge({"b": 1}) == ["b"] == Space("a", {"b": [1, 2, 3]}).at_edge({"b": 3})
    assert Space("a", {"b": [1, 2, 3]}).at_edge({"b": 2}) == [] == Space("a", {"b": [1, 3]}).at_edge({"b": 3})


def test_nothing_is_simpler_than_something():
    assert switched_on({"a": None, "b": False, "c": 0.0, "d": [], "e": ""}) == 0
    assert switched_on({"a": "v", "b": True, "c": 0.1, "d": ["CosineDecay"], "e": None}) == 4


@pytest.mark.parametrize(
    "given", [{}, {"a": []}, {"a": {}}, {"a": 3}, {"a": {"low": 1}}, {"a": {"low": 1, "high": 2, "step": 3}}]
)
def test_what_is_no_space_is_refused(given):
    with pytest.raises(InvalidInput, match=r"^key"):
        Space("key", given)


@pytest.mark.parametrize("ends", [(1, 1), (2, 1), ("1", 2), (True, 2), (0, math.inf), (math.nan, 1)])
def test_what_is_no_range_is_refused(ends):
    with pytest.raises(InvalidInput):
        Range(*ends)

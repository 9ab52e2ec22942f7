"""Combinations of values: all of them, or a number drawn from them, the same for everyone who asks."""

from __future__ import annotations

import itertools
import json
from typing import Any

import torch

from rhm import InvalidInput
from rhm.hashing import permutation, seed_keys


def crossed(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In each entry every list of values crossed with the others; entries one after another."""
    cells = []
    for entry in entries:
        values = [value if isinstance(value, list) else [value] for value in entry.values()]
        cells += [dict(zip(entry, chosen, strict=True)) for chosen in itertools.product(*values)]
    return cells


def draw(grid: dict[str, list[Any]], trials: int) -> list[dict[str, Any]]:
    """At most so many combinations of a grid's values, all different, in an order given by their number alone.

    Raises:
        InvalidInput: a grid that is not a dictionary of lists.
    """
    if not grid or not all(isinstance(values, list) and values for values in grid.values()):
        raise InvalidInput("grid", grid, "a list of values for each setting, one setting or more")
    combinations = list({json.dumps(c): c for c in itertools.product(*grid.values())}.values())
    size = len(combinations)
    order = permutation(torch.arange(size), size, seed_keys(torch.tensor([0]), "search")).tolist()
    return [dict(zip(grid, combinations[i], strict=True)) for i in order[:trials]]

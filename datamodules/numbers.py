"""Integers of the data, in whatever form they are given."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeAlias

import numpy as np
from jsonargparse.typing import register_type
from torch import Tensor

if TYPE_CHECKING:
    Sizes: TypeAlias = SupportsIndex | float | Iterable[SupportsIndex | float]
    Seeds: TypeAlias = Sizes
else:

    class Sizes(list):
        """Different integers, or one of them: ``64``, ``1e3``, ``[64, 1e3]``, ``range(64, 80)``. One is kept as a number."""

    class Seeds(list):
        """Different integers, or one of them, as :class:`Sizes`. One is kept as a list of one."""


ONE_SEED = [0]
"""Where no seed is said; a list, as YAML shows it, that nobody changes."""


def integer(value: Any) -> Any:
    """The integer that a value says, 1000 for ``1e3``, ``"1e3"`` or one of numpy; what says none, such as a flag, is itself."""
    try:
        number: Any = value.item() if isinstance(value, np.generic | Tensor) else value
        if isinstance(number, bool):
            return value
        if isinstance(number, str):
            number = int(number) if number.strip().lstrip("+-").isdecimal() else float(number)
        return int(number) if isinstance(number, float) and number.is_integer() else operator.index(number)
    except (TypeError, ValueError, RuntimeError):
        return value


def seeds(value: Any) -> Any:
    """A list of integers, from one or several; what is neither is itself."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | dict):
        return [integer(item) for item in value]
    number = integer(value)
    return [number] if isinstance(number, int) and not isinstance(number, bool) else value


def sizes(value: Any) -> Any:
    """The same, and one integer by itself."""
    listed = seeds(value)
    return listed[0] if isinstance(listed, list) and len(listed) == 1 and isinstance(listed[0], int) else listed


def said(data: Any) -> Any:
    """Arguments of a datamodule, or the settings that hold them, with integers, sizes and seeds in the form in which they are
    kept; what is no dictionary is itself."""
    forms = {"seeds": seeds, "train_size": sizes, "label_size": sizes, "init_args": said}
    return {key: forms.get(key, integer)(value) for key, value in data.items()} if isinstance(data, dict) else data


# What is no integer is passed on, for the datamodule to refuse it by its name; no value is taken in the form that it has.
for kind, form in (Sizes, sizes), (Seeds, seeds):
    register_type(kind, serializer=form, deserializer=form, type_check=lambda value, kind: False)

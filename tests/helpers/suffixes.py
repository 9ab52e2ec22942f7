"""Names that tell shapes: ``x_RBD`` has three axes, and whatever else has a ``B`` in that function is as long there.

The rules stand in ``docs/architecture.md`` (*Shapes*). :func:`legend_mistakes` reads a file, :func:`shape_mistakes` compares
names with values; ``shape_watch`` calls it whenever a function of ours ends.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor, nn

NAME = re.compile(r"_{0,2}[a-z][a-z0-9]*(?:_[a-z0-9]+)*_(?P<axes>[A-Z1]*[A-Z][A-Z1]*)")
"""A name with a suffix: small letters, then an underscore and a capital or a 1 for each axis; so a constant has none."""

LEGEND = re.compile(r"Shape suffixes:(?P<entries>.*?)(?:\n\n|\Z)", re.DOTALL)
ENTRY = re.compile(r"(?:^|[,;])\s+(?P<letter>[A-Z])\s")


@cache
def axes_of(name: str) -> str | None:
    """The axes that a name tells, such as ``RBD``, or None."""
    match = NAME.fullmatch(name)
    return match["axes"] if match else None


# -------------------------------------------------------------------- a file and its legend


def names_in(tree: ast.AST) -> Iterator[str]:
    """Every name in a file: variables, arguments, attributes, functions, and strings that are one (``register_buffer``)."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name) | ast.FunctionDef(name=name):
                yield name
            case ast.keyword(arg=str(name)) | ast.Constant(value=str(name)):
                yield name


def legend_mistakes(source: str) -> list[str]:
    """What is wrong with a file's legend: a letter that is missing, in no name, or there twice."""
    tree = ast.parse(source)
    users: dict[str, str] = {}
    for name in names_in(tree):
        for letter in (axes_of(name) or "").replace("1", ""):
            users.setdefault(letter, name)
    legend = LEGEND.search(ast.get_docstring(tree) or "")
    letters = ENTRY.findall(legend["entries"]) if legend else []
    mistakes = [f"{letter} of {users[letter]} is missing" for letter in sorted(users.keys() - letters)]
    mistakes += [f"{letter} is in no name" for letter in sorted(set(letters) - users.keys())]
    return mistakes + [f"{letter} stands twice" for letter in sorted(set(letters)) if letters.count(letter) > 1]


# -------------------------------------------------------------------- names and what they hold


def shape_mistakes(named: Mapping[str, Any]) -> list[str]:
    """What is wrong with the shapes of values that belong together, such as the locals of a function.

    A name with a suffix has that rank, and a letter one size in all of them, or 1 where it is broadcast. In a list, a tuple or
    a dictionary each tensor has the rank, its sizes are its own. A number whose name is a letter, such as ``R``, is that size.
    What is no tensor is not looked at.
    """
    mistakes: list[str] = []
    sizes: dict[str, tuple[int, str]] = {}
    for name, value in named.items():
        axes = axes_of(name)
        if axes is None:
            continue
        if isinstance(value, (list, tuple, dict)):
            each = value.values() if isinstance(value, dict) else value
            ranks = {len(item.shape) for item in each if isinstance(item, (Tensor, np.ndarray))}
            if ranks - {len(axes)}:
                mistakes.append(f"{name} holds tensors of {sorted(ranks)} axes")
        elif isinstance(value, (Tensor, np.ndarray)):
            shape = tuple(value.shape)
            if len(shape) != len(axes):
                mistakes.append(f"{name} is {list(shape)}")
                continue
            for letter, size in zip(axes, shape, strict=True):
                first, of = sizes.setdefault(letter, (1 if letter == "1" else size, name)) if size != 1 else (1, name)
                if first != size:
                    mistakes.append(f"{letter} is {first} in {of} and {size} in {name}")
    for letter, (size, of) in sizes.items():
        number = named.get(letter)
        if isinstance(number, int) and number != size:
            mistakes.append(f"{letter} is {number} and, in {of}, {size}")
    return mistakes


def held_by(value: Any) -> list[Mapping[str, Any]]:
    """What an object holds by name, as groups that belong together: the fields of a named tuple, and each parameter and buffer
    of a module by itself, as some modules hold matrices of several layers. Of those only what has another rank than its name."""
    if isinstance(value, nn.Module):
        tensors = [item for held in (value._parameters, value._buffers) for item in held.items()]
        return [{name: tensor} for name, tensor in tensors if tensor is not None and _is_other(name, tensor.shape)]
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return [dict(zip(value._fields, value, strict=True))]
    return []


def _is_other(name: str, shape: tuple[int, ...]) -> bool:
    axes = axes_of(name)
    return axes is not None and (len(axes) != len(shape) or len(set(axes)) < len(axes) or "1" in axes)

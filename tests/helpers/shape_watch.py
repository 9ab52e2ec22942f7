"""Looks at the names of every function of ours as it ends, in every test: do they hold the shapes that they tell?

Our packages are imported with one ``try ... finally`` around the body of each function whose names have suffixes, as pytest
imports tests with their assertions taken apart. Other code runs as it is: tracing (``sys.settrace``) makes all Python code
slower, and the tests took half as long again with it.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any

import torch
from suffixes import axes_of, held_by, names_in, shape_mistakes

PACKAGES = ("rhm", "networks", "datamodules", "rules", "callbacks", "experiments")
LOOK = "_look_at_shapes"

mistakes: dict[str, None] = {}
"""What was found since somebody last emptied it, each once."""
watched: set[str] = set()
"""Functions with suffixes in all modules that were imported."""
reached: set[str] = set()
"""Those of them that were called."""
looks: Counter[str] = Counter()
"""How often each was looked at since somebody last emptied it."""
LOOKS = 20
"""Calls of a function that are looked at: a test seldom has other shapes after those."""


def look(place: str, named: Mapping[str, Any]) -> None:
    """Compare a function's names with what they hold, and those of the named tuples and modules among its values.

    One that ends with an exception is not looked at: it may have refused a shape. Nor is a function that is traced, whose shapes are
    those of the same function run as it is.
    """
    if torch.compiler.is_compiling() or looks[place] >= LOOKS:
        return
    looks[place] += 1
    reached.add(place)
    error = sys.exc_info()[1]
    if error is not None and error.__traceback__ is not None and error.__traceback__.tb_frame is sys._getframe(1):
        return
    found = shape_mistakes(named)
    for name, value in named.items():
        for group in held_by(value):
            found += [f"{name}.{mistake}" for mistake in shape_mistakes(group)]
    for mistake in found:
        mistakes[f"{place}: {mistake}"] = None


class Watch(ast.NodeTransformer):
    """Puts a call of :func:`look` at the end of every function whose names have suffixes.

    Args:
        module: its name, for messages.
    """

    def __init__(self, module: str):
        self.place = [module]

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._inside(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._inside(node)
        documented = ast.get_docstring(node) is not None
        empty = all(isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant) for part in node.body)
        if empty or not any(axes_of(name) for name in names_in(node)):
            return node  # nothing but words, or no name to look at
        place = ".".join([*self.place, node.name])
        watched.add(place)
        if axes_of(node.name):  # its result is what the name tells of: return (name := result)
            Named(node.name).generic_visit(node)
        template = ast.parse(f"try: pass\nfinally: {LOOK}({place!r}, locals())").body[0]
        assert isinstance(template, ast.Try)
        for part in ast.walk(template):
            if "lineno" in part._attributes:
                ast.copy_location(part, node.body[-1])
        template.body = node.body[documented:]
        node.body = [*node.body[:documented], template]
        return node

    def _inside(self, node: ast.ClassDef | ast.FunctionDef) -> ast.AST:
        self.place.append(node.name)
        self.generic_visit(node)
        self.place.pop()
        return node


class Named(ast.NodeTransformer):
    """Gives what a function returns a name, so that it is among its locals."""

    def __init__(self, name: str):
        self.name = name

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return node  # one inside returns for itself

    def visit_Return(self, node: ast.Return) -> ast.AST:
        if node.value is not None:
            target = ast.copy_location(ast.Name(self.name, ast.Store()), node)
            node.value = ast.copy_location(ast.NamedExpr(target, node.value), node)
        return node


class WatchingLoader(SourceFileLoader):
    """Reads a module's source and watches its functions. What it compiles is kept in no cache."""

    def get_code(self, fullname: str) -> CodeType:
        return compile(Watch(fullname).visit(ast.parse(self.get_data(self.path))), self.path, "exec")

    def exec_module(self, module: ModuleType) -> None:
        vars(module)[LOOK] = look
        super().exec_module(module)


class WatchingFinder(MetaPathFinder):
    """Finds our packages where they are, with another loader."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in PACKAGES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = WatchingLoader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Watch what is imported from now on."""
    early = sorted(set(PACKAGES) & sys.modules.keys())
    assert not early, f"imported before they could be watched: {early}"
    sys.meta_path.insert(0, WatchingFinder())

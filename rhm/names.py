"""Names of this project's folders that others use too: whatever else is called so, from now on they are ours.

Many projects have networks, rules and callbacks, and data may lie in a folder ``experiments``. What lies beside a script or in
the current folder comes first on Python's path, and our own imports would take it for ours.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

NAMES = ("networks", "datamodules", "rules", "callbacks", "experiments")
FOLDER = str(Path(__file__).parent.parent)
"""Where they lie beside ``rhm``, whether installed as a wheel, editable, or on the path."""


class OwnFolders:
    """A finder of modules that knows these names alone."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The folder of this name beside ``rhm``; of any other name nothing."""
        return PathFinder.find_spec(name, [FOLDER]) if name in NAMES else None


def claim() -> None:
    """Find our folders before the path is looked through. What has been imported under one of the names stays what it is."""
    if OwnFolders not in sys.meta_path:
        # behind finders that a person has put first
        sys.meta_path.insert(sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else 0, OwnFolders)


def made(module: str, name: str) -> Any:
    """An object of a class of ours, made without arguments; the pickle of one names this function, and so finds the class."""
    claim()
    return getattr(import_module(module), name)()

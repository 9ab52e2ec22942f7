"""Names of this project's folders that others use too: whatever else is called so, from now on they are ours.

Many projects have networks, rules and callbacks, and data may lie in a folder ``experiments``. What lies beside a script or in
the current folder comes first on Python's path, and our own imports would take it for ours.

A command finds modules of the folder that it was started in, for rules of one's own, but after all others: a file ``yaml.py``
there, or a folder ``wandb`` of logs, is not taken for the package.
"""

from __future__ import annotations

import os
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


class LastFolder:
    """A finder that is asked last, for modules in one folder.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: str):
        self.folder = folder

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """A module or package of the folder; a folder without ``__init__.py`` is one if it has modules."""
        spec = None if path is not None else PathFinder.find_spec(name, [self.folder])
        if spec is None or spec.origin is not None or any(Path(self.folder, name).glob("*.py")):
            return spec
        return None


def look_in(folder: str) -> None:
    """Find modules of this folder, and of no other that was named here before, where they are nowhere else."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, LastFolder)]
    sys.meta_path.append(LastFolder(folder))


def looked_in() -> str:
    """The folder that :func:`look_in` was told last; else the current one."""
    return next((finder.folder for finder in sys.meta_path if isinstance(finder, LastFolder)), os.getcwd())


def made(module: str, name: str, folder: str) -> Any:
    """An object of a class of ours, made without arguments; the pickle of one names this function, and so finds the class.

    Args:
        module, name: of the class.
        folder: where modules lie that are found nowhere else, see :func:`look_in`.
    """
    claim()
    look_in(folder)
    return getattr(import_module(module), name)()

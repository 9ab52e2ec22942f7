"""The version of this package."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path


def version() -> str:
    """Of the package; where it is not installed, that of the project file beside it."""
    try:
        return metadata.version("rhm-local-learning")
    except metadata.PackageNotFoundError:
        with open(Path(__file__).parent.parent / "pyproject.toml", "rb") as file:
            return str(tomllib.load(file)["project"]["version"])

"""The checkpoints in a run's folder, which are looked at before they are used."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pytorch_lightning.plugins.io import TorchCheckpointIO


class Saved(NamedTuple):
    """A checkpoint that could be read: where it lies and what it holds."""

    path: Path
    content: dict[str, Any]


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoints, the oldest first."""
    return sorted(folder.glob("step=*.ckpt"), key=step_of)


def step_of(path: Path) -> int:
    """The step of a checkpoint by its name."""
    return int(path.stem.removeprefix("step="))


def newest(folder: Path, damaged: Callable[[Path, Exception], None]) -> Saved | None:
    """The newest checkpoint that can be read; None if there is none.

    Args:
        folder: ``checkpoints`` of a run.
        damaged: is told of each newer one that cannot be read, and why.
    """
    for path in reversed(checkpoints(folder)):
        try:
            return Saved(path, read(path))
        except Exception as error:  # whatever a broken file makes of it
            damaged(path, error)
    return None


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint.

    Raises:
        Exception: of many kinds, if it is cut off or altered.
    """
    with zipfile.ZipFile(path) as archive:
        if (damaged := archive.testzip()) is not None:  # torch does not look at checksums
            raise ValueError(f"wrong checksum of {damaged}")
    return TorchCheckpointIO().load_checkpoint(path)

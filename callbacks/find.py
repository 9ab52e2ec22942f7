"""A run's callbacks."""

from __future__ import annotations

from pytorch_lightning import Callback, Trainer


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """A trainer's callbacks, which Lightning does not declare."""
    return list(vars(trainer).get("callbacks", []))

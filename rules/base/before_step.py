"""What a callback may do before a step that a trainer does not see, as it is one of several of a call."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from pytorch_lightning import LightningModule, Trainer


@runtime_checkable
class BeforeStep(Protocol):
    """A callback that does something before each step, such as setting its rate."""

    def before_step(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Called with the number of steps before this one."""

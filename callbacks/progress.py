"""The progress of a run in the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class BarAndNumbers(Progress):
    """A progress bar with a line of text below."""

    numbers = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the text."""
        yield self.make_tasks_table(self.tasks)
        yield Text(self.numbers)


TESTING = "test strings and probes of all layers"


class RunProgress(ProgressBar):
    """One bar over the steps of a run, with the loss of each layer and the last test accuracy, as means over replicas.

    The test after a run, which may take longer than a short run, has a clock of its own.

    Where standard error is no terminal a plain line is printed now and then instead.

    Args:
        refresh_seconds: how often the numbers are read from the device.
        plain_seconds: how often a plain line is printed.
    """

    def __init__(self, refresh_seconds: float = 0.5, plain_seconds: float = 15.0):
        super().__init__()
        self.console = Console(file=sys.stderr)
        self.every = refresh_seconds if self.console.is_terminal else plain_seconds
        self.bar: Progress | None = None
        self.next_time = 0.0
        self.shown = True

    def enable(self) -> None:
        """Show it; Lightning calls this on rank zero."""
        self.shown = True

    def disable(self) -> None:
        """Hide it; Lightning calls this on the other ranks."""
        self.shown = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the bar where the run starts or resumes."""
        self.next_time = time.monotonic() + self.every
        if self.shown and self.console.is_terminal:
            self.bar = BarAndNumbers(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self.bar.start()
            self.task = self.bar.add_task(type(pl_module).__name__, total=trainer.max_steps, completed=trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the step, and now and then the losses."""
        if time.monotonic() < self.next_time or not self.shown:
            return
        self.next_time = time.monotonic() + self.every
        numbers = " ".join(f"{name.split('/')[-1]} {float(v.mean()):.2f}" for name, v in outputs["losses"].items())
        accuracy = trainer.callback_metrics.get("test/accuracy")
        text = f"loss: {numbers}" + ("" if accuracy is None else f" | test accuracy {float(accuracy):.3f}")
        if isinstance(self.bar, BarAndNumbers):
            self.bar.numbers = text
            self.bar.update(self.task, completed=trainer.global_step)
        else:
            name = type(pl_module).__name__
            print(f"{name} step {trainer.global_step}/{trainer.max_steps} {text}", file=sys.stderr, flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the finished bar standing."""
        if isinstance(self.bar, BarAndNumbers):
            accuracy = trainer.callback_metrics.get("test/accuracy")
            self.bar.numbers = "" if accuracy is None else f"test accuracy {float(accuracy):.3f}"
            self.bar.update(self.task, completed=trainer.global_step)
        self._stop()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of the test, or say that it starts."""
        if self.shown and self.console.is_terminal:
            columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
            self.bar = Progress(*columns, console=self.console, transient=True)
            self.bar.start()
            self.bar.add_task(TESTING, total=None)
        elif self.shown:
            print(f"{type(pl_module).__name__} {TESTING}", file=sys.stderr, flush=True)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._stop()

    def _stop(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

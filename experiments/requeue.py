"""Stop at a step on a signal, with a checkpoint, and put a Slurm job back into the queue."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, distributed

from experiments.checkpoints import StepCheckpoint
from rhm import InvalidInput

SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1


class Stopped(Exception):
    """A run was asked to stop and has saved a checkpoint.

    Args:
        signum: the signal.
        step: of the checkpoint.
    """

    def __init__(self, signum: int, step: int):
        self.signum, self.step = signal.Signals(signum), step
        super().__init__(f"stopped by {self.signum.name} at step {step}")


class StopOnSignal(Callback):
    """On SIGINT, SIGTERM or SIGUSR1 all ranks save a checkpoint at the same step and raise :class:`Stopped`.

    A signal may reach ranks at different steps, or only one of them. So they ask one another every ``EVERY`` steps, and read
    the answer ``EVERY`` steps later, when it has long arrived: no step waits. A single rank stops after the step that it is at.

    Args:
        checkpoint: saves.
    """

    EVERY = 16

    def __init__(self, checkpoint: StepCheckpoint):
        self.checkpoint = checkpoint
        self.signum = 0
        self.training = False
        self.group: Any = None
        self.asked: tuple[distributed.Work, Tensor] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals in this block; after a SIGUSR1 further ones are ignored, as they come to each rank in its own time."""
        before = {signum: signal.getsignal(signum) for signum in SIGNALS}
        self._listen()
        try:
            yield
        finally:
            if self.signum == signal.SIGUSR1:
                before[signal.SIGUSR1] = signal.SIG_IGN
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _listen(self) -> None:
        for signum in SIGNALS:
            signal.signal(signum, self._take)

    def _take(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and (self.signum or not self.training):
            raise KeyboardInterrupt  # asked twice, or there is no step to wait for
        self.signum = self.signum or signum

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take signals back from Lightning and prepare to ask the other ranks."""
        self._listen()
        self.training = True
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            self.group = distributed.new_group(backend="gloo")  # flags stay on the host: no step waits for a device
            # Lightning asks in every step, and waits for the answer; this callback takes its place
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if it is time."""
        step = trainer.global_step
        signum = self.signum if self.group is None else self._ask(step)
        if signum and step < trainer.max_steps:
            self.signum = signum
            self.checkpoint.save(trainer)
            raise Stopped(signum, step)

    def _ask(self, step: int) -> int:
        """The largest signal that a rank had at the last question; a new question every so many steps."""
        if step % self.EVERY:
            return 0
        answer = self._answer()
        flag = torch.tensor(self.signum)
        self.asked = distributed.all_reduce(flag, distributed.ReduceOp.MAX, self.group, async_op=True), flag
        return answer

    def _answer(self) -> int:
        if self.asked is None:
            return 0
        work, flag = self.asked
        work.wait()
        self.asked = None
        return int(flag)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave no question open."""
        self._answer()
        self.training = False


def _nothing() -> None:
    pass


def requeue() -> str | None:
    """Put this Slurm job back into the queue, if there is one; its number.

    Raises:
        InvalidInput: Slurm did not do it.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return None
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        error = done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else None
    except OSError as not_found:
        error = str(not_found)
    if error is not None:
        allowed = "a job that can be put back in the queue (--requeue); submit it again to go on"
        raise InvalidInput(f"scontrol requeue {job}", error, allowed)
    return job

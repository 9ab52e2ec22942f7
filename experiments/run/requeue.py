"""Stop at a step on a signal, with a checkpoint, and put a Slurm job back into the queue."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, distributed

from experiments.run import slurm
from experiments.run.checkpoints import StepCheckpoint
from rhm import InvalidInput
from rules import LocalRule


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

    A signal may reach ranks at different steps, or only one of them. So they ask one another every ``EVERY`` batches, or after
    each call of more steps, and read the answer when they ask again, as it has long arrived: no step waits. A single rank stops
    after the call that it is at. A validation that is stopped is not made again: the run goes on with the step after it.

    Args:
        checkpoint: saves.
    """

    EVERY = 16

    def __init__(self, checkpoint: StepCheckpoint):
        self.checkpoint = checkpoint
        self.signum = 0
        self.before: dict[int, Any] = {}
        self.group: Any = None
        self.batches, self.between = 0, self.EVERY
        self.asked: tuple[distributed.Work, Tensor] | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGUSR1 in this block, also while there is nothing to stop; the others end a run that does not train.

        After a run was stopped by it further ones are ignored, as they come to each rank in its own time.
        """
        before = listen(signal.SIGUSR1, self._take)
        try:
            yield
        finally:
            listen(signal.SIGUSR1, signal.SIG_IGN if self.signum == signal.SIGUSR1 else before)

    def _take(self, signum: int, frame: FrameType | None) -> None:
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice
        self.signum = self.signum or signum

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take signals, Lightning's SIGTERM too, and prepare to ask the other ranks."""
        assert isinstance(pl_module, LocalRule)
        self.between = max(1, self.EVERY // pl_module.steps_per_call)
        self.before = {signum: listen(signum, self._take) for signum in (signal.SIGINT, signal.SIGTERM)}
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            self.group = distributed.new_group(backend="gloo")  # flags stay on the host: no step waits for a device
            # Lightning asks in every step, and waits for the answer; this callback takes its place
            trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = _nothing  # type: ignore[method-assign]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if it is time."""
        if trainer.global_step < trainer.max_steps:
            self._stop_if_asked(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop if it is time, between two steps of a training."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._stop_if_asked(trainer)

    def _stop_if_asked(self, trainer: Trainer) -> None:
        signum = self.signum if self.group is None else self._ask()
        if signum:
            self.signum = signum
            self.checkpoint.save(trainer)
            raise Stopped(signum, trainer.global_step)

    def _ask(self) -> int:
        """The largest signal that a rank had at the last question; a new question every so many batches."""
        self.batches += 1
        if self.batches % self.between:
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
        """Leave no question open, and signals to others."""
        self._answer()
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave signals to others."""
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self.before.items():
            listen(signum, handler)
        self.before = {}

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A SIGTERM ends a test at once: there is nothing to save, and the same command does it again."""
        listen(signal.SIGTERM, signal.SIG_DFL)


def listen(signum: int, handler: Any) -> Any:
    """Set a signal's handler and return the one before; in a thread, which gets no signals, leave all as it is."""
    return signal.signal(signum, handler) if threading.current_thread() is threading.main_thread() else None


def _nothing() -> None:
    pass


def requeue() -> str | None:
    """Put this Slurm job, or this task of a job array, back into the queue, if there is one; its number.

    Raises:
        InvalidInput: Slurm did not do it.
    """
    job = slurm.job()
    if job is None:
        return None
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, encoding="utf-8", errors="replace")
        error = done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else None
    except OSError as not_found:
        error = str(not_found)
    if error is not None:
        allowed = "a job that can be put back in the queue (--requeue); submit it again to go on"
        raise InvalidInput(f"scontrol requeue {job}", error, allowed)
    return job

"""One training from its start, or its last checkpoint, to its results; or until it is stopped."""

from __future__ import annotations

import errno
import signal
from dataclasses import dataclass
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Timer

from callbacks import LayerwiseLinearProbe
from callbacks.find import callbacks_of
from datamodules import ReplicaDataModule
from experiments.run import ranks, slurm
from experiments.run.folder import RunFolder
from experiments.run.ranks import say
from experiments.run.requeue import StopOnSignal, Stopped, requeue
from experiments.run.results import RunRecord
from experiments.run.tables import draw, show
from experiments.run.threads import say_if_cores_are_busy
from rhm import InvalidInput
from rules import LocalRule

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What the file system says when there is no room."""


@dataclass
class Fit:
    """A run's training.

    Attributes:
        trainer, rule, data: what trains what on what.
        folder: of the run.
        settings, config_yaml: of the run, as a tree and as the file in its folder.
        stop, record: the run's callbacks of these kinds.
        shared: whether this is one of several ranks that each train a share of the replicas.
        tables: whether the results are printed.
    """

    trainer: Trainer
    rule: LocalRule
    data: ReplicaDataModule
    folder: RunFolder
    settings: dict[str, Any]
    config_yaml: str
    stop: StopOnSignal
    record: RunRecord
    shared: bool
    tables: bool

    def run(self) -> None:
        """Train, test and keep the results.

        Raises:
            SystemExit: the run was stopped and can go on; the exit code is that of its signal.
            InvalidInput: the folder or a checkpoint is refused, or the disk is full.
        """
        try:
            if self.trainer.strategy.root_device.type == "cpu":
                say_if_cores_are_busy()
            with self.stop.listening():
                self._train()
        except (KeyboardInterrupt, SystemExit):
            say(f"stopped; the same command goes on from the last checkpoint in {self.folder.path}")
            ranks.leave(128 + signal.SIGINT)
        except Stopped as stopped:
            self._stopped(stopped)
        except OSError as error:
            if error.errno not in FULL:
                raise
            allowed = "a folder with room; checkpoints are kept and the same command goes on from the last"
            raise InvalidInput("run_dir", f"{self.folder.path} ({error.strerror})", allowed) from error
        finally:
            self.folder.release()

    def _train(self) -> None:
        last = ranks.from_first_rank(self.trainer, lambda: self.folder.start(self.settings, self.config_yaml, self.rule))
        if last is not None:
            say(f"going on from {last}")
        for line in self.data.warnings(self.trainer.max_steps, self.rule.compares_strings):
            say(f"rhm: warning: {line}")
        self.trainer.fit(self.rule, datamodule=self.data, ckpt_path=last)
        self.trainer.test(self.rule, datamodule=self.data, verbose=False)
        if self.trainer.is_global_zero:
            status = "stopped" if out_of_time(self.trainer) else "finished"
            probe = probe_of(self.trainer)
            draw(self.folder.picture, type(self.rule).__name__, probe, self.data)
            results = self.record.write(self.trainer, self.rule, status)  # last: a run with results needs nothing more
            if self.tables and not self.shared:
                show(results, probe, self.data)
                print(f"results in {self.folder.results}, probe heat map in {self.folder.picture}")
                if self.trainer.loggers:
                    print(f"curves: tensorboard --logdir {self.folder.path}, those of all layers in its tab Custom scalars")

    def _stopped(self, stopped: Stopped) -> None:
        """Say so, and put a Slurm job that was asked to make room back into the queue."""
        job = None
        if stopped.signum == signal.SIGUSR1 and self.trainer.is_global_zero:
            try:
                job = requeue()
            except InvalidInput as error:
                if not self.shared:
                    raise
                say(f"rhm: warning: {error}")  # each rank asks, as others may have ended long ago; one is enough
        how = "the same command goes on from there" if job is None else f"job {job} is back in the queue"
        say(f"{stopped}; {how}")
        in_job = stopped.signum == signal.SIGUSR1 and slurm.job() is not None
        ranks.leave(0 if in_job else 128 + stopped.signum)


def out_of_time(trainer: Trainer) -> bool:
    """Whether a training was ended by its time (``trainer.max_time``), after which it can go on, and by nothing else."""
    left = [callback.time_remaining() for callback in callbacks_of(trainer) if isinstance(callback, Timer)]
    return trainer.global_step < trainer.max_steps and any(seconds is not None and seconds <= 0 for seconds in left)


def probe_of(trainer: Trainer) -> LayerwiseLinearProbe:
    """The linear probes, which every run has."""
    return next(c for c in callbacks_of(trainer) if isinstance(c, LayerwiseLinearProbe))

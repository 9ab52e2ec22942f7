"""Runs of the command line as each launcher starts them, on the CPU."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import torch

from callbacks.checkpoint_files import checkpoints, step_of

ROOT = Path(__file__).parents[2]
LAUNCHERS = ("alone", "self-launched", "torchrun", "srun")
SMALL = {
    "data.v": 4,
    "data.n": 4,
    "data.m": 2,
    "data.L": 3,
    "data.train_size": 64,
    "data.test_size": 64,
    "data.probe_size": 64,
    "data.batch_size": 16,
    "data.seeds": [0, 1],
    "model.network.width": 8,
    "trainer.accelerator": "cpu",
    "trainer.enable_progress_bar": False,
    "trainer.val_check_interval": 50,
    "trainer.max_steps": 60,
    "checkpoint_every": 20,
    "tables": False,
}
TWO = {"trainer.devices": 2, "trainer.strategy": "ddp"}
SIGNAL = "--trainer.callbacks=signal_at.SignalAt"


def fit(run_dir: Path, *args: str, **settings: object) -> list[str]:
    """Arguments of a small run; a setting is written with ``__`` for a dot."""
    named = {key.replace("__", "."): value for key, value in settings.items()}
    values = {**SMALL, **named, "run_dir": run_dir}
    return ["fit", "--model=Backprop", *args, *(f"--{k}={str(v).replace(' ', '')}" for k, v in values.items())]


class Ranks:
    """The processes of a run, in a process group of their own.

    Args:
        launcher: one of ``LAUNCHERS``; ``srun`` is played by this class, with ``--kill-on-bad-exit``.
        args: of ``rhm``.
        environment: beside that of the tests.
    """

    def __init__(self, launcher: str, args: list[str], **environment: str):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RHM_", "SLURM_", "MASTER_"))}
        self.token = f"RHM_TEST_RUN={uuid.uuid4()}"
        self.environment = {
            **kept,
            **dict([self.token.split("=")]),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/helpers'}",
            **environment,
        }
        rhm = ["-m", "experiments.cli", *args]
        if launcher == "torchrun":
            standalone = ["--standalone", "--nproc_per_node=2"]
            self.processes = [self._start([sys.executable, "-m", "torch.distributed.run", *standalone, *rhm])]
        elif launcher == "srun":
            job = slurm(tasks=2)
            self.processes = [self._start([sys.executable, *rhm], **job, **slurm_rank(rank)) for rank in range(2)]
        else:
            self.processes = [self._start([sys.executable, *rhm])]

    def _start(self, command: list[str], **more: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        group = self.processes[0].pid if getattr(self, "processes", None) else 0
        return subprocess.Popen(
            command, cwd=ROOT, env={**self.environment, **more}, stdout=pipe, stderr=pipe, text=True, process_group=group
        )

    def kill(self) -> None:
        """SIGKILL to every process of the run; the ranks of torchrun have groups of their own."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def alive(self) -> list[int]:
        """Processes of the run, also those that have lost their parent or have a group of their own."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # ended meanwhile, or another person's
                if self.token.encode() in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def assert_gone(self, seconds: float = 45) -> None:
        """All processes end by themselves; torchrun gives its own 30 seconds."""
        deadline = time.monotonic() + seconds
        while left := self.alive():
            assert time.monotonic() < deadline, left
            time.sleep(0.05)
        for process in self.processes:
            process.communicate()

    def wait(self, seconds: float = 300) -> list[tuple[int, str, str]]:
        """Exit code, output and errors of each process; all are killed when the time is over."""
        deadline = time.monotonic() + seconds
        while any(p.poll() is None for p in self.processes) and time.monotonic() < deadline:
            if len(self.processes) > 1 and any(p.returncode for p in self.processes):
                time.sleep(2)  # srun gives the others a moment
                break
            time.sleep(0.02)
        late = [p.args for p in self.processes if p.poll() is None] if len(self.processes) == 1 else []
        self.kill()
        done = [(p.wait(), *p.communicate()) for p in self.processes]
        assert not late, done
        return done


def slurm(tasks: int) -> dict[str, str]:
    """What Slurm tells all tasks of a job on one node; the number gives the port, as it does in Lightning."""
    for number in range(1000 + os.getpid() % 7000, 9000):
        with socket.socket() as attempt, contextlib.suppress(OSError):
            attempt.bind(("", 15000 + number))
            break
    job = {"JOB_ID": str(number), "JOB_NAME": "rhm", "NTASKS": str(tasks), "NTASKS_PER_NODE": str(tasks), "NNODES": "1"}
    return {f"SLURM_{k}": v for k, v in {**job, "NODELIST": "localhost", "STEP_ID": "0", "STEP_NUM_TASKS": str(tasks)}.items()}


def slurm_rank(rank: int) -> dict[str, str]:
    """What Slurm tells one task."""
    return {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_NODEID": "0"}


def fake_scontrol(folder: Path, code: int = 0) -> Path:
    """A folder for PATH with a ``scontrol`` that writes what it was asked to ``calls``."""
    folder.mkdir()
    script = folder / "scontrol"
    script.write_text(f'#!/bin/sh\necho "$@" >> "{folder}/calls"\necho "no such job" >&2\nexit {code}\n', encoding="utf-8")
    script.chmod(0o755)
    return folder


def steps(run_dir: Path) -> list[int]:
    """Of a run's checkpoints."""
    return [step_of(path) for path in checkpoints(run_dir / "checkpoints")]


def checkpoint(run_dir: Path) -> dict:
    """The content of the last checkpoint."""
    last = max((run_dir / "checkpoints").glob("*.ckpt"), key=lambda p: int(p.stem.split("=")[1]))
    return torch.load(last, weights_only=True)


def results(run_dir: Path) -> dict:
    """Results without times."""
    content = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    return {k: v for k, v in content.items() if k not in ("seconds", "samples_per_second")}


def equal(a: object, b: object) -> bool:
    """Whether nested containers hold the same numbers, bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(equal, a, b))
    return a == b


def assert_same_run(a: Path, b: Path) -> None:
    """Weights, optimizer and results of two finished runs are the same, bit for bit."""
    first, second = checkpoint(a), checkpoint(b)
    for part in ("global_step", "state_dict", "optimizer_states"):
        assert equal(first[part], second[part]), part
    assert results(a) == results(b) and results(a)["status"] == "finished"

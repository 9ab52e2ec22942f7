"""The processes of one run: who is first, what all must agree on before training, and that none outlives the others.

Ranks are started by the first one (Lightning runs the command again), by ``torchrun`` or by Slurm's ``srun``. Only the first
rank writes and prints.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from experiments.run import slurm
from rhm import InvalidInput

FIRST, ANSWER, FOLDER = "RHM_FIRST_RANK", "RHM_START", "RHM_RUN_DIR"
"""Environment variables from the first rank to those that it starts: its process, where to start from, the run's folder."""

LET_GO_SECONDS = 10
"""The first rank lets one that has failed go within a second or so; on a busy machine it may take some."""


def is_first() -> bool:
    """Whether this process is the first rank, or the only one."""
    return getattr(rank_zero_only, "rank", 0) == 0


def say(message: str) -> None:
    """One line on standard error, by the first rank."""
    if is_first():
        print(message, file=sys.stderr, flush=True)


def started_by_first() -> bool:
    """Whether this rank was started by the first one, with the same command."""
    return FIRST in os.environ and int(os.environ.get("LOCAL_RANK", "0")) > 0


def started_outside() -> bool:
    """Whether torchrun or srun has started this process as one of several ranks."""
    return TorchElasticEnvironment.detect() or slurm.is_task()


def default_run_dir(rule: str) -> str:
    """A folder that all ranks of a run agree on, ``runs/RULE-...``: the date and the process, or the job where there is one.

    A job that Slurm or torchrun starts again gets the same folder again, and so goes on.

    Raises:
        InvalidInput: torchrun on several nodes, which have no number in common.
    """
    if started_by_first():
        return os.environ[FOLDER]
    if TorchElasticEnvironment.detect():
        if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
            raise InvalidInput("run_dir", "nothing", "a folder that all nodes share, with torchrun on several nodes")
        return f"runs/{rule}-torchrun-{os.getppid()}"
    if slurm.job() and (slurm.is_task() or not slurm.has_shells_name()):
        return f"runs/{rule}-job-{slurm.job()}"
    return f"runs/{rule}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"  # runs may start within one second


# -------------------------------------------------------------------- before training


def check_ranks(trainer: Trainer) -> None:
    """See that the trainer has as many ranks as were started, and that they can find one another.

    Raises:
        InvalidInput: another number of ranks, Slurm tasks without srun, a port in use.
    """
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if TorchElasticEnvironment.detect():
        starter, started = "torchrun", int(os.environ["WORLD_SIZE"])
    elif slurm.is_task() and (tasks := slurm.tasks()) > 1:
        starter, started = "srun", tasks
        if slurm.has_shells_name():
            got, allowed = (
                os.environ.get("SLURM_JOB_NAME"),
                f"another name, as in `SLURM_JOB_NAME=rhm srun --ntasks={tasks} rhm fit ...`",
            )
            raise InvalidInput(
                "SLURM_JOB_NAME", got, f"{allowed}: Lightning takes each task of such a job for a run of its own"
            )
    else:
        starter, started = "", 0
    if starter and started != trainer.num_devices * trainer.num_nodes:
        got = f"{trainer.num_devices} and trainer.num_nodes {trainer.num_nodes}"
        allowed = f"together {started}, the ranks that {starter} has started, with trainer.strategy=ddp if they are several"
        raise InvalidInput("trainer.devices", got, allowed)
    if trainer.world_size == 1:
        return
    if not starter and isinstance(environment, SLURMEnvironment):
        raise InvalidInput("trainer.devices", f"{trainer.num_devices} without srun", "`srun rhm fit ...` in a Slurm job")
    if environment is not None:
        try:
            environment.validate_settings(num_devices=trainer.num_devices, num_nodes=trainer.num_nodes)
        except ValueError as error:
            raise InvalidInput("trainer.devices", error, "what the job was started with") from error
        if is_first() and starter != "torchrun":  # torchrun holds its port itself
            _check_port(environment.main_port)


def _check_port(port: int) -> None:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("", port))
        except OSError as error:
            reason = "in use" if error.errno == errno.EADDRINUSE else error.strerror
            raise InvalidInput("MASTER_PORT", f"{port} ({reason})", "a free port: MASTER_PORT=NUMBER rhm fit ...") from error


def from_first_rank(trainer: Trainer, start: Callable[[], Path | None]) -> Path | None:
    """What ``start`` returns on the first rank, on all ranks; what it refuses is refused by all.

    Ranks that the first one is going to start are given the answer on their way. The others are waited for here.
    """
    if started_by_first():
        return Path(os.environ[ANSWER]) if os.environ[ANSWER] else None
    if trainer.world_size == 1 or not _started_outside(trainer):
        answer = start()
        if trainer.world_size > 1:
            os.environ |= {FIRST: str(os.getpid()), ANSWER: str(answer or "")}
        return answer
    try:
        trainer.strategy.setup_environment()
    except torch.distributed.DistNetworkError as error:
        port = os.environ.get("MASTER_PORT")
        raise InvalidInput("MASTER_PORT", f"{port} ({error})", "a port at which the first rank can be reached") from error
    answer, refused = None, None
    if is_first():
        try:
            answer = start()
        except InvalidInput as error:
            refused = error.key, str(error.got), error.allowed
    answer, refused = trainer.strategy.broadcast((answer, refused))
    if refused is not None:
        raise InvalidInput(*refused)
    return answer


def _started_outside(trainer: Trainer) -> bool:
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return environment is not None and environment.creates_processes_externally


# -------------------------------------------------------------------- the end of a rank


def end_with_parent(seconds: float = 0.5) -> None:
    """End this process soon after the one that started it, if that is the first rank, torchrun or a spread run's launcher.

    Without the others it would wait for them, with the memory and the device that it holds.
    """
    if started_by_first():
        parent = int(os.environ[FIRST])
    elif TorchElasticEnvironment.detect() or "RHM_RANK" in os.environ:
        parent = os.getppid()
        if parent == 1 and b"torch" not in _command(1):  # it has ended while this process was starting
            os._exit(1)
    else:
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()


def _command(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def leave(code: int) -> None:
    """Exit with this code; ranks that the first one has started let it go first.

    Lightning kills the first rank when another one has ended with an error, and with it the line that says why.
    """
    deadline = time.monotonic() + LET_GO_SECONDS
    while code and started_by_first() and os.getppid() == int(os.environ[FIRST]) and time.monotonic() < deadline:
        time.sleep(0.02)
    raise SystemExit(code)

"""Where jobs run."""

from __future__ import annotations

import importlib
import os
import shutil
from dataclasses import dataclass, field
from typing import Any

from rhm import InvalidInput

KINDS = ("local", "slurm", "ray", "debug")


def threads_of(share: int) -> int:
    """Threads of a worker: as many as a person has said with ``OMP_NUM_THREADS``, else its share of the cores."""
    said = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(said) if said.isdigit() and int(said) else max(1, share)


@dataclass(frozen=True)
class Launcher:
    """Where jobs run.

    Args:
        kind: ``local``: processes of this machine, with a GPU each as far as there are; ``slurm``: an array of Slurm jobs;
            ``ray``: a Ray cluster, through Ray Tune; ``debug``: in this process, one after another.
        jobs: how many at a time. On this machine each has its share of the cores, or what ``OMP_NUM_THREADS`` says.
        slurm: parameters of submitit's Slurm executor, such as ``{partition: gpu, gpus_per_node: 1}``.

    Raises:
        InvalidInput: an unknown kind, no jobs, a package or program that is not there.
    """

    kind: str = "local"
    jobs: int = 2
    slurm: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidInput("launcher", self.kind, f"one of {', '.join(KINDS)}")
        if self.jobs < 1:
            raise InvalidInput("jobs", self.jobs, "an integer of at least 1")
        if self.kind == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise InvalidInput("launcher", "slurm", "slurm on a machine that has the programs sbatch and srun")
        if self.kind == "ray":
            try:
                importlib.import_module("ray.tune")
            except ImportError:
                allowed = "a launcher whose package is installed: pip install 'rhm-local-learning[ray]'"
                raise InvalidInput("launcher", "ray", allowed) from None

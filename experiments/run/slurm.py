"""What Slurm says of the job and of the step that this process belongs to."""

from __future__ import annotations

import os

from lightning_fabric.plugins.environments import SLURMEnvironment

SHELL_STEPS = {"interactive", "batch", "extern", *map(str, range(2**32 - 6, 2**32))}
"""Steps without tasks of their own: those of a job's shell and script, by name and by number, and what is beside them."""


def job() -> str | None:
    """The number by which ``scontrol`` knows this job and no other; None outside of one.

    A task of an array is ``ARRAY_TASK``: the number of one of the tasks is that of the whole array too. A heterogeneous job is
    put back into the queue as a whole, by the number of its first component.
    """
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return os.environ.get("SLURM_JOB_ID_HET_GROUP_0") or os.environ.get("SLURM_JOB_ID")


def is_task() -> bool:
    """Whether ``srun`` has started this process as one of the tasks of a step.

    A command typed into the shell of an interactive job finds the variables of the shell's task; Lightning tells such jobs by
    their names, in which ``srun`` may still start tasks.
    """
    step = os.environ.get("SLURM_STEP_ID", "")
    if not step or step in SHELL_STEPS:
        return False
    return not has_shells_name() or os.environ.get("SLURM_TASK_PID") == str(os.getpid())


def tasks() -> int:
    """How many tasks the step of this task has."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ["SLURM_NTASKS"])


def has_shells_name() -> bool:
    """Whether the job has one of the names by which Lightning knows an interactive one, and then takes no notice of Slurm."""
    return SLURMEnvironment.job_name() in ("bash", "interactive")

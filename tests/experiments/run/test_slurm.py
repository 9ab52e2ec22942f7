"""Slurm's words in all the forms that jobs and steps have."""

from __future__ import annotations

import os

import pytest

from experiments.run import slurm
from experiments.run.ranks import default_run_dir
from experiments.run.requeue import requeue
from experiments.run.spread import Place, find_place

TASK = {"NTASKS": "2", "PROCID": "1", "LOCALID": "1", "STEP_ID": "0", "STEP_NUM_TASKS": "2"}
ARRAY = {"ARRAY_JOB_ID": "70", "ARRAY_TASK_ID": "3"}
FORMS = {  # what a job's or a step's process finds; the number of the job, whether srun has started the process
    "a batch script": ({"JOB_ID": "7", "JOB_NAME": "rhm", "NTASKS": "2", "PROCID": "0", "LOCALID": "0"}, "7", False),
    "a batch script that has the number of its step": ({"JOB_ID": "7", **TASK, "STEP_ID": "4294967291"}, "7", False),
    "a task": ({"JOB_ID": "7", "JOB_NAME": "rhm", **TASK}, "7", True),
    "a task of a step that is smaller than its job": ({"JOB_ID": "7", "JOB_NAME": "rhm", **TASK, "NTASKS": "8"}, "7", True),
    "an array's task": ({"JOB_ID": "73", "JOB_NAME": "rhm", **ARRAY, **TASK}, "70_3", True),
    "the array's task with its number": ({"JOB_ID": "70", "JOB_NAME": "rhm", **ARRAY}, "70_3", False),
    "a part of a heterogeneous job": ({"JOB_ID": "8", "JOB_ID_HET_GROUP_0": "7", "JOB_ID_HET_GROUP_1": "8", **TASK}, "7", True),
    "the shell of `srun --ntasks=2 --pty bash`": ({"JOB_ID": "7", "JOB_NAME": "bash", "TASK_PID": "1", **TASK}, "7", False),
    "the shell of salloc": ({"JOB_ID": "7", "JOB_NAME": "interactive", **TASK, "STEP_ID": "4294967290"}, "7", False),
    "a task from the shell of salloc": ({"JOB_ID": "7", "JOB_NAME": "interactive", "TASK_PID": "", **TASK}, "7", True),
}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    """One form of a Slurm process, with the number that ``scontrol`` takes and whether ``srun`` has started it."""
    variables, job, task = FORMS[request.param]
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value or str(os.getpid()))
    return variables, job, task


def test_a_process_knows_its_job_and_whether_it_is_a_task_of_a_step(form):
    variables, job, task = form
    assert (slurm.job(), slurm.is_task()) == (job, task)
    assert find_place() == (Place(1, 1, 2) if task else None)
    shell = variables.get("JOB_NAME") in ("bash", "interactive") and not task
    assert default_run_dir("DFA").startswith("runs/DFA-2" if shell else f"runs/DFA-job-{job}")


def test_each_form_of_job_is_put_back_by_its_own_number(form, job, monkeypatch):
    """Where ``job`` has set a number of its own, the form's is set again."""
    for name, value in form[0].items():
        monkeypatch.setenv(f"SLURM_{name}", value or str(os.getpid()))
    assert requeue() == form[1]
    assert (job / "calls").read_text() == f"requeue {form[1]}\n"


def test_there_is_no_job_outside_of_slurm():
    assert slurm.job() is None and not slurm.is_task() and requeue() is None


def test_runs_that_start_within_one_second_have_folders_of_their_own(monkeypatch):
    monkeypatch.setattr("time.strftime", lambda form: "20260101-000000")
    mine = default_run_dir("DFA")
    monkeypatch.setattr(os, "getpid", lambda: 2**22)
    assert default_run_dir("DFA") != mine

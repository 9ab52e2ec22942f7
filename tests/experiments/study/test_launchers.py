"""Many jobs at once: workers on this machine and in a Slurm array, how they end, and which are refused."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sweeps import nobody_is_left, refused, results, sweep, wait_for, write

from experiments.study.job import Failure, Job
from experiments.study.launchers import _bring_up_to_date

ROOT = Path(__file__).parents[3]


LAUNCH = """
import json, sys
from pathlib import Path
from experiments.study.job import Failure, Job
from experiments.study.launcher import Launcher
from experiments.study.launchers import launch
from study_helpers import {function} as function
folder, failed = Path(sys.argv[1]), {{"b": Failure("no memory")}}
try:
    launch([Job(name, function, (str(folder),)) for name in "ab"], folder, Launcher(jobs=1), "test", failed=failed)
finally:
    (folder / "failed.json").write_text(json.dumps({{name: failure.message for name, failure in failed.items()}}))
"""


def launched(function: str, folder: Path) -> subprocess.Popen:
    """Two jobs for one worker, started by a process in a group of its own."""
    folder.mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH.format(function=function), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/helpers'}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.chaos
@pytest.mark.parametrize(("signum", "group"), [(signal.SIGKILL, False), (signal.SIGINT, True)])
def test_no_worker_outlives_its_launch_even_if_it_ignores_interrupts(signum, group, tmp_path):
    process = launched("ignores_interrupts", tmp_path / "a")
    wait_for((tmp_path / "a/begun").exists, process)
    (os.killpg if group else os.kill)(process.pid, signum)
    process.communicate(timeout=60)
    assert nobody_is_left(tmp_path / "a")


@pytest.mark.chaos
def test_runs_that_no_worker_has_begun_have_not_failed(tmp_path):
    process = launched("ends_its_process", tmp_path / "a")
    err = process.communicate(timeout=300)[1]
    assert process.returncode == 1 and "1 of 2 runs were not begun" in err and "Traceback" not in err
    failed = json.loads((tmp_path / "a/failed.json").read_text())
    assert failed["a"].startswith("its worker ended") and failed["b"] == "no memory"


EMPTY = "#!/bin/sh\n"


SBATCH = """#!{python}
import os, re, subprocess, sys
text = open(sys.argv[-1]).read()
last = int(re.search(r"--array=0-(\\d+)", text)[1]) if "--array" in text else 0
common = dict(SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1", SLURM_NODEID="0", SLURM_PROCID="0", SLURM_LOCALID="0")
for i in range(last + 1):
    own = dict(SLURM_JOB_ID=str(70 + i), SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID=str(i)) if "--array" in text else dict(SLURM_JOB_ID="7")
    subprocess.Popen(["bash", sys.argv[-1]], env={{**os.environ, **common, **own}}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job 7")
"""


def slurm_that_runs_here(folder: Path, monkeypatch) -> None:
    """Programs named as those of Slurm: jobs start at once, in processes of this machine."""
    folder.mkdir()
    for name, text in {
        "sbatch": SBATCH.format(python=sys.executable),
        "sacct": EMPTY,
        "srun": EMPTY,
        "scancel": EMPTY,
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


LAUNCHERS = {"local": ["--jobs=1"], "slurm": ["--slurm={use_srun: false}"]}


@pytest.mark.chaos
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_local_processes_and_a_slurm_array_give_the_results_of_this_process(launcher, tmp_path, monkeypatch):
    study = write(tmp_path / "s.yaml", rules=["backprop", "dfa"])
    sweep(study, f"--run_dir={tmp_path / 'debug'}")
    monkeypatch.chdir(ROOT)
    slurm_that_runs_here(tmp_path / "bin", monkeypatch)
    sweep(study, f"--run_dir={tmp_path / 'there'}", f"--launcher={launcher}", *LAUNCHERS[launcher])
    found = results(tmp_path / "debug")
    assert len(found) == 2 and results(tmp_path / "there") == found


def test_launchers_that_are_not_there_are_refused(tmp_path, capsys, monkeypatch):
    study, run_dir = write(tmp_path / "s.yaml"), f"--run_dir={tmp_path / 'a'}"
    assert "one of local, slurm, ray, debug" in refused(capsys, study, run_dir, "--launcher=locl")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ray.tune", raising=False)
    assert "rhm-local-learning[ray]" in refused(capsys, study, run_dir, "--launcher=ray")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "sbatch" in refused(capsys, study, run_dir, "--launcher=slurm")
    assert "jobs" in refused(capsys, study, run_dir, "--jobs=0")


def test_runs_that_have_failed_are_told_from_those_that_have_only_begun_by_their_marks(tmp_path):
    for mark in ("a.taken", "a.failed", "c.taken"):
        (tmp_path / mark).write_text("no memory", encoding="utf-8")
    failed = {"c": Failure("before")}
    assert _bring_up_to_date(failed, [Job(name, print, ()) for name in "acd"], tmp_path, ended=False) == 1
    assert failed == {"a": Failure("no memory")}

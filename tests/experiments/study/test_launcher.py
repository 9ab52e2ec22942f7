"""What a worker may use."""

from __future__ import annotations

import pytest

from experiments.study.launcher import Launcher, threads_of
from experiments.study.workers import SubmititWorkers


@pytest.mark.parametrize(("said", "threads"), [("1", 1), ("3", 3), ("3,2", 3), (None, 4), ("", 4), ("many", 4), ("0", 4)])
def test_a_worker_has_as_many_threads_as_a_person_has_said(said, threads, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads_of(4) == threads
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_of(0) == 1


def test_workers_of_this_machine_are_told_what_a_person_has_said(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    told = []
    monkeypatch.setattr("submitit.AutoExecutor.submit", lambda self, worker, session, jobs, cores, pipe: told.append(cores))
    SubmititWorkers([None, None], tmp_path, Launcher(jobs=2), "pipe")
    assert told == [3, 3]

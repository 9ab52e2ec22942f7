"""Threads by the size of the work and the free cores; a person's word counts."""

from __future__ import annotations

import pytest
import torch

from experiments.run import threads
from experiments.run.threads import SAID, WORK, fitting_threads, threads_for


@pytest.fixture(autouse=True)
def eight_threads(monkeypatch):
    """A machine whose torch would take eight, and of which nobody has said how many; what was set, in its order."""
    for name in SAID:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    taken = []
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    return taken


@pytest.mark.parametrize(
    ("operations", "busy", "wanted"), [(WORK / 2, 0, 1), (WORK, 0, 8), (WORK, 0.4, 8), (WORK, 2.6, 5), (WORK, 40, 1)]
)
def test_short_steps_take_one_thread_and_long_ones_the_cores_that_are_free(operations, busy, wanted, monkeypatch):
    monkeypatch.setattr(threads, "busy_cores", lambda: busy)
    assert threads_for(operations, 8) == wanted


def test_a_run_says_what_it_takes_and_gives_it_back(eight_threads, capsys):
    with fitting_threads(WORK / 2):
        assert eight_threads == [1]
    assert eight_threads == [1, 8]
    assert capsys.readouterr().err == "1 of 8 threads: short steps (OMP_NUM_THREADS says otherwise)\n"


@pytest.mark.parametrize("name", SAID)
def test_what_a_person_says_stays(name, eight_threads, monkeypatch, capsys):
    monkeypatch.setenv(name, "8")
    with fitting_threads(1.0):
        pass
    assert eight_threads == [8] and capsys.readouterr().err == ""

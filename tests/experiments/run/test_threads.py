"""A run that takes more threads than there are free cores says so, once; a person's word counts."""

from __future__ import annotations

import os

import pytest
import torch

from experiments.run import threads
from experiments.run.threads import SAID, say_if_cores_are_busy


@pytest.fixture(autouse=True)
def four_of_eight(monkeypatch):
    """A machine of eight cores on which torch takes four threads, and of which nobody has said how many."""
    for name in SAID:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    say_if_cores_are_busy.cache_clear()
    yield
    say_if_cores_are_busy.cache_clear()


@pytest.mark.parametrize(("busy", "lines"), [(0.0, 0), (4.4, 0), (4.6, 1), (40.0, 1)])
def test_a_run_on_busy_cores_says_so_once_and_changes_nothing(busy, lines, monkeypatch, capsys):
    monkeypatch.setattr(threads, "busy_cores", lambda: busy)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: pytest.fail("the number of threads was changed"))
    for _ in range(3):
        say_if_cores_are_busy()
    said = capsys.readouterr().err
    assert said.count("\n") == lines and ("OMP_NUM_THREADS=1" in said) == bool(lines)


@pytest.mark.parametrize("name", SAID)
def test_nothing_is_said_where_a_person_has_said_how_many(name, monkeypatch, capsys):
    monkeypatch.setenv(name, "4")
    monkeypatch.setattr(threads, "busy_cores", lambda: 40.0)
    say_if_cores_are_busy()
    assert capsys.readouterr().err == ""

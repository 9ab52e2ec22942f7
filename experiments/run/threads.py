"""Threads that wait for cores: two on one core are many times slower than one.

How many a run takes is not decided here: sums in another order may be other numbers, and a run that goes on after a stop, on a
machine that is less or more busy, has to go on as it was.
"""

from __future__ import annotations

import os
from functools import cache

import torch

from experiments.run.ranks import say

SAID = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which a person, or a launcher, says how many threads a process takes."""
ROUNDING = 0.5
"""Cores by which the load may pass what is free: it counts what has run for a moment."""


def busy_cores() -> float:
    """Cores that other processes keep busy, by the load of the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


@cache
def say_if_cores_are_busy() -> None:
    """One line, once, where a run takes more threads than there are free cores and nobody has said how many."""
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    busy = busy_cores()
    if threads > 1 and threads + busy > cores + ROUNDING and not any(os.environ.get(name) for name in SAID):
        say(f"rhm: note: other processes keep about {busy:.0f} of {cores} cores busy; OMP_NUM_THREADS=1 may be much faster")

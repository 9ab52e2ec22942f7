"""How many of the processor's threads a run takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from experiments.run.ranks import say

WORK = 2e8
"""Floating-point operations of a step from which on a second thread pays: below, handing over takes longer than computing."""
SAID = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables by which a person, or a launcher, says how many threads a process takes."""


def busy_cores() -> float:
    """Cores that other processes keep busy, by the load of the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def threads_for(operations: float, most: int) -> int:
    """Threads for a step of so many operations, ``most`` at the most, on cores that are free.

    Two threads that share a core with another process wait for one another at each product, and are many times slower than one.
    """
    if operations < WORK:
        return 1
    return max(1, min(most, round(most - busy_cores())))


@contextmanager
def fitting_threads(operations: float) -> Iterator[None]:
    """While a run trains on the processor it takes as many threads as fit it, unless it was said how many."""
    before = torch.get_num_threads()
    chosen = before if any(os.environ.get(name) for name in SAID) else threads_for(operations, before)
    if chosen < before:
        why = "short steps" if operations < WORK else "other processes are busy"
        say(f"{chosen} of {before} threads: {why} (OMP_NUM_THREADS says otherwise)")
        torch.set_num_threads(chosen)
    try:
        yield
    finally:
        torch.set_num_threads(before)

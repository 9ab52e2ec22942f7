"""Runs that are killed at random moments, by each launcher. Slow: ``make test-chaos``."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from run_processes import LAUNCHERS, TWO, Ranks, assert_same_run, fit

pytestmark = [pytest.mark.chaos, pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")]
KILLS = 10
RUN = {"trainer.max_steps": 3000, "trainer.val_check_interval": 150, "checkpoint_every": 10}


def arguments(launcher: str, run_dir: Path, **settings: object) -> list[str]:
    return fit(run_dir, **RUN, **({} if launcher == "alone" else TWO), **settings)


def newest(run_dir: Path) -> float:
    """When the last checkpoint was written."""
    times = []
    for path in (run_dir / "checkpoints").glob("*.ckpt"):
        try:
            times.append(path.stat().st_mtime_ns)
        except FileNotFoundError:  # dropped meanwhile
            continue
    return max(times, default=0)


def wait_for_checkpoint(ranks: Ranks, run_dir: Path, before: float) -> None:
    deadline = time.monotonic() + 120
    while newest(run_dir) == before:
        assert all(p.poll() is None for p in ranks.processes) and time.monotonic() < deadline, ranks.wait(1)
        time.sleep(0.001)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_run_killed_ten_times_ends_as_an_undisturbed_one(launcher, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    start = time.monotonic()
    undisturbed = Ranks(launcher, arguments(launcher, whole))
    wait_for_checkpoint(undisturbed, whole, 0)
    startup = time.monotonic() - start
    done = undisturbed.wait()
    assert all(code == 0 for code, _, _ in done), done
    seed = time.time_ns()
    moment = random.Random(seed)
    print(f"\n{launcher}: {startup:.1f} s to the first checkpoint; moments from seed {seed}")
    for kill in range(KILLS):
        before = newest(killed)
        ranks = Ranks(launcher, arguments(launcher, killed))
        if moment.random() < 0.3:  # anywhere, most likely while it starts
            text = f"{(delay := moment.uniform(0, 1.2 * startup)):.2f} s after its start"
        else:  # while it trains and writes
            wait_for_checkpoint(ranks, killed, before)
            text = f"{(delay := moment.uniform(0, 0.15)):.3f} s after its first checkpoint"
        time.sleep(delay)
        assert all(p.poll() is None for p in ranks.processes), ranks.wait(1)
        ranks.kill()
        ranks.assert_gone()
        names = sorted(path.name for path in (killed / "checkpoints").glob("*"))
        print(f"  kill {kill + 1}: {text}; left {', '.join(names) or 'nothing'}", flush=True)
        results = killed / "results.json"
        assert not results.exists() or json.loads(results.read_text())["status"] != "finished"
    done = Ranks(launcher, arguments(launcher, killed)).wait()
    assert all(code == 0 for code, _, _ in done), done
    assert_same_run(whole, killed)


@pytest.mark.parametrize("launcher", LAUNCHERS[1:])
def test_no_rank_outlives_the_first_one(launcher, tmp_path):
    run = tmp_path / "a"
    ranks = Ranks(launcher, arguments(launcher, run, trainer__max_steps=1_000_000))
    wait_for_checkpoint(ranks, run, 0)
    first = int(re.fullmatch(r"process (\d+) on .*", (run / ".lock").read_text())[1])
    assert len(ranks.alive()) >= 2 and first in ranks.alive()
    os.kill(first, signal.SIGKILL)
    if launcher != "srun":  # it ends the others by itself; here they must do without
        ranks.processes[0].wait(60)
    ranks.assert_gone()


def test_no_rank_outlives_torchrun(tmp_path):
    ranks = Ranks("torchrun", arguments("torchrun", tmp_path / "a", trainer__max_steps=1_000_000))
    wait_for_checkpoint(ranks, tmp_path / "a", 0)
    ranks.processes[0].kill()
    ranks.assert_gone(10)

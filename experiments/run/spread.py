"""Replicas spread over ranks: each rank trains its own as an ordinary run, and nothing is exchanged but the results.

The folder of rank ``r`` of ``w`` is ``RUN_DIR/rank-r-of-w``; it is resumed and finished like any run's. What the
ranks found is put together in ``RUN_DIR/results.json`` by whichever of them is the last.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

from lightning_utilities.core.rank_zero import rank_zero_only

from experiments.files import read_json, write_json
from experiments.run import slurm
from experiments.run.folder import RunFolder
from rhm import InvalidInput

RANK_VARIABLES = (
    ("RHM_RANK", "RHM_LOCAL_RANK", "RHM_WORLD_SIZE"),  # this file's own
    ("RANK", "LOCAL_RANK", "WORLD_SIZE"),  # torchrun
    ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"),  # srun
)
"""Variables in which a launcher says which rank a process is, which on its machine, and how many there are."""

POLL_SECONDS = 0.1
"""Between two looks whether a rank has ended."""

START_SECONDS = 60
"""What a rank may take to start after another one has already finished: imports from a slow disk."""


class Place(NamedTuple):
    """Which rank this process is, which on its machine, and how many there are."""

    rank: int
    local_rank: int
    world: int

    def folder(self, run_dir: Path) -> Path:
        """Of this rank's run."""
        return run_dir / f"rank-{self.rank}-of-{self.world}"


def find_place() -> Place | None:
    """What a launcher has said; None in a process that no launcher started."""
    for names in RANK_VARIABLES:
        values = [os.environ.get(name, "") for name in names]
        if not all(value.isdigit() for value in values):
            continue
        rank, local_rank, world = map(int, values)
        if not names[0].startswith("SLURM"):
            return Place(rank, local_rank, world)
        if slurm.is_task():  # else a shell or a script, which Slurm tells of tasks that srun has yet to start
            return Place(rank, local_rank, slurm.tasks())
    return None


def place_of(folder: Path) -> Place | None:
    """Whose folder this is: the inverse of :meth:`Place.folder`, without the number on the machine; None of a whole run."""
    match = re.fullmatch(r"rank-(\d+)-of-(\d+)", folder.name)
    return Place(int(match[1]), 0, int(match[2])) if match else None


def stand_alone() -> None:
    """Let this process train by itself, whatever its launcher has told it of others."""
    for names in RANK_VARIABLES:
        for name in names:
            os.environ.pop(name, None)
    os.environ.pop("SLURM_STEP_ID", None)
    rank_zero_only.rank = 0  # type: ignore[attr-defined]


def check_folders(run_dir: Path, world: int) -> None:
    """See that no other number of ranks has begun here.

    Raises:
        InvalidInput: one has.
    """
    for path in run_dir.glob("rank-*-of-*"):
        if path.name.rpartition("-")[2] != str(world):
            raise InvalidInput(
                "spread_replicas", f"{world} ranks in {run_dir}, which has {path.name}", "the same number of ranks"
            )


def start_ranks(command: list[str], run_dir: Path, world: int) -> bool:
    """Run the ranks as processes of this machine, each on its share of the cores; a rank that fails ends all.

    Returns whether they ended by themselves, and not by a signal that was passed on to them.

    Args:
        command: the same for all ranks.
        run_dir: of all ranks.
        world: number of ranks.

    Raises:
        SystemExit: a rank failed, with its exit code.
    """
    threads = str(max(1, (os.cpu_count() or 1) // world))
    ranks: list[subprocess.Popen[bytes]] = []
    for rank in range(world):
        place = dict(zip(RANK_VARIABLES[0], map(str, (rank, rank, world)), strict=True))
        env = {"OMP_NUM_THREADS": threads, **os.environ, **place}
        ranks.append(subprocess.Popen(command, env=env))
    failed, passed = 0, False

    def pass_on(signum: int, frame: FrameType | None) -> None:
        """Each rank saves a checkpoint and ends."""
        nonlocal passed
        passed = True
        for process in ranks:
            process.send_signal(signum)

    before = {signum: signal.signal(signum, pass_on) for signum in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        while not failed and None in (codes := [process.poll() for process in ranks]):
            failed = next((code for code in codes if code), 0)
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        failed = 130
    finally:
        for process in ranks:
            process.terminate()
        codes = [process.wait() for process in ranks]
        for signum, handler in before.items():
            signal.signal(signum, handler)
    failed = failed or next((code for code in codes if code), 0)
    if failed:
        print(f"a rank ended with code {failed}; the same command goes on from the checkpoints in {run_dir}", file=sys.stderr)
        raise SystemExit(failed if failed > 0 else 128 - failed)
    return not passed


def wait_for_others(run_dir: Path, world: int, max_steps: int, seconds: float) -> dict[str, Any] | None:
    """The results of all ranks; None if others still train, of which the last one puts all together.

    Args:
        run_dir: of all ranks.
        world: number of ranks.
        max_steps: of their runs.
        seconds: to wait for ranks that neither train nor have finished.

    Raises:
        SystemExit: a rank has ended without results or has never been started.
    """
    deadline = time.monotonic() + seconds
    while True:
        ended = [folder for folder in _places(run_dir, world) if not (folder.live or folder.done(max_steps))]
        if (results := put_together(run_dir, world, max_steps)) is not None or not ended:
            return results
        if time.monotonic() >= deadline:
            break
        time.sleep(POLL_SECONDS)
    names = ", ".join(folder.path.name for folder in ended)
    print(
        f"no results in {run_dir}: {names} of {world} ranks not finished, and nothing trains there; "
        "the same command with all ranks goes on",
        file=sys.stderr,
    )
    raise SystemExit(1)


def _places(run_dir: Path, world: int) -> list[RunFolder]:
    return [RunFolder(Place(rank, rank, world).folder(run_dir)) for rank in range(world)]


def joined(trees: list[Any]) -> Any:
    """Nested dictionaries of lists over replicas, with the lists of all ranks one after another."""
    if isinstance(trees[0], dict):
        return {key: joined([tree[key] for tree in trees]) for key in trees[0]}
    return [value for values in trees for value in values]


def put_together(run_dir: Path, world: int, max_steps: int) -> dict[str, Any] | None:
    """Write the results of all ranks as one run's, once, if all have finished so many steps, and return them; else None."""
    folders = _places(run_dir, world)
    if not all(folder.done(max_steps) for folder in folders):
        return None
    if RunFolder(run_dir).done(max_steps):
        written: dict[str, Any] = read_json(run_dir / "results.json")
        return written
    parts = [read_json(folder.results) for folder in folders]
    labels = [count for part in parts for count in part["supervision"]["readout_labels"]]
    whole = parts[0] | {
        "supervision": parts[0]["supervision"] | {"readout_labels": labels},
        "replicas": [replica for part in parts for replica in part["replicas"]],
        "probe_strings_trained_on": max(part["probe_strings_trained_on"] for part in parts),
        "diagnostics": joined([part["diagnostics"] for part in parts]),
        **{key: max(part[key] for part in parts) for key in ("steps", "samples_seen", "seconds")},
        "samples_per_second": round(sum(part["samples_per_second"] for part in parts), 1),
        "ranks": world,
    }
    write_json(run_dir / "results.json", whole)
    return whole

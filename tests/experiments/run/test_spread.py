"""Replicas spread over ranks: the same results as one process, by every launcher, without an exchange."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datamodules import ClassPairs, RHMDataModule
from experiments.cli import main
from experiments.files import write_json
from experiments.run.folder import RunFolder
from experiments.run.spread import RANK_VARIABLES, Place, find_place, put_together, start_ranks, wait_for_others
from rhm import InvalidInput

ROOT = Path(__file__).parents[3]
RUN = [
    "fit",
    *("--model=LayerwiseContrastive", "--data.pairs=ClassPairs", "--model.network.width=8"),
    *("--data.v=4", "--data.n=4", "--data.m=2", "--data.L=2", "--data.train_size=[16,24]", "--data.seeds=[0,1,2]"),
    *("--data.test_size=8", "--data.probe_size=8", "--data.batch_size=8"),
    *("--trainer.accelerator=cpu", "--trainer.max_steps=6", "--trainer.val_check_interval=3", "--checkpoint_every=2"),
    "--trainer.enable_progress_bar=false",
]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def replicas(run_dir: Path) -> list[dict]:
    """Results without logistic probes, whose optimizer looks at all replicas' losses at once."""
    found = json.loads((run_dir / "results.json").read_text())["replicas"]
    return [{key: value for key, value in replica.items() if key != "probe_logistic"} for replica in found]


def refused(capsys, *args: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*RUN, *args])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err.count("\n") == 1, err
    return err


@pytest.fixture
def rank(monkeypatch):
    """Train as one of two ranks of torchrun; its exit code."""
    monkeypatch.setattr("experiments.run.command.START_SECONDS", 0)

    def train(number: int, *args: str) -> int:
        with monkeypatch.context() as own:
            for name, value in zip(RANK_VARIABLES[1], (str(number), str(number), "2"), strict=True):
                own.setenv(name, value)
            try:
                main([*RUN, "--spread_replicas=true", "--tables=false", *args])
            except SystemExit as stop:
                return stop.code
        return 0

    return train


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> list[dict]:
    """What one process finds for all six replicas."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    main([*RUN, "--tables=false", f"--run_dir={run_dir}"])
    return replicas(run_dir)


@pytest.mark.chaos
def test_ranks_that_are_started_find_what_one_process_finds(tmp_path, alone, capsys, monkeypatch):
    command = ["--trainer.devices=2", "--spread_replicas=true", f"--run_dir={tmp_path / 'run'}"]
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    main([*RUN, *command])
    assert capsys.readouterr().out.count("test accuracy") == 1
    assert replicas(tmp_path / "run") == alone


def test_ranks_find_what_one_process_finds_and_a_rank_that_was_lost_is_made_again(tmp_path, alone, capsys, rank):
    run = tmp_path / "run"
    assert rank(0, f"--run_dir={run}") == 1 and rank(1, f"--run_dir={run}") == 0
    assert replicas(run) == alone
    results = json.loads((run / "results.json").read_text())
    assert results["ranks"] == 2 and results["supervision"]["readout_labels"] == [16, 24] * 3
    again = ["--trainer.devices=2", "--spread_replicas=true", f"--run_dir={run}"]
    assert "nothing is overwritten" in refused(capsys, *again)

    (run / "results.json").unlink()
    shutil.rmtree(run / "rank-1-of-2")
    kept = (run / "rank-0-of-2/results.json").stat().st_mtime_ns
    assert rank(1, f"--run_dir={run}") == 0
    assert replicas(run) == alone
    assert (run / "rank-0-of-2/results.json").stat().st_mtime_ns == kept, "a finished rank was trained again"
    written = (run / "results.json").stat().st_mtime_ns
    assert rank(0, f"--run_dir={run}") == 0  # a rank that has finished comes late, after the others have put all together
    assert (run / "results.json").stat().st_mtime_ns == written
    (run / "results.json").unlink()
    assert "the same" in refused(capsys, *again, "--trainer.devices=3")


@pytest.mark.chaos
@pytest.mark.parametrize(
    "names", ["RANK LOCAL_RANK WORLD_SIZE", "SLURM_PROCID SLURM_LOCALID SLURM_NTASKS"], ids=["torchrun", "srun"]
)
def test_ranks_of_another_launcher_find_the_same(tmp_path, alone, names):
    keys = names.split()
    processes = []
    for rank in range(2):
        env = {**ENV, **dict(zip(keys, (str(rank), str(rank), "2"), strict=True)), "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
        command = [sys.executable, "-m", "experiments.cli", *RUN, "--spread_replicas=true", f"--run_dir={tmp_path / 'run'}"]
        processes.append(
            subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        )
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert replicas(tmp_path / "run") == alone


def test_all_numbers_of_results_are_those_of_one_process_and_a_rank_without_the_other_is_no_success(tmp_path, rank, capsys):
    """The ranks' replicas have other sizes, of which only one takes strings that probes are fitted on."""
    settings = ["--data.train_size=[8,24]", "--data.seeds=[0]", "--data.test_size=4"]
    main([*RUN, *settings, "--tables=false", f"--run_dir={tmp_path / 'one'}"])
    capsys.readouterr()
    assert rank(0, *settings, f"--run_dir={tmp_path / 'two'}") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"no results in {tmp_path / 'two'}: rank-1-of-2 of 2 ranks not finished")
    assert not (tmp_path / "two/results.json").exists()
    assert rank(1, *settings, f"--run_dir={tmp_path / 'two'}") == 0
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert one["probe_strings_trained_on"] > 0 and two.pop("ranks") == 2
    free = {"seconds", "samples_per_second", "replicas"}
    assert {k: v for k, v in one.items() if k not in free} == {k: v for k, v in two.items() if k not in free}
    assert replicas(tmp_path / "one") == replicas(tmp_path / "two")


def test_a_rank_that_fails_ends_all_and_is_reported(tmp_path, capfd, monkeypatch):
    script = "import os, sys, time; os.environ['RHM_RANK'] == '1' and sys.exit(3); time.sleep(60); open('ended', 'w')"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        start_ranks([sys.executable, "-c", script], tmp_path, 2)
    assert stop.value.code == 3 and not (tmp_path / "ended").exists()
    assert "a rank ended with code 3" in capfd.readouterr().err


def test_results_are_put_together_only_when_all_ranks_have_finished(tmp_path):
    assert put_together(tmp_path, 2, 6) is None
    for rank in 0, 1:
        folder = RunFolder(tmp_path / f"rank-{rank}-of-2")
        folder.path.mkdir()
        write_json(folder.results, {"status": "finished", "steps": 6, "max_steps": 6})
    assert put_together(tmp_path, 2, 7) is None, "of a run that has been made longer"


def test_a_run_whose_ranks_have_converged_at_different_steps_is_as_long_as_the_longest(tmp_path):
    for rank, steps in enumerate((4, 6)):
        folder = RunFolder(tmp_path / f"rank-{rank}-of-2")
        folder.path.mkdir()
        known = {
            "supervision": {"readout_labels": [8]},
            "replicas": [{"seed": rank}],
            "diagnostics": {},
            "probe_strings_trained_on": 0,
        }
        numbers = {"steps": steps, "max_steps": 9, "samples_seen": 8 * steps, "seconds": steps / 2, "samples_per_second": 16.0}
        write_json(folder.results, {"status": "finished", **known, **numbers})
    whole = put_together(tmp_path, 2, 9)
    assert (whole["steps"], whole["samples_seen"], whole["seconds"], whole["samples_per_second"]) == (6, 48, 3.0, 32.0)


def test_a_rank_that_has_finished_leaves_the_others_alone_while_they_train(tmp_path):
    """The other's folder is locked, as by a run; then that run ends without results."""
    other = RunFolder(tmp_path / "rank-1-of-2")
    done = RunFolder(tmp_path / "rank-0-of-2")
    for folder in done, other:
        folder.path.mkdir()
    write_json(done.results, {"status": "finished", "steps": 6, "max_steps": 6})
    with open(other.lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert other.live and wait_for_others(tmp_path, 2, 6, 0) is None
    assert not other.live
    with pytest.raises(SystemExit, match="1"):
        wait_for_others(tmp_path, 2, 6, 0)


def test_a_share_holds_its_replicas_and_all_shares_hold_all():
    def data(pairs=None):
        return RHMDataModule(v=4, n=4, m=2, L=2, train_size=[16, 24], seeds=[0, 1, 2], test_size=8, batch_size=8, pairs=pairs)

    whole, shares = data(ClassPairs()), [data(ClassPairs()) for _ in range(4)]
    for rank, share in enumerate(shares):
        share.keep_share(rank, 4)
    assert [seed for share in shares for seed in share.replica_seeds] == whole.replica_seeds
    assert [size for share in shares for size in share.replica_sizes] == whole.replica_sizes
    batch, start = whole.train_batch(3), 0
    for share in shares:
        part = share.train_batch(3)
        assert part.x_RBD.equal(batch.x_RBD[start : start + share.replicas])
        assert part.view_RBD.equal(batch.view_RBD[start : start + share.replicas])
        start += share.replicas
    with pytest.raises(InvalidInput, match="7.*at most the number of replicas, 6"):
        data().keep_share(0, 7)


def test_more_ranks_than_replicas_are_refused(tmp_path, capsys):
    line = refused(capsys, "--trainer.devices=7", "--spread_replicas=true", f"--run_dir={tmp_path / 'run'}")
    assert "at most the number of replicas, 6" in line
    assert not (tmp_path / "run").exists()


def test_a_launchers_words_are_found(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert find_place() is None
    monkeypatch.setenv("SLURM_PROCID", "5")
    monkeypatch.setenv("SLURM_LOCALID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert find_place() is None, "a batch script is no rank: srun has not started any"
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert find_place() == Place(5, 1, 8)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "6")
    assert find_place() == Place(5, 1, 6), "a step may have fewer tasks than its job"


@pytest.mark.chaos
def test_a_signal_is_passed_on_to_all_ranks(tmp_path):
    """In a process of its own, which is sent the signal; each rank writes a file when it has got it."""
    (tmp_path / "rank.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "name = os.environ['RHM_RANK']\n"
        "def stop(*_):\n    pathlib.Path(f'saved-{name}').touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "pathlib.Path(f'ready-{name}').touch()\n"
        "time.sleep(120)\n"
    )
    launcher = "import sys, pathlib; from experiments.run.spread import start_ranks; start_ranks([sys.executable, 'rank.py'], pathlib.Path('.'), 2)"
    parent = subprocess.Popen([sys.executable, "-c", launcher], cwd=tmp_path, env=ENV, stderr=subprocess.PIPE, text=True)
    while len(list(tmp_path.glob("ready-*"))) < 2:
        assert parent.poll() is None
        time.sleep(0.05)
    parent.terminate()
    _, err = parent.communicate(timeout=60)
    assert parent.returncode == 143 and "a rank ended with code 143" in err
    assert len(list(tmp_path.glob("saved-*"))) == 2


def test_a_ranks_folder_can_be_measured_and_other_settings_are_refused(tmp_path, rank, capsys):
    folder = tmp_path / "run/rank-1-of-2"
    assert rank(1, f"--run_dir={tmp_path / 'run'}") == 1
    assert rank(1, "--data.seeds=[5,6,7]", f"--run_dir={tmp_path / 'run'}") == 2
    assert "the same settings" in capsys.readouterr().err
    main(["validate", f"--run_dir={folder}"])
    assert "1 2" in capsys.readouterr().out

"""Installed by pip in an environment of its own: what works in an empty folder works among names that are ours too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from wheels import Installed

from rhm.names import NAMES

pytestmark = pytest.mark.chaos
SMALL = ["--data.L=2", "--data.train_size=32", "--data.test_size=32", "--data.probe_size=64", "--data.batch_size=8"]
FIT = [
    "fit",
    "-c",
    "rules/backprop",
    *SMALL,
    "--model.network.width=8",
    "--trainer.max_steps=4",
    "--trainer.val_check_interval=4",
]
CPU = ["--trainer.accelerator=cpu", "--tables=false", "--trainer.enable_progress_bar=false"]
STUDY = """
rules: [backprop, mine.yaml]
tasks: [{v: 4, n: 4, m: 2, s: 2, L: 2}]
sizes: {multiples: [16]}
seeds: [0]
settings: {model.network.width: 8, trainer.accelerator: cpu, data.probe_size: 16}
steps: {least: 4, most: 4}
refine: 0
test_size: 16
"""
SCRIPT = "from experiments.settings import instantiate\nprint(type(instantiate(['--config=rules/backprop'])).__name__)\n"
STOP = "raise SystemExit('this is not ours')\n"


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, tmp_path_factory):
    return Installed(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(params=["data and modules", "packages on the path"])
def place(request, tmp_path):
    """A folder in which our names are others', and its environment: some data and modules; or packages that PYTHONPATH puts first."""
    if request.param == "packages on the path":
        for name in NAMES:
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(STOP, encoding="utf-8")
        return tmp_path, {"PYTHONPATH": "."}
    for name in "experiments", "networks":
        (tmp_path / name).mkdir()
    for name in "callbacks", "rules", "datamodules":
        (tmp_path / f"{name}.py").write_text(STOP, encoding="utf-8")
    return tmp_path, {}


def finished(done) -> None:
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_run(installed, place):
    folder, more = place
    finished(installed.run("rhm", *FIT, *CPU, "--run_dir=runs/a", cwd=folder, **more))
    assert (folder / "runs/a/results.json").exists()


def test_replicas_that_are_spread(installed, place):
    folder, more = place
    ranks = ["--data.seeds=[0,1]", "--spread_replicas=true", "--trainer.devices=2", "--run_dir=a"]
    finished(installed.run("rhm", *FIT, *CPU, *ranks, cwd=folder, **more))
    assert json.loads((folder / "a/results.json").read_text(encoding="utf-8"))["ranks"] == 2


def test_ranks_that_share_a_batch(installed, place):
    folder, more = place
    ranks = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    finished(installed.run("rhm", *FIT, *CPU, *ranks, "--run_dir=a", cwd=folder, **more))
    torchrun = ["python", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "rhm"]
    finished(installed.run(*torchrun, *FIT, *CPU, *ranks, "--run_dir=b", cwd=folder, **more))
    assert (folder / "a/results.json").exists() and (folder / "b/results.json").exists()


def test_a_study_with_two_workers_and_a_rule_of_ones_own(installed, place):
    folder, more = place
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    (folder / "mine.yaml").write_text(installed.run("rhm", "configs", "rules/dfa", cwd=folder).stdout, encoding="utf-8")
    finished(installed.run("rhm", "sweep", "-c=study", "--run_dir=a", "--jobs=2", cwd=folder, **more))
    finished(installed.run("rhm", "report", "a", cwd=folder, **more))
    assert "mine" in (folder / "a/report/results.csv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "place", ["data and modules"], indirect=True
)  # a package that Python finds first is what a script imports
def test_a_script_beside_folders_of_data_or_modules(installed, place):
    folder, _ = place
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    finished(installed.run("python", "script.py", cwd=folder))


@pytest.mark.parametrize(
    "command", [["rules"], ["demo", "--max_steps=10"], ["sweep", "-c", "studies/depth", "--quick", "--dry-run"]]
)
def test_a_command_in_an_empty_folder(installed, tmp_path: Path, command):
    finished(installed.run("rhm", *command, cwd=tmp_path))

"""Small studies, swept in this process, and sweeps whose runs are made up."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
import study_helpers
import yaml
from optuna.storages import InMemoryStorage

from experiments.cli import main
from experiments.study.grid import expand
from experiments.study.search import Tuner
from experiments.study.study import Rule, Search, Sizes, Study

TINY = {
    "question": "Does it run?",
    "rules": ["backprop"],
    "tasks": [{"v": 4, "n": 4, "m": 2, "L": 3}],
    "sizes": {"multiples": [0.5, 2], "unit": "n m^L"},
    "seeds": [0, 1],
    "settings": {"model.network.width": 8, "data.batch_size": 16, "trainer.accelerator": "cpu", "checkpoint_every": 20},
    "steps": {"least": 6, "most": 6},
    "refine": 0,
    "test_size": 64,
}


def write(path: Path, **changes) -> str:
    path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False), encoding="utf-8")
    return f"-c={path}"


def sweep(*args: str) -> None:
    main(["sweep", *args, "--launcher=debug"] if not any(a.startswith("--launcher") for a in args) else ["sweep", *args])


def results(folder: Path) -> dict[str, dict]:
    """Results of a study's runs without times."""
    found = {}
    for path in sorted((folder / "runs").rglob("results.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = {k: v for k, v in content.items() if k not in ("seconds", "samples_per_second")}
        found[str(path.parent.relative_to(folder / "runs"))] = kept
    return found


class MadeUp:
    """Stands for ``fit``: accuracies by learning rate, and runs that fail or are interrupted by name.

    Attributes:
        made: names of the runs made, in order.
        fails, interrupts: ends of names.
        accuracy: of a learning rate.
    """

    def __init__(self, monkeypatch):
        self.made: list[str] = []
        self.fails: set[str] = set()
        self.interrupts: set[str] = set()
        self.accuracy = {}
        monkeypatch.setattr("experiments.study.make.make_run", self)

    def __call__(self, args, folder, more_callbacks):
        name = folder.split("/runs/")[1]
        if any(name.endswith(end) for end in self.interrupts):
            raise KeyboardInterrupt
        if any(name.endswith(end) for end in self.fails):
            raise RuntimeError(f"no memory for {name}")
        self.made.append(name)
        values = dict(argument.lstrip("-").split("=", 1) for argument in args)
        rate = float(values.get("model.optimizer.lr", "nan"))
        optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": rate}}
        config = {"data": {"init_args": {"pairs": None}}, "model": {"init_args": {"optimizer": optimizer}}}
        path = Path(folder)
        path.mkdir(parents=True)
        (path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        sizes, seeds = json.loads(values["data.train_size"]), json.loads(values["data.seeds"])
        run = expand(Study([Rule("backprop")], TINY["tasks"], Sizes([8])))[0][0].run("grid", sizes, seeds, {})
        content = study_helpers.results(run, lambda run, task, size, rng: self.accuracy.get(rate, 0.9) * (size > 10))
        (path / "results.json").write_text(json.dumps(content), encoding="utf-8")


SEARCHED = {"search": {"trials": 2, "settings": {"model.optimizer.lr": [0.1, 0.2]}}}
GROUP = "backprop/v4_n4_m2_s2_L3"
SEARCH = "backprop--v4_n4_m2_s2_L3"
"""The name of its search."""


def rates(folder: Path) -> dict[str, float]:
    """Learning rate of each run."""
    configs = {
        path.parent.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in (folder / "runs").rglob("config.yaml")
    }
    return {name: config["model"]["init_args"]["optimizer"]["init_args"]["lr"] for name, config in configs.items()}


def drawn() -> dict[int, float]:
    """The rate of each trial of ``SEARCHED``, in whatever order Optuna draws them."""
    search = Search(SEARCHED["search"]["settings"], SEARCHED["search"]["trials"])
    combination = expand(Study([Rule("backprop")], TINY["tasks"], Sizes([8]), search=search))[0][0]
    tuner = Tuner(combination, InMemoryStorage())
    tuner.begin(1)
    return {number + 1: settings["model.optimizer.lr"] for number, settings in tuner.settings.items()}


def chosen(folder: Path) -> dict:
    """Settings that were chosen for the rule and task of ``GROUP``."""
    return json.loads((folder / "chosen.json").read_text(encoding="utf-8"))[SEARCH]["settings"]


def wait_for(condition, process=None) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.02)


def nobody_is_left(folder: Path) -> bool:
    """Whether no process has the folder in its command, soon."""
    for _ in range(100):
        if subprocess.run(["pgrep", "-f", str(folder)], stdout=subprocess.DEVNULL, check=False).returncode == 1:
            return True
        time.sleep(0.1)
    return False


def refused(capsys, *args: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["sweep", *args])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and err.count("\n") == 1 and "Traceback" not in err, err
    return err.strip()

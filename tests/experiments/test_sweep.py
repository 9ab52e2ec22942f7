"""Studies: what they expand to, how they are run, stopped and gone on with, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import study_helpers
import yaml

from experiments.cli import main
from experiments.study import Rule, Search, Sizes, Steps, Study, cell_label, crossed, draw, expand, slug
from experiments.sweep import _fitting
from rhm import Task

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "configs" / "studies").glob("*.yaml"))
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
    path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
    return f"-c={path}"


def sweep(*args: str) -> None:
    main(["sweep", *args, "--launcher=debug"] if not any(a.startswith("--launcher") for a in args) else ["sweep", *args])


def results(folder: Path) -> dict[str, dict]:
    """Results of a study's runs without times."""
    found = {}
    for path in sorted((folder / "runs").rglob("results.json")):
        content = json.loads(path.read_text())
        kept = {k: v for k, v in content.items() if k not in ("seconds", "samples_per_second")}
        found[str(path.parent.relative_to(folder / "runs"))] = kept
    return found


# -------------------------------------------------------------------- what a study expands to


def test_sizes_follow_the_task():
    task = Task(8, 8, 4, 2, 3)
    assert Sizes([0.5, 1, 2]).of(task) == [1, 2]  # a half is rounded to 0, which is under one string
    assert Sizes([0.25, 1, 4], "n m^L").of(task) == [128, 512, 2048]
    assert Sizes([0.5, 2], "v m^3").of(Task(8, 8, 4, 2, 7)) == [256, 1024]
    assert Sizes([1, 2], "n m").of(task) == [32, 64]
    assert Sizes([1, 2, 4, 8], "n m^L", least=600, most=2048).of(task) == [1024, 2048]


def test_lists_within_an_entry_are_crossed_and_entries_follow_one_another():
    assert crossed([{"m": [2, 3], "L": [2, 4]}, {"m": 5}]) == [
        {"m": 2, "L": 2},
        {"m": 2, "L": 4},
        {"m": 3, "L": 2},
        {"m": 3, "L": 4},
        {"m": 5},
    ]


def test_settings_are_told_in_short_only_where_that_says_which_they_are():
    assert cell_label({"model.network": "networks.DenseNetwork", "model.network.width": 8}) == "network=DenseNetwork, width=8"
    two = {"model.network.width": 64, "model.readout.width": 32}
    assert cell_label(two) == "model.network.width=64, model.readout.width=32"
    assert cell_label({"x.lr": "0.5"}) == "lr=0.5" and cell_label({"x.lr": "1.5"}) == "lr=1.5"
    long = [slug(f"betas={'0.9 ' * 50}{end}") for end in "ab"] + [slug(f"{'é' * 100}{end}") for end in "ab"]
    assert len(set(long)) == 4 and all(len(name.encode()) <= 80 for name in long)
    assert slug("network=DenseNetwork, width=8") == "network=DenseNetwork_width=8"


def test_a_task_that_is_given_twice_is_one():
    found = expand(Study([Rule("backprop")], [{"L": 3}, {"L": [2, 3]}], Sizes([64])))[0]
    assert [c.task.L for c in found] == [3, 2]


def test_a_rule_that_no_task_is_left_for_is_named():
    study = Study([Rule("backprop"), Rule("dfa", only={"L": [9]})], [{"L": 3}], Sizes([64]))
    assert [reason for reason in expand(study)[1] if "dfa" in reason and "rules.only={'L': [9]}" in reason]


def test_more_labels_than_training_strings_are_left_out():
    study = Study([Rule("lpl")], [{}], Sizes([16, 2048, 4096]), vary="label_size", settings={"data.train_size": 2048})
    found, skipped = expand(study)
    assert found[0].sizes == [16, 2048] and "4,096 label_size" in skipped[0] and "data.train_size=2,048" in skipped[0]


def test_rules_tasks_and_cells_are_crossed_and_what_cannot_be_is_named():
    study = Study(
        [Rule("backprop"), Rule("lpl", only={"L": [3]}, grid=[{"model.network.width": 4}]), Rule("dfa", sizes=Sizes([10**9]))],
        [{"L": [2, 3]}, {"m": 9}],
        Sizes([64, 400]),
        grid=[{"model.network.width": [8, 16]}],
    )
    found, skipped = expand(study)
    assert [c.name for c in found] == [
        "backprop/v8_n8_m4_s2_L2/width=8",
        "backprop/v8_n8_m4_s2_L2/width=16",
        "backprop/v8_n8_m4_s2_L3/width=8",
        "backprop/v8_n8_m4_s2_L3/width=16",
        "lpl/v8_n8_m4_s2_L3/width=4",
    ]
    assert found[0].sizes == [64] and found[2].sizes == [64, 400]  # 512 strings at L = 2, of which 128 are for tests
    assert any("400" in reason and "512 strings" in reason for reason in skipped)
    assert any("m <= 8" in reason for reason in skipped) and any("1,000,000,000" in reason for reason in skipped)


def test_a_run_has_all_sizes_and_seeds_as_replicas_and_the_same_length_for_all():
    study = Study(
        [Rule("backprop", settings={"model.clip": 1.0})], [{}], Sizes([256, 1024]), seeds=[3, 4], steps=Steps(10, 5000, 20)
    )
    combination = expand(study)[0][0]
    run = combination.run("grid", combination.sizes, study.seeds, {"model.optimizer.lr": 0.1})
    assert {"--data.train_size=[256, 1024]", "--data.seeds=[3, 4]", "--model.clip=1.0", "--model.optimizer.lr=0.1"} <= set(
        run.args
    )
    assert run.steps == 160 and "--trainer.max_steps=160" in run.args  # 20 epochs of 1,024 strings in batches of 128
    assert combination.run("refined-1", [512], study.seeds, {}).steps == 160


def test_label_sizes_can_be_varied_instead():
    study = Study(
        [Rule("sibling_contrastive"), Rule("backprop", vary="train_size")],
        [{}],
        Sizes([16, 64]),
        vary="label_size",
        settings={"data.train_size": 1024},
        steps=Steps(1, 5000, 10),
    )
    siblings, backprop = (c.run("grid", c.sizes, [0], {}) for c in expand(study)[0])
    assert {"--data.train_size=1024", "--data.label_size=[16, 64]"} <= set(siblings.args) and siblings.steps == 80
    assert "--data.train_size=[16, 64]" in backprop.args and not any("label_size" in a for a in backprop.args)


def test_every_rule_has_the_same_number_of_trials_all_different():
    grid = {"model.optimizer.lr": [1, 2, 3], "model.clip": [4, 5]}
    trials = draw(grid, 4)
    assert len(trials) == 4 == len({str(t) for t in trials}) and draw(grid, 4) == trials
    assert len(draw(grid, 100)) == 6
    study = Study(
        [Rule("backprop"), Rule("dfa", search={"model.feedback_scale": [1, 2, 3]})], [{}], Sizes([64]), search=Search(grid, 2)
    )
    assert [len(c.trials()) for c in expand(study)[0]] == [2, 2]


@pytest.mark.parametrize("quick", [pytest.param(False, marks=pytest.mark.chaos), True])
@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_the_studies_that_are_shipped_can_be_run(path, quick, tmp_path, monkeypatch):
    found = {}
    monkeypatch.setattr("experiments.cli.sweep", lambda study, *args: found.update(study=study))
    main(["sweep", f"-c={path}", "--run_dir=nowhere", *(["--quick"] if quick else [])])
    study = found["study"]
    study.check()
    combinations, skipped = expand(study)
    assert all("strings" in reason for reason in skipped), skipped
    small = [
        replace(c, cell={key: 4 if key.endswith("width") else value for key, value in c.cell.items()}) for c in combinations
    ]
    one_each = {(c.rule.label, str(c.cell)): c for c in reversed(small)}
    reasons: list[str] = []
    _fitting(list(one_each.values()), reasons)
    assert not reasons
    assert study.search is not None and not set(study.search.seeds) & set(study.seeds) and study.question


# -------------------------------------------------------------------- a study is run


def test_a_study_searches_trains_refines_and_does_nothing_twice(tmp_path, capsys):
    changes = {"search": {"trials": 2, "settings": {"model.optimizer.lr": [0.001, 0.01]}}, "refine": 1}
    study, run_dir = write(tmp_path / "s.yaml", **changes), f"--run_dir={tmp_path / 'a'}"
    sweep(study, run_dir, "--threshold=0.95")  # of the chance error: 16 strings may well be enough, 64 not
    out = capsys.readouterr().out
    assert "P*" in out and "rhm report" in out
    found = results(tmp_path / "a")
    group = "backprop/v4_n4_m2_s2_L3"
    trials = [found[f"{group}/search-{i}"] for i in (1, 2)]
    assert all({r["seed"] for r in trial["replicas"]} == {100} for trial in trials)
    assert {r["seed"] for r in found[f"{group}/grid"]["replicas"]} == {0, 1}
    mean = [sum(r["test_accuracy"] for r in trial["replicas"]) for trial in trials]
    rates = [yaml.safe_load((tmp_path / f"a/runs/{group}/search-{i}/config.yaml").read_text()) for i in (1, 2)]
    best = rates[mean.index(max(mean))]["model"]
    assert yaml.safe_load((tmp_path / "a/chosen/backprop--v4_n4_m2_s2_L3.yaml").read_text())["model"] == best
    assert yaml.safe_load((tmp_path / f"a/runs/{group}/grid/config.yaml").read_text())["model"] == best
    assert not list((tmp_path / "a").rglob("*.ckpt")) and not list((tmp_path / "a/jobs").iterdir())
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "a/runs").rglob("*")}
    sweep(study, run_dir, "--threshold=0.95")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "a/runs").rglob("*")} == before


def test_every_setting_that_was_searched_is_chosen(tmp_path):
    """Also one that the study itself sets, to another value."""
    settings = {"data.batch_size": [4], "trainer.log_every_n_steps": [3], "model.optimizer.lr": [0.02], "checkpoint_every": [7]}
    study = write(tmp_path / "s.yaml", search={"trials": 1, "settings": settings})
    sweep(study, f"--run_dir={tmp_path / 'a'}")
    chosen = yaml.safe_load((tmp_path / "a/chosen/backprop--v4_n4_m2_s2_L3.yaml").read_text())
    for config in chosen, yaml.safe_load((tmp_path / "a/runs" / GROUP / "grid/config.yaml").read_text()):
        assert config["data"]["init_args"]["batch_size"] == 4 and config["checkpoint_every"] == 7
        assert config["trainer"]["log_every_n_steps"] == 3
        assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.02


def test_a_size_between_the_last_that_fails_and_the_first_that_passes_is_tried(tmp_path, monkeypatch):
    """Runs that are made up: the error of a size is that of a curve which crosses between 16 and 256."""

    def made_up(args, folder, more_callbacks):
        from study_helpers import results as content

        values = dict(argument.lstrip("-").split("=", 1) for argument in args)
        sizes, seeds = json.loads(values["data.train_size"]), json.loads(values["data.seeds"])
        tried.append(sizes)
        run = expand(found)[0][0].run("grid", sizes, seeds, {})
        path = Path(folder) / "results.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(content(run, lambda run, task, size, rng: 1 - 0.9 * (size < 50))))

    tried: list[list[int]] = []
    found = Study([Rule("backprop")], [{}], Sizes([16, 256]))
    monkeypatch.setattr("experiments.sweep.fit", made_up)
    sweep(write(tmp_path / "s.yaml", tasks=[{}], sizes={"multiples": [16, 256]}, refine=3), f"--run_dir={tmp_path / 'a'}")
    assert tried == [[16, 256], [64], [32], [45]]


def test_failed_runs_are_listed_and_repeated_only_when_asked(tmp_path, capsys):
    study, run_dir = write(tmp_path / "s.yaml", rules=["backprop", "dfa"]), f"--run_dir={tmp_path / 'a'}"
    failing = ["--settings={'model.network.width': 8, 'trainer.accelerator': gpuu}", f"--run_dir={tmp_path / 'f'}"]
    sweep(study, *failing)
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("failed: ") == 2 and "gpuu" in out and "--retry" in out
    failed = json.loads((tmp_path / "f/failed.json").read_text())
    assert set(failed) == {f"{rule}/v4_n4_m2_s2_L3/grid" for rule in ("backprop", "dfa")}
    sweep(study, run_dir)
    (tmp_path / "a/failed.json").write_text(json.dumps({"dfa/v4_n4_m2_s2_L3/grid": "no memory"}))
    kept = results(tmp_path / "a")
    subprocess.run(["rm", "-r", str(tmp_path / "a/runs/dfa")], check=True)
    capsys.readouterr()
    sweep(study, run_dir)
    assert "no memory" in capsys.readouterr().out and list(results(tmp_path / "a")) == ["backprop/v4_n4_m2_s2_L3/grid"]
    sweep(study, run_dir, "--retry")
    assert "failed: " not in capsys.readouterr().out and results(tmp_path / "a") == kept


@pytest.mark.parametrize(
    ("signum", "group"), [(signal.SIGINT, True), pytest.param(signal.SIGTERM, False, marks=pytest.mark.chaos)]
)
def test_a_signal_ends_the_workers_too_and_a_second_start_goes_on_to_the_same_results(signum, group, tmp_path):
    """Ctrl-C in a terminal is for all processes of the group."""
    study = write(tmp_path / "s.yaml", rules=["backprop", "dfa"], steps={"least": 500, "most": 500})
    command = [sys.executable, "-m", "experiments.cli", "sweep", study, "--jobs=1", f"--run_dir={tmp_path / 'a'}"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    wait_for(lambda: list((tmp_path / "a").rglob("*.ckpt")), process)
    (os.killpg if group else os.kill)(process.pid, signum)
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signum and "the same command goes on" in err and "Traceback" not in err
    assert nobody_is_left(tmp_path / "a")
    assert len(results(tmp_path / "a")) < 2 or any(r["status"] != "finished" for r in results(tmp_path / "a").values())
    assert json.loads((tmp_path / "a/failed.json").read_text()) == {}
    if signum == signal.SIGINT:
        sweep(study, f"--run_dir={tmp_path / 'a'}")
        sweep(study, f"--run_dir={tmp_path / 'b'}")
        assert results(tmp_path / "a") == results(tmp_path / "b")
        assert all(r["status"] == "finished" for r in results(tmp_path / "a").values())


# -------------------------------------------------------------------- made-up runs: what a sweep makes of them


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
        monkeypatch.setattr("experiments.sweep.fit", self)

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
        (path / "config.yaml").write_text(yaml.safe_dump(config))
        sizes, seeds = json.loads(values["data.train_size"]), json.loads(values["data.seeds"])
        run = expand(Study([Rule("backprop")], TINY["tasks"], Sizes([8])))[0][0].run("grid", sizes, seeds, {})
        content = study_helpers.results(run, lambda run, task, size, rng: self.accuracy.get(rate, 0.9) * (size > 10))
        (path / "results.json").write_text(json.dumps(content))


SEARCHED = {"search": {"trials": 2, "settings": {"model.optimizer.lr": [0.1, 0.2]}}}
GROUP = "backprop/v4_n4_m2_s2_L3"


def rates(folder: Path) -> dict[str, float]:
    """Learning rate of each run."""
    configs = {path.parent.name: yaml.safe_load(path.read_text()) for path in (folder / "runs").rglob("config.yaml")}
    return {name: config["model"]["init_args"]["optimizer"]["init_args"]["lr"] for name, config in configs.items()}


def test_settings_once_chosen_stay_when_a_trial_that_had_failed_is_better(tmp_path, monkeypatch, capsys):
    runs = MadeUp(monkeypatch)
    study = write(tmp_path / "s.yaml", **SEARCHED, refine=1, sizes={"multiples": [8, 64]})
    tried = {i: c["model.optimizer.lr"] for i, c in enumerate(draw(SEARCHED["search"]["settings"], 2), 1)}
    runs.accuracy = {tried[1]: 0.91, tried[2]: 0.99}
    runs.fails = {"search-2", "refined-1"}
    sweep(study, f"--run_dir={tmp_path / 'a'}", "--threshold=0.2")
    note = "1 of 2 settings have finished"
    assert note in " ".join(capsys.readouterr().out.split())
    assert note in json.loads((tmp_path / "a/runs.json").read_text())["notes"][0]
    chosen = (tmp_path / "a/chosen/backprop--v4_n4_m2_s2_L3.yaml").read_text()
    runs.fails = set()
    sweep(study, f"--run_dir={tmp_path / 'a'}", "--threshold=0.2", "--retry")
    assert (tmp_path / "a/chosen/backprop--v4_n4_m2_s2_L3.yaml").read_text() == chosen
    kept = "search-2 is the best now"
    assert kept in " ".join(capsys.readouterr().out.split())
    main(["report", str(tmp_path / "a")])
    assert kept in (tmp_path / "a/report/index.html").read_text()
    assert rates(tmp_path / "a") == {"search-1": tried[1], "search-2": tried[2], "grid": tried[1], "refined-1": tried[1]}


def test_settings_are_chosen_again_while_no_run_has_them(tmp_path, monkeypatch):
    runs = MadeUp(monkeypatch)
    study = write(tmp_path / "s.yaml", **SEARCHED)
    tried = {i: c["model.optimizer.lr"] for i, c in enumerate(draw(SEARCHED["search"]["settings"], 2), 1)}
    runs.accuracy = {tried[1]: 0.91, tried[2]: 0.99}
    runs.fails = {"search-2", "grid"}
    sweep(study, f"--run_dir={tmp_path / 'a'}")
    runs.fails = set()
    sweep(study, f"--run_dir={tmp_path / 'a'}", "--retry")
    assert rates(tmp_path / "a")["grid"] == tried[2]


def test_without_a_trial_that_has_finished_nothing_is_trained_with_other_settings(tmp_path, monkeypatch):
    runs = MadeUp(monkeypatch)
    study = write(tmp_path / "s.yaml", **SEARCHED, rules=["backprop", "dfa"], refine=1)
    runs.fails = {f"{GROUP}/search-1", f"{GROUP}/search-2"}
    for _ in range(2):
        sweep(study, f"--run_dir={tmp_path / 'a'}")
        failed = json.loads((tmp_path / "a/failed.json").read_text())
        assert "none of the settings" in failed[f"{GROUP}/grid"] and f"{GROUP}/grid" not in runs.made
    sweep(study, f"--run_dir={tmp_path / 'a'}", "--retry")
    assert f"{GROUP}/grid" not in runs.made and runs.made.count("dfa/v4_n4_m2_s2_L3/grid") == 1
    runs.fails = set()
    sweep(study, f"--run_dir={tmp_path / 'a'}", "--retry")
    assert f"{GROUP}/grid" in runs.made and json.loads((tmp_path / "a/failed.json").read_text()) == {}


def test_an_interrupt_forgets_no_failure_and_a_retry_only_those_that_it_starts(tmp_path, monkeypatch, capsys):
    runs = MadeUp(monkeypatch)
    study, names = write(tmp_path / "s.yaml", rules=["backprop", "dfa", "drtp"]), ["backprop", "dfa", "drtp"]
    names = [f"{rule}/v4_n4_m2_s2_L3/grid" for rule in names]
    start = study, f"--run_dir={tmp_path / 'a'}"

    def failed() -> list[str]:
        return sorted(json.loads((tmp_path / "a/failed.json").read_text()))

    runs.fails, runs.interrupts = {names[0]}, {names[1]}
    with pytest.raises(SystemExit):
        sweep(*start)
    assert failed() == names[:1]
    runs.fails, runs.interrupts = set(names), set()
    sweep(*start)
    assert failed() == names
    runs.fails, runs.interrupts = set(), {names[1]}
    with pytest.raises(SystemExit):
        sweep(*start, "--retry")
    assert failed() == names[2:] and runs.made == names[:1]
    (tmp_path / "a/failed.json").write_text("[1")
    runs.interrupts = set()
    capsys.readouterr()
    sweep(*start)
    assert "failed.json cannot be read" in " ".join(capsys.readouterr().out.split()) and runs.made == names


# -------------------------------------------------------------------- processes

LAUNCH = """
import json, sys
from pathlib import Path
from experiments.launch import Job, Launcher, launch
from study_helpers import {function} as function
folder, failed = Path(sys.argv[1]), {{"b": "no memory"}}
try:
    launch([Job(name, function, (str(folder),)) for name in "ab"], folder, Launcher(jobs=1), "test", failed=failed)
finally:
    (folder / "failed.json").write_text(json.dumps(failed))
"""


def launched(function: str, folder: Path) -> subprocess.Popen:
    """Two jobs for one worker, started by a process in a group of its own."""
    folder.mkdir()
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCH.format(function=function), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/helpers'}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


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


@pytest.mark.chaos
@pytest.mark.parametrize(("signum", "group"), [(signal.SIGKILL, False), (signal.SIGINT, True)])
def test_no_worker_outlives_its_launch_even_if_it_ignores_interrupts(signum, group, tmp_path):
    process = launched("ignores_interrupts", tmp_path / "a")
    wait_for((tmp_path / "a/begun").exists, process)
    (os.killpg if group else os.kill)(process.pid, signum)
    process.communicate(timeout=60)
    assert nobody_is_left(tmp_path / "a")


@pytest.mark.chaos
def test_runs_that_no_worker_has_begun_have_not_failed(tmp_path):
    process = launched("ends_its_process", tmp_path / "a")
    err = process.communicate(timeout=300)[1]
    assert process.returncode == 1 and "1 of 2 runs were not begun" in err and "Traceback" not in err
    failed = json.loads((tmp_path / "a/failed.json").read_text())
    assert failed["a"].startswith("its worker ended") and failed["b"] == "no memory"


def test_a_run_that_another_process_makes_is_waited_for(tmp_path, monkeypatch):
    import fcntl

    from experiments.launch import LIVE_SECONDS, fit

    folder = tmp_path / "a/runs" / GROUP / "grid"
    folder.mkdir(parents=True)
    study = Study([Rule("backprop")], TINY["tasks"], Sizes(**TINY["sizes"]), **{k: TINY[k] for k in ("seeds", "settings")})
    run = expand(replace(study, steps=Steps(6, 6), test_size=64))[0][0].run("grid", [8, 32], [0, 1], {})
    waits = []
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def sleep(seconds):
            waits.append(seconds)
            if len(waits) == 2:
                lock.close()

        monkeypatch.setattr("experiments.launch.time", SimpleNamespace(sleep=sleep))
        fit(run.args, str(folder))
    assert waits == [LIVE_SECONDS] * 2
    assert json.loads((folder / "results.json").read_text())["status"] == "finished"


EMPTY = "#!/bin/sh\n"
SBATCH = """#!{python}
import os, re, subprocess, sys
text = open(sys.argv[-1]).read()
last = int(re.search(r"--array=0-(\\d+)", text)[1]) if "--array" in text else 0
common = dict(SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1", SLURM_NODEID="0", SLURM_PROCID="0", SLURM_LOCALID="0")
for i in range(last + 1):
    own = dict(SLURM_JOB_ID=str(70 + i), SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID=str(i)) if "--array" in text else dict(SLURM_JOB_ID="7")
    subprocess.Popen(["bash", sys.argv[-1]], env={{**os.environ, **common, **own}}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job 7")
"""


def slurm_that_runs_here(folder: Path, monkeypatch) -> None:
    """Programs named as those of Slurm: jobs start at once, in processes of this machine."""
    folder.mkdir()
    for name, text in {
        "sbatch": SBATCH.format(python=sys.executable),
        "sacct": EMPTY,
        "srun": EMPTY,
        "scancel": EMPTY,
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_local_processes_and_a_slurm_array_give_the_results_of_this_process(tmp_path, monkeypatch):
    study = write(tmp_path / "s.yaml", rules=["backprop", "dfa"])
    sweep(study, f"--run_dir={tmp_path / 'debug'}")
    monkeypatch.chdir(ROOT)
    sweep(study, f"--run_dir={tmp_path / 'local'}", "--launcher=local")
    slurm_that_runs_here(tmp_path / "bin", monkeypatch)
    sweep(study, f"--run_dir={tmp_path / 'slurm'}", "--launcher=slurm", "--slurm={use_srun: false}")
    found = results(tmp_path / "debug")
    assert len(found) == 2 and results(tmp_path / "local") == found == results(tmp_path / "slurm")


def test_a_ray_cluster_gives_the_results_of_this_process(tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    search = {"trials": 1, "settings": {"model.optimizer.lr": [0.01]}}
    study = write(tmp_path / "s.yaml", search=search, steps={"least": 10, "most": 10})
    sweep(study, f"--run_dir={tmp_path / 'debug'}")
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        sweep(study, f"--run_dir={tmp_path / 'ray'}", "--launcher=ray", "--jobs=1")
    finally:
        ray.shutdown()
    assert len(results(tmp_path / "ray")) == 2 and results(tmp_path / "ray") == results(tmp_path / "debug")


def test_hopeless_settings_are_stopped_early_within_their_own_group():
    pytest.importorskip("ray")
    from types import SimpleNamespace

    from experiments.launch_ray import GroupASHA

    scheduler = GroupASHA()

    def report(trial, accuracy):
        return scheduler.on_trial_result(None, trial, {"accuracy": accuracy, "step": 20, "training_iteration": 1})

    def trials(group, count):
        made = [SimpleNamespace(trial_id=f"{group}{i}", config={"group": group, "steps": 100}) for i in range(count)]
        for trial in made:
            scheduler.on_trial_add(None, trial)
        return made

    good, bad = trials("good", 3), trials("bad", 3)
    assert [report(trial, accuracy) for trial, accuracy in zip(good, (0.9, 0.5, 0.95), strict=True)] == [
        "CONTINUE",
        "STOP",
        "CONTINUE",
    ]
    assert [report(trial, accuracy) for trial, accuracy in zip(bad, (0.2, 0.1, 0.3), strict=True)] == [
        "CONTINUE",
        "STOP",
        "CONTINUE",
    ]


def test_a_requeued_slurm_job_goes_on_with_what_it_had_taken_and_no_other_takes_it(tmp_path):
    from experiments.launch import take

    assert take(tmp_path / "run", "7") and not take(tmp_path / "run", "8") and take(tmp_path / "run", "7")
    (tmp_path / "run.done").touch()
    assert not take(tmp_path / "run", "7")


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = write(tmp_path / "s.yaml", rules=["backprop", "dfa"], refine=1, search={"trials": 3})
    sweep(study, "--dry-run", f"--run_dir={tmp_path / 'a'}")
    out = " ".join(capsys.readouterr().out.split())
    assert "10 runs at the most" in out and "min with" in out and "MB of disk" in out
    assert [p.name for p in tmp_path.iterdir()] == ["s.yaml"]


def test_an_estimate_scales_with_the_task_and_the_rule():
    from experiments.estimate import Cost, Costs

    study = Study([Rule("backprop"), Rule("dfa")], [{"L": [2, 3]}], Sizes([64]))
    combinations = expand(study)[0]
    costs = Costs.__new__(Costs)
    keys = {(c.rule.label, c.task.L): (c.rule.label, str(c.task), str(c.cell)) for c in combinations}
    costs.found = {keys["backprop", 2]: Cost(1, 10), keys["backprop", 3]: Cost(3, 20), keys["dfa", 2]: Cost(5, 40)}
    costs.reference = {key[1:]: key for (rule, _), key in keys.items() if rule == "backprop"}
    costs.first = {rule: (keys[rule, 2], *keys[rule, 2][1:]) for rule in ("backprop", "dfa")}
    by_name = {(c.rule.label, c.task.L): costs.of(c) for c in combinations}
    assert by_name["backprop", 3] == Cost(3, 20) and by_name["dfa", 3] == Cost(15, 80)


# -------------------------------------------------------------------- what is refused

REFUSED = {
    "no run": ({"rules": []}, ["study", "without a run"]),
    "no size fits": ({"sizes": {"multiples": [10**9]}}, ["study", "without a run", "strings"]),
    "too many runs": ({"max_runs": 1, "refine": 1}, ["study", "2 runs", "max_runs=1"]),
    "unknown rule": ({"rules": ["backprob"]}, ["rules", "backprob", "'backprop'"]),
    "unknown key": ({"sed": [1]}, ["sed", "unknown key"]),
    "unknown key of a rule": ({"rules": [{"rule": "backprop", "nam": "x"}]}, ["nam"]),
    "unknown parameter": ({"tasks": [{"l": 3}]}, ["tasks.l", "unknown key", "'L'"]),
    "unknown unit": ({"sizes": {"multiples": [1], "unit": "n m^2"}}, ["sizes.unit", "n m^2", "n m^L"]),
    "no multiples": ({"sizes": {"multiples": []}}, ["sizes.multiples", "[]"]),
    "two of a name": ({"rules": ["backprop", "backprop"]}, ["rules.name", "backprop"]),
    "seeds of the search": ({"search": {"seeds": [1]}}, ["search.seeds", "[1]", "[0, 1]"]),
    "no seeds": ({"seeds": []}, ["seeds", "[]"]),
    "threshold": ({"threshold": 1.5}, ["threshold", "1.5"]),
    "steps": ({"steps": {"least": 10, "most": 5}}, ["steps.most", "5"]),
    "vary": ({"vary": "width"}, ["vary", "width", "label_size"]),
    "wrong type": ({"refine": "much"}, ["refine", "much", "int"]),
    "two names, one folder": (
        {"rules": [{"rule": "backprop", "name": "A B"}, {"rule": "dfa", "name": "A_B"}]},
        ["rules.name", "'A B'", "'A_B'", "folders"],
    ),
    "a name outside": ({"rules": [{"rule": "backprop", "name": ".."}]}, ["rules.name", "'..'"]),
    "two cells, one folder": ({"grid": [{"model.clip": [0.5, "0.5"]}]}, ["grid", "0.5", "'0.5'", "clip=0.5"]),
    "two classes, one name": ({"grid": [{"model.network": ["a.Net", "b.Net"]}]}, ["grid", "a.Net", "b.Net"]),
    "a cell twice": ({"grid": [{"model.network.width": [8, 8]}]}, ["grid", "width=8"]),
    "no values": ({"grid": [{"model.network.width": []}]}, ["grid", "model.network.width", "[]"]),
    "no tasks": ({"tasks": [{"L": []}]}, ["tasks", "[]"]),
    "only others": ({"rules": [{"rule": "backprop", "only": {"L": [9]}}]}, ["rules.only", "[9]"]),
    "nothing to search": ({"search": {"settings": {}}}, ["search.settings", "{}"]),
    "nothing to search for a rule": ({"search": {}, "rules": [{"rule": "backprop", "search": {}}]}, ["rules.search", "{}"]),
    "a smaller budget": (
        {"search": {"trials": 3}, "rules": ["dfa", {"rule": "backprop", "search": {"model.clip": [1, 2, 2]}}]},
        ["search.trials", "3", "at most 2", "backprop"],
    ),
    "reference": ({"reference": "nobody"}, ["reference", "nobody", "backprop"]),
    "no epochs": ({"steps": {"epochs": 0}}, ["steps.epochs", "0"]),
    "a seed twice": ({"seeds": [0, 0]}, ["seeds", "[0, 0]", "different"]),
    "a task's parameter as a setting": ({"settings": {"data.L": 3}}, ["settings.data.L", "3", "tasks"]),
    "labels of an endless stream": ({"vary": "label_size", "settings": {"data.train_size": None}}, ["data.train_size", "None"]),
    "unknown setting": ({"settings": {"modle.x": 3}}, ["modle.x", "unknown key"]),
    "unknown setting of the trainer": ({"settings": {"trainer.max_stepz": 3}}, ["trainer.max_stepz", "max_steps"]),
    "unknown setting to search": ({"search": {"trials": 1, "settings": {"model.clipp": [1]}}}, ["model.clipp", "'clip'"]),
    "a setting that means something else": ({"settings": {"trainer.max_epochs": 3}}, ["trainer.max_epochs", "3"]),
    "unknown callback": ({"callbacks": ["Sensitivety"]}, ["trainer.callbacks", "Sensitivety"]),
    "a larger size beside the test strings": (
        {"settings": {"data.test_size": 460}},
        ["data.train_size", "64 with test_size 460", "512"],
    ),
    "a rule that no network fits": (
        {"settings": {"model.network": "DenseNetwork"}, "rules": ["sibling_contrastive"]},
        ["study", "SiblingPairs", "DenseNetwork"],
    ),
}


def refused(capsys, *args: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["sweep", *args])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and err.count("\n") == 1 and "Traceback" not in err, err
    return err.strip()


@pytest.mark.parametrize("case", REFUSED)
def test_a_study_that_cannot_be_is_refused_in_one_line_and_nothing_is_written(case, tmp_path, capsys):
    changes, words = REFUSED[case]
    line = refused(capsys, write(tmp_path / "s.yaml", **changes), f"--run_dir={tmp_path / 'a'}", "--launcher=debug")
    assert line.startswith("rhm: ") and all(word in line for word in words), line
    assert not (tmp_path / "a").exists()


def test_a_task_that_cannot_exist_is_skipped_with_its_reason_or_refused(tmp_path, capsys):
    study = write(tmp_path / "s.yaml", tasks=[{"v": 4, "n": 4, "m": [2, 5], "L": 3}])
    assert "m <= 4" in refused(capsys, study, f"--run_dir={tmp_path / 'a'}", "--strict", "--launcher=debug")
    sweep(study, f"--run_dir={tmp_path / 'a'}")
    out = " ".join(capsys.readouterr().out.split())
    assert "skipped: task v=4, n=4, m=5, L=3: m: got 5, allowed: m*v at most v**s, that is m <= 4" in out
    assert list(results(tmp_path / "a")) == ["backprop/v4_n4_m2_s2_L3/grid"]


def test_a_task_that_does_not_fit_takes_no_other_with_it():
    """There are 512 strings at L = 3 and 131,072 at L = 4."""
    study = Study(
        [Rule("backprop")],
        [{"v": 4, "n": 4, "m": 2, "L": [3, 4]}],
        Sizes([16]),
        settings={"data.test_size": 500, "model.network.width": 4},
        grid=[{"model.clip": [1.0, 2.0]}],
    )
    combinations, skipped = expand(study)
    kept = [c.name for c in _fitting(combinations, skipped)]
    assert kept == [f"backprop/v4_n4_m2_s2_L4/clip={clip}" for clip in (1.0, 2.0)]
    assert len(skipped) == 1 and skipped[0].startswith("backprop/v4_n4_m2_s2_L3/clip=1.0 and 1 like it: data.train_size")


def test_a_study_that_was_killed_in_its_first_moment_goes_on(tmp_path, monkeypatch):
    MadeUp(monkeypatch)
    (tmp_path / "a").mkdir()
    for name in ".study.yaml.77.part", ".lock":
        (tmp_path / "a" / name).touch()
    sweep(write(tmp_path / "s.yaml"), f"--run_dir={tmp_path / 'a'}")
    assert not list((tmp_path / "a").glob("*.part"))


def test_a_study_that_begins_in_the_folder_just_before_it_is_locked_is_not_overwritten(tmp_path, capsys, monkeypatch):
    MadeUp(monkeypatch)
    other = tmp_path / "a/study.yaml"
    monkeypatch.setattr("experiments.sweep.fcntl.flock", lambda *args: other.write_text("seeds: [5]"))
    line = refused(capsys, write(tmp_path / "s.yaml"), f"--run_dir={tmp_path / 'a'}", "--launcher=debug")
    assert "which holds a study" in line and other.read_text() == "seeds: [5]"


def test_two_studies_in_one_folder_two_sweeps_at_once_and_foreign_folders_are_refused(tmp_path, capsys):
    study, run_dir = write(tmp_path / "s.yaml"), f"--run_dir={tmp_path / 'a'}"
    sweep(study, run_dir)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*") if p.is_file() and p.name != ".lock"}
    capsys.readouterr()
    line = refused(capsys, study, run_dir, "--seeds=[5]", "--launcher=debug")
    assert "seeds=[5]" in line and "seeds=[0, 1]" in line
    many = json.dumps([{"rule": "backprop"}, *({"rule": "dfa", "name": f"rule {i}"} for i in range(20))])
    assert len(refused(capsys, study, run_dir, f"--rules={many}", "--launcher=debug")) < 400
    import fcntl

    with (tmp_path / "a/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "no other sweep" in refused(capsys, study, run_dir, "--launcher=debug")
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*") if p.is_file() and p.name != ".lock"}
    (tmp_path / "b").mkdir()
    (tmp_path / "b/thesis.txt").write_text("dear")
    assert "new, empty" in refused(capsys, study, f"--run_dir={tmp_path / 'b'}", "--launcher=debug")
    assert "file" in refused(capsys, study, f"--run_dir={tmp_path / 's.yaml'}", "--launcher=debug")
    assert os.listdir(tmp_path / "b") == ["thesis.txt"]


def test_launchers_that_are_not_there_are_refused(tmp_path, capsys, monkeypatch):
    study, run_dir = write(tmp_path / "s.yaml"), f"--run_dir={tmp_path / 'a'}"
    assert "one of local, slurm, ray, debug" in refused(capsys, study, run_dir, "--launcher=locl")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "ray.tune", raising=False)
    assert "rhm-local-learning[ray]" in refused(capsys, study, run_dir, "--launcher=ray")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "sbatch" in refused(capsys, study, run_dir, "--launcher=slurm")
    assert "jobs" in refused(capsys, study, run_dir, "--jobs=0")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-c=nowhere.yaml"], ["config", "nowhere.yaml"]),
        (["--run_dir=runs/x"], ["rules", "nothing"]),
        (["-c=S", "--quick", "--run_dir=runs/x"], ["quick"]),
        (["-c=S"], ["run_dir", "nothing"]),
        (["-c=S", "--quik", "--run_dir=runs/x"], ["quik", "unknown key"]),
    ],
)
def test_a_command_that_cannot_be_is_refused(args, words, tmp_path, capsys):
    write(tmp_path / "s.yaml")
    line = refused(capsys, *(a.replace("S", str(tmp_path / "s.yaml")) for a in args))
    assert all(word in line for word in words), line

"""A study is run, stopped, gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from sweeps import GROUP, SEARCHED, MadeUp, chosen, drawn, nobody_is_left, rates, refused, results, sweep, wait_for, write

from experiments.cli import main
from experiments.study.grid import expand
from experiments.study.job import NOTHING_CHOSEN
from experiments.study.study import Rule, Sizes, Study

ROOT = Path(__file__).parents[3]


def test_a_study_searches_trains_refines_and_does_nothing_twice(tmp_path, capsys):
    changes = {"search": {"trials": 2, "settings": {"model.optimizer.lr": [0.001, 0.01]}}, "refine": 1}
    study, run_dir = write(tmp_path / "s.yaml", **changes), f"--run_dir={tmp_path / 'a'}"
    sweep(study, run_dir, "--threshold=0.95")  # of the chance error: 16 strings may well be enough, 64 not
    out = capsys.readouterr().out
    assert "P*" in out and "rhm report" in out
    found = results(tmp_path / "a")
    group = "backprop/v4_n4_m2_s2_L3"
    trials = [found[f"{group}/search-{i}"] for i in (1, 2)]
    assert all({r["seed"] for r in trial["replicas"]} == {100, 101} for trial in trials)
    assert {r["seed"] for r in found[f"{group}/grid"]["replicas"]} == {0, 1}
    mean = [sum(r["test_accuracy"] for r in trial["replicas"]) for trial in trials]
    rates = [yaml.safe_load((tmp_path / f"a/runs/{group}/search-{i}/config.yaml").read_text()) for i in (1, 2)]
    best = rates[mean.index(max(mean))]["model"]
    assert chosen(tmp_path / "a") == {"model.optimizer.lr": best["init_args"]["optimizer"]["init_args"]["lr"]}
    assert yaml.safe_load((tmp_path / f"a/runs/{group}/grid/config.yaml").read_text())["model"] == best
    assert not list((tmp_path / "a").rglob("*.ckpt")) and not list((tmp_path / "a/jobs").iterdir())
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "a/runs").rglob("*")}
    sweep(study, run_dir, "--threshold=0.95")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "a/runs").rglob("*")} == before


def test_every_setting_that_was_searched_is_chosen(tmp_path):
    """Also one that the study itself sets, to another value."""
    settings = {"data.batch_size": [4], "trainer.log_every_n_steps": [3], "model.optimizer.lr": [0.02], "checkpoint_every": [7]}
    settings |= {
        "trainer.callbacks": [["CosineDecay"]],
        "model.network.bottleneck": ["v"],
        "model.network.activation": ["tanh"],
    }
    study = write(tmp_path / "s.yaml", search={"trials": 1, "settings": settings}, callbacks=["SynonymicSensitivity"])
    sweep(study, f"--run_dir={tmp_path / 'a'}")
    assert chosen(tmp_path / "a") == {key: value for key, (value,) in settings.items()}
    for stage in "search-1", "grid":
        config = yaml.safe_load((tmp_path / "a/runs" / GROUP / stage / "config.yaml").read_text())
        assert config["data"]["init_args"]["batch_size"] == 4 and config["checkpoint_every"] == 7
        assert config["trainer"]["log_every_n_steps"] == 3
        model = config["model"]["init_args"]
        assert model["optimizer"]["init_args"]["lr"] == 0.02
        assert {"bottleneck": "v", "activation": "tanh"}.items() <= model["network"]["init_args"].items()
        callbacks = [callback["class_path"].split(".")[-1] for callback in config["trainer"]["callbacks"]]
        assert callbacks == ["CosineDecay", "LayerwiseLinearProbe", *["SynonymicSensitivity"] * (stage == "grid")]


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
    monkeypatch.setattr("experiments.study.make.make_run", made_up)
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
    with pytest.raises(SystemExit) as end:
        sweep(study, *failing, "--strict")
    assert end.value.code == 1
    sweep(study, run_dir)
    (tmp_path / "a/failed.json").write_text(json.dumps({"dfa/v4_n4_m2_s2_L3/grid": "no memory"}))
    kept = results(tmp_path / "a")
    subprocess.run(["rm", "-r", str(tmp_path / "a/runs/dfa")], check=True)
    capsys.readouterr()
    sweep(study, run_dir)
    assert "no memory" in capsys.readouterr().out and list(results(tmp_path / "a")) == ["backprop/v4_n4_m2_s2_L3/grid"]
    sweep(study, run_dir, "--retry", "--strict")
    assert "failed: " not in capsys.readouterr().out and results(tmp_path / "a") == kept


@pytest.mark.chaos
@pytest.mark.parametrize(("signum", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
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


def test_settings_once_chosen_stay_when_a_trial_that_had_failed_is_better(tmp_path, monkeypatch, capsys):
    runs = MadeUp(monkeypatch)
    study = write(tmp_path / "s.yaml", **SEARCHED, refine=1, sizes={"multiples": [8, 64]})
    tried = drawn()
    runs.accuracy = {tried[1]: 0.91, tried[2]: 0.99}
    runs.fails = {"search-2", "refined-1"}
    sweep(study, f"--run_dir={tmp_path / 'a'}", "--threshold=0.2")
    note = "1 of 2 settings have failed"
    assert note in " ".join(capsys.readouterr().out.split())
    assert note in json.loads((tmp_path / "a/runs.json").read_text())["notes"][0]
    assert chosen(tmp_path / "a") == {"model.optimizer.lr": tried[1]}
    runs.fails = set()
    sweep(study, f"--run_dir={tmp_path / 'a'}", "--threshold=0.2", "--retry")
    assert chosen(tmp_path / "a") == {"model.optimizer.lr": tried[1]}
    kept = "search-2 is the best now"
    assert kept in " ".join(capsys.readouterr().out.split())
    main(["report", str(tmp_path / "a")])
    assert kept in (tmp_path / "a/report/index.html").read_text()
    assert rates(tmp_path / "a") == {"search-1": tried[1], "search-2": tried[2], "grid": tried[1], "refined-1": tried[1]}


def test_settings_are_chosen_again_while_no_run_has_them(tmp_path, monkeypatch):
    runs = MadeUp(monkeypatch)
    study = write(tmp_path / "s.yaml", **SEARCHED)
    tried = drawn()
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
        assert failed[f"{GROUP}/grid"]["kind"] == NOTHING_CHOSEN and f"{GROUP}/grid" not in runs.made
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


def test_a_task_that_cannot_exist_is_skipped_with_its_reason_or_refused(tmp_path, capsys):
    study = write(tmp_path / "s.yaml", tasks=[{"v": 4, "n": 4, "m": [2, 5], "L": 3}])
    assert "m <= 4" in refused(capsys, study, f"--run_dir={tmp_path / 'a'}", "--strict", "--launcher=debug")
    sweep(study, f"--run_dir={tmp_path / 'a'}")
    out = " ".join(capsys.readouterr().out.split())
    assert "skipped: task v=4, n=4, m=5, L=3: m: got 5, allowed: m*v at most v**s, that is m <= 4" in out
    assert list(results(tmp_path / "a")) == ["backprop/v4_n4_m2_s2_L3/grid"]

"""One run of many."""

from __future__ import annotations

import fcntl
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml
from sweeps import GROUP, TINY

from experiments.study.grid import expand
from experiments.study.make import LIVE_SECONDS, accuracies, make_run
from experiments.study.study import Rule, Sizes, Steps, Study


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), None, "high"])
def test_a_run_with_an_accuracy_that_is_no_number_is_never_the_best(bad, tmp_path):
    content = {"status": "finished", "replicas": [{"test_accuracy": 0.5}, {"test_accuracy": 0.25}]}
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert accuracies(tmp_path) == [0.5, 0.25]
    content["replicas"][1]["test_accuracy"] = bad
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert accuracies(tmp_path) is None


def test_a_run_that_another_process_makes_is_waited_for(tmp_path, monkeypatch):

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

        monkeypatch.setattr("experiments.study.make.time", SimpleNamespace(sleep=sleep))
        make_run(run.args, str(folder))
    assert waits == [LIVE_SECONDS] * 2
    assert json.loads((folder / "results.json").read_text())["status"] == "finished"


def test_a_run_of_a_study_keeps_the_callbacks_of_its_rules_file(tmp_path):
    study = Study([Rule("dfa")], TINY["tasks"], Sizes(**TINY["sizes"]), **{k: TINY[k] for k in ("seeds", "settings")})
    run = expand(replace(study, steps=Steps(2, 2), test_size=64))[0][0].run("grid", [8], [0], {})
    make_run(run.args, str(tmp_path / "run"), ["SynonymicSensitivity"])
    callbacks = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["trainer"]["callbacks"]
    names = [callback["class_path"].rpartition(".")[2] for callback in callbacks]
    assert names == ["CosineDecay", "LayerwiseLinearProbe", "SynonymicSensitivity"]

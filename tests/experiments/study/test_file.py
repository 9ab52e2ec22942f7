"""A study's file as arguments of the command line."""

from __future__ import annotations

import json

import pytest
import yaml

from experiments.settings import RULE_FILES
from experiments.study.file import study_settings
from experiments.study.grid import expand
from experiments.study.study import Rule, Sizes, Study
from rhm import InvalidInput


def test_all_stands_for_every_rule_that_has_no_entry_of_its_own(tmp_path):
    rules = [{"rule": "gevb", "name": "G"}, "all", "dfa"]
    (tmp_path / "s.yaml").write_text(yaml.safe_dump({"rules": rules, "quick": {"rules": ["dfa"]}}))
    (whole,) = (
        json.loads(argument.removeprefix("--config="))["rules"] for argument in study_settings([f"-c={tmp_path / 's.yaml'}"])
    )
    assert whole[0] == rules[0] and whole[-1] == {"rule": "dfa"}
    assert sorted(rule["rule"] for rule in whole) == sorted(path.stem for path in RULE_FILES.glob("*.yaml"))
    quick = study_settings(["--quick", f"-c={tmp_path / 's.yaml'}"])
    assert [json.loads(a.removeprefix("--config="))["rules"] for a in quick if a.startswith("--config")] == [[{"rule": "dfa"}]]


def test_a_rule_may_be_a_file_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("model: {class_path: Backprop}", encoding="utf-8")
    (tmp_path / "s.yaml").write_text(
        yaml.safe_dump({"rules": ["mine.yaml", {"rule": "mine.yaml", "name": "b"}]}), encoding="utf-8"
    )
    (given,) = study_settings(["-c=s.yaml"])
    monkeypatch.chdir("/")
    first, second = (Rule(**entry) for entry in json.loads(given.removeprefix("--config="))["rules"])
    assert (first.label, second.label) == ("mine", "b")
    study = Study([first], [{"v": 4, "n": 4, "m": 2, "s": 2, "L": 3}], Sizes([64]), seeds=[0])
    ((combination,), _) = expand(study)
    assert f"-c={tmp_path / 'mine.yaml'}" in combination.run("grid", [64], [0], {}, 10).args


@pytest.mark.parametrize("rule", ["nowhere.yaml", "backprob"])
def test_a_rule_that_is_neither_is_refused(rule):
    with pytest.raises(InvalidInput, match=f"rules: got {rule}, allowed: names of files in configs/rules, a YAML file"):
        Rule(rule)


@pytest.mark.parametrize("args", [["--rules=[backprop, dfa]"], ["--rules", "[backprop, dfa]"]])
def test_names_of_rules_on_the_command_line_are_entries(args):
    assert study_settings(args) == ['--rules=[{"rule": "backprop"}, {"rule": "dfa"}]']


def test_settings_given_one_by_one_are_put_among_those_of_the_file(tmp_path):
    (tmp_path / "s.yaml").write_text("settings: {model.clip: 1.0, data.probe_size: 64}")
    file = f"-c={tmp_path / 's.yaml'}"
    own = ["--settings.model.clip=null", "--settings.model.network.width", "32"]
    for args in ([file, *own], [*own, file]):
        given = study_settings(args)[-1].removeprefix("--settings=")
        assert json.loads(given) == {"model.clip": None, "data.probe_size": 64, "model.network.width": 32}
    for whole in (["--settings={model.seed: 3}"], ["--settings", "{model.seed: 3}"]):
        given = study_settings([file, *whole, own[0]])[-1].removeprefix("--settings=")
        assert json.loads(given) == {"model.seed": 3, "model.clip": None}

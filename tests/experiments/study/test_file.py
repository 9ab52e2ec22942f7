"""A study's file as arguments of the command line."""

from __future__ import annotations

import json

import yaml

from experiments.settings import RULE_FILES
from experiments.study.file import study_settings


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

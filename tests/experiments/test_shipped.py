"""Settings files that come with the package are found by name from any folder; one's own go first."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import SMALL, refused, rhm

from experiments.settings import RULE_FILES, instantiate
from experiments.shipped import find, names, with_files
from rhm import InvalidInput
from rules.backprop import Backprop

ROOT = Path(__file__).parents[2]
BACKPROP = RULE_FILES / "backprop.yaml"
OWN = "model:\n  class_path: Backprop\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_every_file_has_a_name():
    there = {str(path.relative_to(ROOT / "configs")) for path in (ROOT / "configs").rglob("*.*")}
    assert {name if "." in name else f"{name}.yaml" for name in names()} == there


@pytest.mark.parametrize("name", ["rules/backprop", "rules/backprop.yaml", "configs/rules/backprop.yaml", "./rules/backprop"])
def test_a_name_is_found_from_another_folder(name):
    assert find(name) == (BACKPROP, "")


def test_a_file_of_ones_own_wins_and_a_note_says_so(tmp_path):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/backprop.yaml").write_text(OWN, encoding="utf-8")
    for name in "rules/backprop", "rules/backprop.yaml":
        path, note = find(name)
        assert path == tmp_path / "rules/backprop.yaml" and "rhm configs rules/backprop" in note
        assert find(str(path)) == (path, ""), "the ranks of a run say it again"
    assert find("configs/rules/backprop.yaml") == (BACKPROP, ""), "another path than that of one's own"
    (tmp_path / "mine.yaml").write_text(OWN, encoding="utf-8")
    assert find("mine") == find("mine.yaml") == (Path("mine.yaml"), "")


def test_a_folder_of_that_name_is_no_file(tmp_path):
    (tmp_path / "rules/backprop").mkdir(parents=True)
    assert find("rules/backprop") == (BACKPROP, "")


def test_the_file_itself_is_nobodys_own(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert find("configs/rules/backprop.yaml") == (Path("configs/rules/backprop.yaml"), "")


def test_names_stand_after_the_option_or_within_it():
    given = ["-c", "rules/dfa", "--config=rules/dfa", "--config", "rules/dfa", "-c=rules/dfa", "--run_dir", "rules/dfa"]
    file = str(RULE_FILES / "dfa.yaml")
    assert with_files(given)[0] == ["-c", file, f"--config={file}", "--config", file, f"-c={file}", "--run_dir", "rules/dfa"]


@pytest.mark.parametrize("typed", ["data: {L: 3}", '{"data": {"L": 3}}', ""])
def test_settings_that_are_typed_in_place_of_a_name_stay(typed):
    assert with_files([f"-c={typed}"]) == ([f"-c={typed}"], [])


def test_a_name_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(InvalidInput, match="config: got rules/backprob, .*`rhm configs`.*; did you mean 'rules/backprop'"):
        with_files(["-c", "rules/backprob"])


@pytest.mark.parametrize("command", ["fit", "sweep"])
def test_a_command_refuses_it_in_one_line(command, capsys):
    assert "did you mean 'rules/dfa'" in refused(capsys, command, "-c=rules/dfaa", "--run_dir=a")


def test_a_command_takes_ones_own_and_says_so(tmp_path, capsys):
    rhm("check", "-c=rules/backprop", *SMALL)
    assert capsys.readouterr().err == ""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/backprop.yaml").write_text(OWN, encoding="utf-8")
    rhm("check", "-c=rules/backprop", *SMALL)
    assert capsys.readouterr().err.startswith("rhm: note: rules/backprop.yaml is a file of your own")


def test_python_finds_them_too():
    assert isinstance(instantiate(["--config=rules/backprop"]), Backprop)


def test_they_are_listed_with_what_they_say_of_themselves(capsys):
    rhm("configs")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(names()) and all(len(line.split()) > 1 for line in lines)
    assert any(line.split() == ["rules/dfa", "DirectFeedbackAlignment"] for line in lines)


def test_one_is_printed_as_it_is(capsys):
    rhm("configs", "rules/backprop")
    assert capsys.readouterr().out == BACKPROP.read_text(encoding="utf-8")
    assert "did you mean 'rules/dfa'" in refused(capsys, "configs", "rules/dfaa")

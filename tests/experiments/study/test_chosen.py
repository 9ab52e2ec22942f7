"""What searches have chosen is kept, and taken where another study asks the same."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml
from sweeps import GROUP, SEARCH, SEARCHED, MadeUp, drawn, rates, refused, sweep, write

from experiments.cli import main
from experiments.study.grid import expand
from experiments.study.study import Rule, Search, Sizes, Steps, Study


def made(runs):
    """Runs that were made since this was asked last."""
    names = sorted(runs.made)
    runs.made.clear()
    return names


@pytest.fixture
def searched(tmp_path, monkeypatch, no_pictures):
    """Runs that are made up, and the file of a report of a study with a search."""
    runs = MadeUp(monkeypatch)
    runs.accuracy = {drawn()[1]: 0.91, drawn()[2]: 0.99}
    sweep(write(tmp_path / "s.yaml", **SEARCHED), f"--run_dir={tmp_path / 'a'}")
    main(["report", str(tmp_path / "a")])
    assert made(runs) == [f"{GROUP}/grid", f"{GROUP}/search-1", f"{GROUP}/search-2"]
    return runs, tmp_path / "a/report/chosen.json"


def test_a_search_that_was_made_before_is_not_made_again(searched, tmp_path, capsys):
    runs, file = searched
    study, run_dir = write(tmp_path / "s.yaml", **SEARCHED, seeds=[7, 8], refine=1), f"--run_dir={tmp_path / 'b'}"
    capsys.readouterr()
    sweep(study, run_dir, f"--chosen={file}")
    assert made(runs) == [f"{GROUP}/grid"] and rates(tmp_path / "b") == {"grid": drawn()[2]}
    note = f"1 of 1 searches were made before: what {file} says that they have chosen"
    out = " ".join(capsys.readouterr().out.split())
    assert note in out and "stage 1 of 2" in out
    main(["report", str(tmp_path / "b")])
    page = (tmp_path / "b/report/index.html").read_text()
    assert note in page and "Settings chosen by the search" in page
    before = json.loads(file.read_text())[SEARCH]
    assert (tmp_path / "b/report/chosen.json").read_text() == file.read_text()  # so that a page may be made again in its place
    assert len(before["trials"]) == 2 and before["trials"][1]["accuracies"] == {"6": 0.99}
    sweep(study, run_dir)  # goes on with what it had taken, without being told again
    assert made(runs) == []
    sweep(study, f"--run_dir={tmp_path / 'c'}", f"--chosen={tmp_path / 'b/chosen.json'}")  # of one that had taken it itself
    assert made(runs) == [f"{GROUP}/grid"]
    assert json.loads((tmp_path / "c/chosen.json").read_text())[SEARCH]["taken_from"] == str(file)


def test_only_what_was_not_asked_before_is_searched(searched, tmp_path, capsys):
    runs, file = searched
    two = write(tmp_path / "s.yaml", **SEARCHED, rules=["dfa", {"rule": "backprop", "name": "mine"}])
    main(["sweep", two, f"--chosen={file}", "--dry-run"])
    out = " ".join(capsys.readouterr().out.split())
    assert "4 runs at the most" in out and "1 of 2 searches were made before" in out
    sweep(two, f"--run_dir={tmp_path / 'b'}", f"--chosen={file}")
    dfa, mine = "dfa/v4_n4_m2_s2_L3", "mine/v4_n4_m2_s2_L3"
    assert made(runs) == [f"{dfa}/grid", f"{dfa}/search-1", f"{dfa}/search-2", f"{mine}/grid"]
    other = {"trials": 2, "settings": {"model.optimizer.lr": [0.1, 0.3]}}
    sweep(write(tmp_path / "s.yaml", search=other), f"--run_dir={tmp_path / 'c'}", f"--chosen={file}")
    assert made(runs) == [f"{GROUP}/grid", f"{GROUP}/search-1", f"{GROUP}/search-2"]


def test_what_was_searched_here_stays(searched, tmp_path, capsys):
    runs, file = searched
    content = json.loads(file.read_text())
    content[SEARCH]["settings"] = {"model.optimizer.lr": drawn()[1]}
    file.write_text(json.dumps(content))
    before = (tmp_path / "a/chosen.json").read_text()
    capsys.readouterr()
    sweep(write(tmp_path / "s.yaml", **SEARCHED), f"--run_dir={tmp_path / 'a'}", f"--chosen={file}")
    assert made(runs) == [] and (tmp_path / "a/chosen.json").read_text() == before
    assert "made before" not in capsys.readouterr().out


def test_failures_of_a_search_are_forgotten_where_its_answer_is_taken(searched, tmp_path, capsys):
    runs, file = searched
    runs.fails = {"search-1", "search-2"}
    study, run_dir = write(tmp_path / "s.yaml", **SEARCHED), f"--run_dir={tmp_path / 'b'}"
    sweep(study, run_dir)
    assert len(json.loads((tmp_path / "b/failed.json").read_text())) == 3
    capsys.readouterr()
    sweep(study, run_dir, f"--chosen={file}")
    assert json.loads((tmp_path / "b/failed.json").read_text()) == {} and "failed" not in capsys.readouterr().out
    assert made(runs) == [f"{GROUP}/grid"]


def test_a_search_whose_rules_file_has_changed_answers_nothing(tmp_path, monkeypatch, no_pictures, capsys):
    """Its runs are those of the old file, whatever the file says when they are read."""
    runs = MadeUp(monkeypatch)
    content = yaml.safe_load(Rule("backprop").file.read_text())
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    study = write(tmp_path / "s.yaml", **SEARCHED, rules=[str(tmp_path / "mine.yaml")])
    sweep(study, f"--run_dir={tmp_path / 'a'}")
    content["model"]["init_args"] |= {"clip": 3.0}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
    made(runs)
    sweep(study, f"--run_dir={tmp_path / 'a'}")
    assert made(runs) == [] and "has changed since it began" in " ".join(capsys.readouterr().out.split())
    (entry,) = json.loads((tmp_path / "a/chosen.json").read_text()).values()
    assert entry["question"] == ""
    main(["report", str(tmp_path / "a")])
    assert not (tmp_path / "a/report/chosen.json").exists()  # it would answer what was not asked
    assert "does not say what was asked" in refused(
        capsys, study, f"--run_dir={tmp_path / 'b'}", f"--chosen={tmp_path / 'a/chosen.json'}"
    )


def test_a_file_that_answers_nothing_is_refused(searched, tmp_path, capsys):
    _, file = searched
    study = write(tmp_path / "s.yaml", **SEARCHED)
    ask = study, f"--run_dir={tmp_path / 'b'}"
    assert "chosen: got" in refused(capsys, *ask, "--chosen=nowhere.json")
    assert "nothing, as the study has no search" in refused(
        capsys, write(tmp_path / "t.yaml", search=None), f"--chosen={file}", ask[1]
    )
    (tmp_path / "own.json").write_text("{")
    assert "own.json (JSONDecodeError" in refused(capsys, *ask, f"--chosen={tmp_path / 'own.json'}")
    entry = json.loads(file.read_text())[SEARCH]
    for change, words in [
        ({"question": ""}, "does not say what was asked"),
        ({"question": 3}, "question"),
        ({"trials": [{"settings": {}, "accuracies": {"6": 2}}]}, "6 is 2"),
        ({"trials": 3}, "TypeError"),
        ({"trials": [{"settings": 3}]}, "settings of a trial"),
        ({"trials": [{"settings": {"model.clip": 1.0}}]}, "model.clip"),
        ({"settings": {"model.nonsense": 1}}, "model.nonsense"),
        ({"steps": 10**9}, "1000000000"),
        ({"notes": "abc"}, "notes"),
        ({"notes": [1]}, "notes"),
        ({"taken_from": 4}, "taken_from"),
    ]:
        (tmp_path / "own.json").write_text(json.dumps({SEARCH: {**entry, **change}}))
        line = refused(capsys, *ask, f"--chosen={tmp_path / 'own.json'}")
        assert "own.json" in line and words in line
    assert not (tmp_path / "b").exists()


# -------------------------------------------------------------------- the question

SEARCHES = Search(
    {"model.optimizer.lr": {"low": 0.1, "high": 0.2}, "model.clip": [1.0, None]},
    trials=4,
    rungs=2,
    steps=60,
    sizes=Sizes([32]),
    sampler="hypercube",
)
STUDY = Study([Rule("backprop")], [{"L": 3}], Sizes([64, 512]), search=SEARCHES, settings={"model.network.width": 8})


def in_both_orders():
    return SEARCHES.settings, dict(reversed(SEARCHES.settings.items()))


def question(study):
    return expand(study)[0][0].question


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [4, 5]},
        {"sizes": Sizes([128])},
        {"steps": Steps(7, 7)},
        {"refine": 1},
        {"question": "?"},
        {"threshold": 0.5},
        {"callbacks": ["SynonymicSensitivity"]},
        {"rules": [Rule("backprop", name="mine"), Rule("dfa")]},
        {"rules": [Rule("backprop", search={"model.clip": [1.0, None]})]},
        {"grid": [{"model.network.width": 8}]},
        {"search": replace(SEARCHES, each_task=False)},
    ],
    ids=lambda change: str(change)[:60],
)
def test_what_no_run_of_the_search_has_does_not_change_what_it_asks(change):
    assert question(replace(STUDY, **change)) == question(STUDY)


@pytest.mark.parametrize(
    "change",
    [
        {"rules": [Rule("dfa")]},
        {"rules": [Rule("rules.Backprop")]},
        {"rules": [Rule("backprop", settings={"model.clip": 1.0})]},
        {"rules": [Rule("backprop", search={"model.clip": [2.0, None]})]},
        {"rules": [Rule("backprop", search={"model.clip": [None, 1.0]})]},
        {"rules": [Rule("backprop", search={"model.optimizer.lr": {"low": 0.1, "high": 0.3}})]},
        {"tasks": [{"L": 4}]},
        {"settings": {"model.network.width": 16}},
        {"grid": [{"data.noise": 0.1}]},
        {"test_size": 100},
        {"vary": "label_size", "settings": {"model.network.width": 8, "data.train_size": 512}},
        *(
            {"search": replace(SEARCHES, **own)}
            for own in (
                {"trials": 5},
                {"seeds": [200]},
                {"rungs": 1},
                {"steps": 90},
                {"sizes": Sizes([33])},
                {"more_seeds": [300]},
                {"more_seeds": [300], "finalists": 1},
                {"own_file": True},
                {"first": [{"model.clip": 1.0}]},
                {"sampler": "random"},
                {"rounds": 2},
                {"settings": in_both_orders()[1]},  # in which random draws are made
            )
        ),
    ],
    ids=lambda change: str(change)[-60:],
)
def test_what_a_search_depends_on_changes_what_it_asks(change):
    assert question(replace(STUDY, **change)) != question(STUDY)


def test_what_hides_what_is_searched_is_part_of_what_is_asked():
    """The runs with the rule's own file are given what the study sets, and not what is searched."""
    own = replace(SEARCHES, own_file=True)
    asked = {
        question(replace(STUDY, search=own, settings={"model.clip": clip, "model.optimizer.lr": 0.1})) for clip in (1.0, 5.0)
    }
    settings = {"model.clip": 1.0, "model.optimizer.lr": 0.1}
    asked |= {question(replace(STUDY, settings=settings, search=replace(SEARCHES, settings=s))) for s in in_both_orders()}
    assert len(asked) == 4


def test_a_rules_file_is_part_of_what_is_asked_and_its_place_is_not(tmp_path):
    content = yaml.safe_load(Rule("backprop").file.read_text())
    for name in "one.yaml", "two.yaml":
        (tmp_path / name).write_text("# a comment\n" + yaml.safe_dump(content))
    asked = [question(replace(STUDY, rules=[Rule(str(tmp_path / name))])) for name in ("one.yaml", "two.yaml")]
    assert asked[0] == asked[1] == question(STUDY)
    content["model"]["init_args"] |= {"clip": 3.0}
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(content))
    assert question(replace(STUDY, rules=[Rule(str(tmp_path / "two.yaml"))])) != asked[0]


@pytest.mark.parametrize(
    "study",
    [
        lambda file: replace(STUDY, settings={"model.network": file}),
        lambda file: replace(STUDY, settings={"trainer.callbacks": [{"class_path": "Mine", "init_args": {"file": file}}]}),
        lambda file: replace(STUDY, rules=[Rule("backprop", settings={"model.network": file})]),
        lambda file: replace(STUDY, search=replace(SEARCHES, settings=SEARCHES.settings | {"model.network": [file, "other"]})),
        lambda file: replace(
            STUDY,
            search=replace(
                SEARCHES, settings=SEARCHES.settings | {"model.network": [file, "other"]}, first=[{"model.network": file}]
            ),
        ),
    ],
)
def test_a_file_that_a_setting_names_is_part_of_what_is_asked_and_its_place_is_not(study, tmp_path):
    for name, width in ("one.yaml", 8), ("two.yaml", 8), ("three.yaml", 16):
        (tmp_path / name).write_text(f"class_path: HierarchicalNetwork\ninit_args: {{width: {width}}}\n")
    one, two, three, *absent = (question(study(str(tmp_path / f"{name}.yaml"))) for name in ("one", "two", "three", "a", "b"))
    assert one == two != three
    assert len({one, three, *absent}) == 4

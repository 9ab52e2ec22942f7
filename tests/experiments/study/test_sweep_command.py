"""``rhm sweep``: what is refused in one line."""

from __future__ import annotations

import pytest
from rule_helpers import every
from sweeps import refused, write

REFUSED = {
    "no rule": ({"rules": []}, ["rules", "[]", "one rule or more"]),
    "no task": ({"tasks": []}, ["tasks", "[]", "one task or more"]),
    "a tree of settings": ({"settings": {"model": {"clip": 1}}}, ["settings.model", "{'clip': 1}", "with dots"]),
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
    "nothing to search for a rule": (
        {"search": {}, "rules": [{"rule": "backprop", "search": {"model.optimizer.lr": None}}]},
        ["rules.search", "{}"],
    ),
    "a smaller budget": (
        {"search": {"trials": 3}, "rules": ["dfa", {"rule": "backprop", "search": {"model.optimizer.lr": [1, 2, 2]}}]},
        ["search.trials", "3", "at most 2", "backprop"],
    ),
    "no range": (
        {"search": {"settings": {"model.clip": {"low": 2, "high": 1}}}},
        ["search.settings.model.clip", "low", "lower one first"],
    ),
    "a range of logarithms from zero": (
        {"search": {"settings": {"model.clip": {"low": 0, "high": 1, "log": True}}}},
        ["search.settings.model.clip", "above 0"],
    ),
    "half a range": ({"search": {"settings": {"model.clip": {"low": 2}}}}, ["search.settings.model.clip", "high"]),
    "unknown sampler": ({"search": {"sampler": "tpee"}}, ["search.sampler", "tpee", "random, hypercube, tpe"]),
    "a model without results": ({"search": {"sampler": "tpe"}}, ["search.rounds", "1", "2 or more"]),
    "a model of lists": ({"search": {"sampler": "tpe", "rounds": 3}}, ["search.sampler", "tpe", "random for backprop"]),
    "rounds of different sizes": ({"search": {"rounds": 2}}, ["search.rounds", "2", "divides search.trials=3"]),
    "more rungs than steps": ({"search": {"rungs": 4}}, ["search.rungs", "4", "6 steps"]),
    "no rungs": ({"search": {"rungs": 0}}, ["search.rungs", "0"]),
    "a search without strings": ({"search": {"sizes": {"multiples": [10**6]}}}, ["search.sizes", "1000000", "at most 448"]),
    "reference": ({"reference": "nobody"}, ["reference", "nobody", "backprop"]),
    "no epochs": ({"steps": {"epochs": 0}}, ["steps.epochs", "0"]),
    "a seed twice": ({"seeds": [0, 0]}, ["seeds", "[0, 0]", "different"]),
    "a task's parameter as a setting": ({"settings": {"data.L": 3}}, ["settings.data.L", "3", "tasks"]),
    "steps as a number": ({"steps": 5}, ["steps: got 5", "{least: 1000, most: 4000}"]),
    "a rule's steps as a number": ({"rules": [{"rule": "backprop", "steps": 5}]}, ["rules.steps: got 5", "least"]),
    "sizes as a list": ({"sizes": [4, 8]}, ["sizes: got [4, 8]", "multiples"]),
    "a search as a number": ({"search": 3}, ["search: got 3", "trials"]),
    "a rule that is a number": ({"rules": [3]}, ["rules: got 3", "entries"]),
    "steps as a setting": (
        {"rules": [{"rule": "backprop", "settings": {"trainer.max_steps": 7}}]},
        ["rules.settings.trainer.max_steps", "7", "steps of the study"],
    ),
    "sizes as a setting": ({"settings": {"data.train_size": 8}}, ["settings.data.train_size", "8", "sizes"]),
    "sizes as a grid": ({"grid": [{"data.train_size": [5, 6]}]}, ["grid.data.train_size", "[5, 6]", "sizes"]),
    "sizes of a rule as a grid": (
        {"rules": [{"rule": "backprop", "grid": [{"data.train_size": [5, 6]}]}]},
        ["rules.grid.data.train_size", "[5, 6]", "sizes"],
    ),
    "sizes as settings of a rule": (
        {"rules": [{"rule": "backprop", "vary": "label_size", "settings": {"data.label_size": 3}}]},
        ["rules.settings.data.label_size", "3", "sizes"],
    ),
    "sizes that are searched": (
        {"search": {"trials": 1, "settings": {"data.train_size": [5, 6]}}},
        ["search.settings.data.train_size", "[5, 6]", "sizes"],
    ),
    "sizes that a rule searches": (
        {"search": {"trials": 1}, "rules": [{"rule": "backprop", "search": {"data.train_size": [5, 6]}}]},
        ["rules.search.data.train_size", "[5, 6]", "sizes"],
    ),
    "a range of whole numbers": (
        {"search": {"trials": 1, "settings": {"model.network.width": {"low": 4, "high": 17}}}},
        ["model.network.width", "10.5", "int"],
    ),
    "a range from below zero": (
        {"search": {"trials": 1, "settings": {"model.clip": {"low": -1.0, "high": 3.0}}}},
        ["model.clip", "-1.0"],
    ),
    "a range to beyond": (
        {"search": {"trials": 1, "settings": {"data.noise": {"low": 0.1, "high": 1.5}}}},
        ["data.noise", "1.5"],
    ),
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


@pytest.mark.parametrize("case", every(2, REFUSED))
def test_a_study_that_cannot_be_is_refused_in_one_line_and_nothing_is_written(case, tmp_path, capsys):
    changes, words = REFUSED[case]
    line = refused(capsys, write(tmp_path / "s.yaml", **changes), f"--run_dir={tmp_path / 'a'}", "--launcher=debug")
    assert line.startswith("rhm: ") and all(word in line for word in words), line
    assert not (tmp_path / "a").exists()


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

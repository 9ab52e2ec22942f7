"""The results of a study as one table."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from study_helpers import STUDY, fake_study, p_star, sigmoid_curve

from experiments.study.complexity import sample_complexity
from experiments.study.study import Rule, Sizes, Study
from experiments.study.tidy import curve, gather, next_size


def setting(*path, value):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (setting("replicas", 0, "seed", value="a"), "seed"),
        (setting("replicas", 0, "seed", value=1.5), "seed"),
        (setting("replicas", 0, "chance", value="x"), "chance"),
        (setting("replicas", 0, "chance", value=None), "chance"),
        (setting("replicas", 0, "chance", value=0.5), "chance"),
        (setting("replicas", 0, "train_size", value=None), "train_size"),
        (setting("replicas", 0, "train_size", value=64.5), "train_size"),
        (setting("replicas", 0, "train_size", value=0), "train_size"),
        (setting("replicas", 0, "label_size", value="many"), "label_size"),
        (setting("replicas", 0, "test_accuracy", value="0.5"), "test_accuracy"),
        (setting("replicas", 0, "test_accuracy", value=math.nan), "test_accuracy"),
        (setting("replicas", 0, "test_accuracy", value=math.inf), "test_accuracy"),
        (setting("seconds", value="long"), "seconds"),
        (setting("seconds", value=math.inf), "seconds"),
        (setting("seconds", value=10**400), "seconds"),
        (setting("steps", value=1.5), "steps"),
        (setting("rule", value=3), "rule"),
        (setting("supervision", "rule", value=None), "rule"),
        (setting("supervision", "pairs", value=["x"]), "pairs"),
        (setting("supervision", "readout_labels", 0, value="x"), "readout_labels"),
    ],
)
def test_results_of_a_wrong_type_are_named_and_left_out(change, named, tmp_path):
    study = Study([Rule("backprop"), Rule("dfa")], [{"L": 3}], Sizes([64, 512]), seeds=[0, 1])
    runs = fake_study(tmp_path / "a", study, sigmoid_curve(lambda *_: 100), maps=False)
    path = tmp_path / "a/runs" / runs[0].name / "results.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    gathered = gather(tmp_path / "a/runs", runs)
    assert list(gathered.damaged) == [runs[0].name] and named in gathered.damaged[runs[0].name]
    assert gathered.table["run"].unique().to_list() == [runs[1].name]


def test_refinement_halves_the_interval_around_p_star_in_logarithms(tmp_path):
    runs = fake_study(tmp_path, STUDY, sigmoid_curve(p_star), maps=False)
    table = gather(tmp_path / "runs", [run for run in runs if "L4" in run.name and run.rule == "sibling_contrastive"]).table
    size_P, error_SP = curve(table)
    found = sample_complexity(size_P, error_SP, 0.0875)
    assert next_size(size_P, found) == 1024  # between 512 and 2,048
    assert next_size(size_P, sample_complexity(size_P, error_SP * 0 + 1, 0.0875)) is None
    near = np.array([1000.0, 1050.0])
    assert next_size(near, sample_complexity(near, np.array([[0.5, 0.0]]), 0.0875)) is None


@pytest.mark.parametrize("rounded", [0.0, 1e-16, -1e-16, 3e-16, -3e-16])
@pytest.mark.parametrize("place", range(1, 7))
def test_refinement_goes_on_where_the_error_is_exactly_the_bound(place, rounded):
    """exp(log P) is often above P by a rounding: P* must not be taken for one beyond the size."""
    for sizes in (2.0 ** np.arange(6, 13), 8.0 * 3.0 ** np.arange(7), np.array([100, 300, 700, 1500, 3100, 6300, 12700.0])):
        error = np.where(np.arange(7) < place, 0.8, 0.0)
        error[place] = 0.0875 * (1 + rounded)
        size = next_size(sizes, sample_complexity(sizes, error[None], 0.0875))
        assert size == round(math.sqrt(sizes[place - 1] * sizes[place]))


def test_refinement_does_not_crash_where_the_first_size_is_above_the_bound_by_a_rounding():
    sizes = np.array([64.0, 100.0])
    found = sample_complexity(sizes, np.array([[0.0875 * (1 + 1.5e-9), 0.0]]), 0.0875)
    assert next_size(sizes, found) == 80


def repeated(content):
    content["replicas"][1] = content["replicas"][0]


def shortened(content):
    del content["replicas"][0], content["supervision"]["readout_labels"][0]


FOREIGN = {
    "a seed twice": repeated,
    "a replica less": shortened,
    "another seed": setting("replicas", 0, "seed", value=9),
    "another size": setting("replicas", 0, "train_size", value=9),
    "another task": setting("task", "L", value=4),
    "a probe above 1": setting("replicas", 0, "probe", "layer1", "level1", value=1.5),
    "a probe in letters": setting("replicas", 0, "probe", "layer1", "level1", value="0.5"),
    "a probe without end": setting("replicas", 0, "probe", "layer1", "level1", value=10**400),
    "a sensitivity in letters": setting("diagnostics", "SynonymicSensitivity", "level1", "layer1", value="abcd"),
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_results_of_another_run_are_named_and_left_out(change, tmp_path):
    """A seed that is counted twice, or a size that only some seeds have, moves a mean and nobody sees it."""
    study = Study([Rule("backprop"), Rule("dfa")], [{"L": 3}], Sizes([64, 512]), seeds=[0, 1])
    runs = fake_study(tmp_path / "a", study, sigmoid_curve(lambda *_: 100))
    path = tmp_path / "a/runs" / runs[0].name / "results.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    gathered = gather(tmp_path / "a/runs", runs)
    assert list(gathered.damaged) == [runs[0].name] and gathered.table["run"].unique().to_list() == [runs[1].name]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "[1]", "3", "null", '"finished"', '{"status": "finished"}', "[" * 100000, "\0"]
)
def test_results_that_are_no_results_are_named_and_left_out(text, tmp_path):
    study = Study([Rule("backprop"), Rule("dfa")], [{"L": 3}], Sizes([64, 512]), seeds=[0])
    runs = fake_study(tmp_path / "a", study, sigmoid_curve(lambda *_: 100), maps=False)
    (tmp_path / "a/runs" / runs[0].name / "results.json").write_text(text, encoding="utf-8")
    gathered = gather(tmp_path / "a/runs", runs)
    assert list(gathered.damaged) == [runs[0].name] and gathered.table["run"].unique().to_list() == [runs[1].name]

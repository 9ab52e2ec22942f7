"""The report of a study, finished or not, from results whose answer is known."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from study_helpers import fake_study, results, sigmoid_curve

from callbacks.figures import heat_map
from experiments.cli import main
from experiments.complexity import sample_complexity
from experiments.figures import COLOURS, STYLED, styles
from experiments.report import RUNGS, ratio
from experiments.study import Rule, Sizes, Study
from experiments.tidy import complexities, curve, gather, next_size

ROOT = Path(__file__).parent.parent
SIBLINGS, BACKPROP = 900.0, 2.5
NAMES = ["backprop", "sibling_contrastive"]
STUDY = Study([Rule(name) for name in NAMES], [{"L": [3, 4, 5]}], Sizes([32, 128, 512, 2048, 8192, 32768]), "Does it <grow>?")


def p_star(run, task):
    return SIBLINGS if run.rule == "sibling_contrastive" else BACKPROP * task.supervised_complexity


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study of two rules and three depths, and its report."""
    folder = tmp_path_factory.mktemp("study")
    runs = fake_study(folder / "a", STUDY, sigmoid_curve(p_star))
    main(["report", str(folder / "a")])
    return folder / "a", runs


def test_the_tidy_table_has_a_row_for_each_replica_in_both_formats(made):
    folder, runs = made
    parquet, csv = pl.read_parquet(folder / "report/results.parquet"), pl.read_csv(folder / "report/results.csv")
    assert parquet.shape == csv.shape and parquet.height == sum(len(run.sizes) * len(run.seeds) for run in runs)
    run = runs[-1]
    content = json.loads((folder / "runs" / run.name / "results.json").read_text())
    rows = parquet.filter(pl.col("run") == run.name)
    for row, replica in zip(rows.iter_rows(named=True), content["replicas"], strict=True):
        assert (row["seed"], row["P"], row["test_accuracy"]) == (
            replica["seed"],
            replica["train_size"],
            replica["test_accuracy"],
        )
        assert row["L"] == 5 and row["n m^L"] == 8 * 4**5 and row["v m^3"] == 512 and row["chance"] == 0.125
        assert row["probe/layer2/level3"] == replica["probe"]["layer2"]["level3"]
        assert row["sensitivity/layer3/level2"] == 3.0
    assert csv["test_accuracy"].to_list() == pytest.approx(parquet["test_accuracy"].to_list())


def test_p_star_of_known_curves_is_found_and_the_page_says_it(made):
    folder, runs = made
    found = complexities(gather(folder / "runs", runs).table, 0.1)
    for (rule, task, _), own in found.items():
        depth = int(re.findall(r"L=(\d)", task)[0])
        truth = SIBLINGS if rule == "sibling_contrastive" else BACKPROP * 8 * 4**depth
        assert truth / 1.5 < own.value < truth * 1.5  # sizes are a factor of four apart
    page = (folder / "report/index.html").read_text()
    assert all(str(own).replace(">", "&gt;") in page for own in found.values())
    growth = re.findall(r"<td>(\w+)</td><td></td><td>(-?[\d.]+) \[", page)
    exponents = {rule: float(value) for rule, value in growth}
    assert exponents["backprop"] == pytest.approx(1, abs=0.1) and exponents["sibling_contrastive"] == pytest.approx(0, abs=0.1)


def test_the_page_needs_nothing_else_and_shows_every_figure(made):
    folder, _ = made
    page = (folder / "report/index.html").read_text()
    figures = sorted(path.stem for path in (folder / "report").glob("*.png"))
    assert sorted(path.stem for path in (folder / "report").glob("*.svg")) == figures
    assert [name.split("-")[0] for name in figures] == ["learning_curves", "probe", "sample_complexity", "sensitivity"]
    assert page.count("data:image/png;base64,") == len(figures)
    assert not re.search(r"""(src|href)=["'](?!data:)|@import|<script|<link""", page)
    assert "Does it &lt;grow&gt;?" in page and "6 of 6 runs are in this report." in page
    for name in figures:
        assert (folder / f"report/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_three_damaged_and_two_missing_runs_are_named_and_left_out(tmp_path, made, capsys):
    folder = tmp_path / "a"
    shutil.copytree(made[0], folder, ignore=shutil.ignore_patterns("report"))
    paths = [folder / "runs" / run.name / "results.json" for run in made[1]]
    whole = json.loads(paths[0].read_text())
    paths[0].write_text(paths[0].read_text()[:200])  # cut off
    del whole["replicas"][1]["test_accuracy"]
    paths[1].write_text(json.dumps(whole))
    whole["replicas"][1]["test_accuracy"] = 17.0
    paths[2].write_text(json.dumps(whole))
    paths[3].unlink()
    paths[4].write_text(json.dumps(results(made[1][4], sigmoid_curve(p_star), status="stopped")))
    main(["report", str(folder), f"--out={tmp_path / 'out'}"])
    out = capsys.readouterr().out
    assert "1 of 6 runs are in this report; 2 missing or unfinished; 3 damaged and left out." in " ".join(out.split())
    page = (tmp_path / "out/index.html").read_text()
    for run in made[1][:5]:
        assert f"<li>{run.name}" in page
    assert pl.read_csv(tmp_path / "out/results.csv")["run"].unique().to_list() == [made[1][5].name]


def test_a_study_that_has_not_begun_to_bear_results_is_reported_too(tmp_path):
    runs = fake_study(tmp_path / "a", STUDY, sigmoid_curve(p_star))
    shutil.rmtree(tmp_path / "a/runs")
    (tmp_path / "a/failed.json").write_text(json.dumps({runs[0].name: "data.m: got 9 <b>"}))
    main(["report", str(tmp_path / "a")])
    page = (tmp_path / "a/report/index.html").read_text()
    assert "0 of 6 runs" in page and "5 missing or unfinished; 1 failed" in page and "data.m: got 9 &lt;b&gt;" in page


def test_without_sensitivities_and_probes_there_are_no_maps(tmp_path):
    study = Study([Rule("backprop")], [{"L": 3}], Sizes([512, 2048]), seeds=[0])
    fake_study(tmp_path / "a", study, sigmoid_curve(p_star), maps=False)
    main(["report", str(tmp_path / "a")])
    assert [path.stem for path in (tmp_path / "a/report").glob("*.png")] == ["learning_curves"]


def test_the_mask_ladder_shows_the_accuracy_of_each_rung_at_the_largest_size(tmp_path):
    rungs = [Rule("mask_ladder", f"rung {r}", {"model.masks": m, "model.feedback": f}) for (m, f), r in RUNGS.items()]
    study = Study(rungs, [{"L": 3}], Sizes([512, 2048]), grid=[{"model.network.width": [8, 16]}], seeds=[0, 1])
    runs = fake_study(
        tmp_path / "a", study, lambda run, task, size, rng: int(run.rule[-1]) / 10 if size == 2048 else 0.0, False
    )
    main(["report", str(tmp_path / "a")])
    assert (tmp_path / "a/report/mask_ladder.png").exists()
    from experiments.report import _rungs

    panels = _rungs(gather(tmp_path / "a/runs", runs).table, {run.name: run for run in runs})
    for line in next(iter(panels.values())).values():
        assert {rung: mean for rung, (mean, _, _) in line.items()} == pytest.approx({r: r / 10 for r in range(1, 9)})
    assert len(next(iter(panels.values()))) == 2


def test_every_rule_has_a_look_of_its_own_and_keeps_it_whatever_else_is_drawn():
    names = [path.stem for path in (ROOT / "configs/rules").glob("*.yaml")] + [f"rung {r}" for r in range(1, 9)]
    looks = styles(names)
    assert set(names) <= {name for row in STYLED for name in row}
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(names)
    assert all(styles([name, "another"])[name] == look for name, look in looks.items())
    unknown = styles([f"unknown {i}" for i in range(40)])
    assert len({(look.colour, look.marker) for look in unknown.values()}) == 40


def test_colours_can_be_told_apart_without_red_or_green():
    """Pairs of colours as people without red or green cones see them (Viénot et al. 1999), and in grey."""
    linear = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in COLOURS]) ** 2.2
    lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    for blind in (
        np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
        np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
    ):
        seen = np.clip(linear @ (np.linalg.inv(lms) @ blind @ lms).T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 10 * np.eye(len(seen))
        assert apart.min() > 0.12


@pytest.mark.parametrize(
    ("own", "other", "shown"),
    [
        (500, 1000, "0.5"),
        (math.inf, 1000, "> 4.1"),
        (-math.inf, 640, "< 0.1"),
        (500, math.inf, "< 0.12"),
        (500, -math.inf, "> 7.8"),
        (math.inf, math.inf, "–"),
        (math.inf, -math.inf, "> 64"),
        (500, None, "–"),
    ],
)
def test_the_ratio_to_the_reference_is_a_number_or_the_bound_that_is_known(own, other, shown):
    def known(value):
        return sample_complexity(np.array([64.0, 4096.0]), np.zeros((1, 2)), 0.1).__class__(
            value, value, value, 64.0, 4096.0, np.zeros(1)
        )

    assert ratio(known(own), None if other is None else known(other)) == shown


def test_refinement_halves_the_interval_around_p_star_in_logarithms(made):
    folder, runs = made
    table = gather(folder / "runs", [run for run in runs if "L4" in run.name and run.rule == "sibling_contrastive"]).table
    size_P, error_SP = curve(table)
    found = sample_complexity(size_P, error_SP, 0.0875)
    assert next_size(size_P, found) == 1024  # between 512 and 2,048
    assert next_size(size_P, sample_complexity(size_P, error_SP * 0 + 1, 0.0875)) is None
    near = np.array([1000.0, 1050.0])
    assert next_size(near, sample_complexity(near, np.array([[0.5, 0.0]]), 0.0875)) is None


def test_heat_maps_wrap_and_mark_what_was_not_measured():
    table = torch.tensor([[0.1, math.nan], [0.9, 0.5]])
    figure = heat_map({str(i): table for i in range(5)}, 0.1, columns=3)
    panels = [ax for ax in figure.axes if ax.images and ax.get_visible()]
    assert len(panels) == 5 and {text.get_text() for text in panels[0].texts} == {"0.10", "–", "0.90", "0.50"}


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda folder: None, ["run_dir", "rhm sweep"]),
        (lambda folder: (folder / "study.yaml").write_text("rules: [") and None, ["run_dir", "rhm sweep"]),
        (
            lambda folder: (folder / "study.yaml").write_text(yaml.safe_dump({"threshold": 0.1})) and None,
            ["run_dir", "rhm sweep"],
        ),
    ],
)
def test_a_folder_without_a_study_is_refused(prepare, words, tmp_path, capsys):
    prepare(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path)])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and all(word in err for word in words)


def test_a_report_does_not_go_where_a_file_is(made, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(SystemExit) as stop:
        main(["report", str(made[0]), f"--out={tmp_path / 'thesis.txt'}"])
    assert stop.value.code == 2 and "thesis.txt" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "dear"

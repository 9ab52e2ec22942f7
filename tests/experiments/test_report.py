"""The report of a study, finished or not, from results whose answer is known."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml
from study_helpers import fake_study, results, sigmoid_curve

from callbacks.figures import heat_map
from experiments import report
from experiments.cli import main
from experiments.complexity import sample_complexity
from experiments.figures import COLOURS, STYLED, Curve, Point, complexity, ladder, learning_curves, plain, styles
from experiments.report import RUNGS, _rungs, ratio
from experiments.study import Rule, Search, Sizes, Study
from experiments.tidy import complexities, curve, gather, next_size

ROOT = Path(__file__).parents[2]
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
    growth = re.findall(r"<td>(\w+)</td><td>(-?[\d.]+) \[", page)
    exponents = {rule: float(value) for rule, value in growth}
    assert exponents["backprop"] == pytest.approx(1, abs=0.1) and exponents["sibling_contrastive"] == pytest.approx(0, abs=0.1)


def test_the_page_says_what_the_search_has_chosen(tmp_path, no_pictures):
    search = Search({"model.optimizer.lr": [0.1, 0.2]}, trials=2)
    study = replace(STUDY, rules=[Rule("backprop"), Rule("dfa", search={"model.clip": [1.0, 2.0]})], search=search)
    runs = fake_study(tmp_path / "a", study, sigmoid_curve(p_star))
    chosen = {"backprop": ["--model.optimizer.lr=0.1", "--model.optimizer.lr=0.2"], "dfa": ["--model.clip=1.0"]}
    given = [replace(run, args=[*run.args, *chosen[run.rule]]) for run in runs]
    table = report._chosen(yaml.safe_load((tmp_path / "a/study.yaml").read_text()), given)
    shown = table.unique("rule", maintain_order=True).select("rule", "model.optimizer.lr", "model.clip").rows()
    assert shown == [("backprop", "0.2", "–"), ("dfa", "–", "1.0")] and table.height == len(runs)
    main(["report", str(tmp_path / "a")])
    assert "<summary>Settings chosen by the search</summary>" in (tmp_path / "a/report/index.html").read_text()


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


@pytest.fixture
def no_pictures(monkeypatch):
    """For tests that look at words and numbers alone: drawing is most of a report's time."""
    monkeypatch.setattr(report.Page, "figure", lambda self, name, title, figure, caption: None)


def test_three_damaged_and_two_missing_runs_are_named_and_left_out(tmp_path, made, capsys, no_pictures):
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
        (setting("seconds", value="long"), "seconds"),
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


def test_a_damaged_list_of_failures_is_named_and_does_not_stop_the_report(made, tmp_path, capsys, no_pictures):
    folder = tmp_path / "a"
    shutil.copytree(made[0], folder, ignore=shutil.ignore_patterns("report"))
    for text in ("{", "[1]"):
        (folder / "failed.json").write_text(text)
        main(["report", str(folder)])
        assert "failed.json: " in capsys.readouterr().out
        assert "<li>failed.json: " in (folder / "report/index.html").read_text()


def test_the_threshold_is_an_argument(made, tmp_path, capsys):
    pages = {}
    for threshold in (0.1, 0.3):
        main(["report", str(made[0]), f"--out={tmp_path / str(threshold)}", f"--threshold={threshold}"])
        page = pages[threshold] = (tmp_path / str(threshold) / "index.html").read_text()
        assert f"a test error of {threshold:g} of the chance error" in page
        found = complexities(gather(made[0] / "runs", made[1]).table, threshold)
        assert all(str(own) in page for own in found.values())
    assert pages[0.1] == (made[0] / "report/index.html").read_text() != pages[0.3]
    for wrong in (0, 1, "nan"):
        with pytest.raises(SystemExit) as stop:
            main(["report", str(made[0]), f"--threshold={wrong}"])
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.count("\n") == 1 and "threshold" in err


def test_a_study_with_a_grid_has_an_overview_of_p_star_above_the_long_table(tmp_path, no_pictures):
    rules = [Rule("backprop"), Rule("dfa"), Rule("gevb", grid=[{"model.network.width": 16}])]
    sizes = Sizes([32, 128, 512, 2048, 8192])
    study = Study(rules, [{"L": [3, 4]}], sizes, grid=[{"model.network.width": [64, 256]}], seeds=[0, 1])

    def accuracy(run, task, size, rng):
        worse = run.rule == "dfa" and size == 8192  # gets worse with more strings
        return (
            0.2
            if worse
            else sigmoid_curve(lambda *_: 100.0 * task.L * run.cell["model.network.width"] / 64)(run, task, size, rng)
        )

    runs = fake_study(tmp_path / "a", study, accuracy, False)
    main(["report", str(tmp_path / "a")])
    page = (tmp_path / "a/report/index.html").read_text()
    tables = [re.findall(r"<tr>(.*?)</tr>", table) for table in re.findall(r"<table>(.*?)</table>", page)]
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in tables[0]]
    assert rows[0] == ["task", "settings", "backprop", "dfa", "gevb"] and len(rows) == 7
    found = complexities(gather(tmp_path / "a/runs", runs).table, 0.1)
    for task, cell, *shown in rows[1:]:
        for rule, text in zip(rows[0][2:], shown, strict=True):
            own = found.get((rule, task, cell))
            assert text == ("" if own is None else f"{own.value:,.0f}" + " †" * (rule == "dfa"))
    assert page.index("<summary>With intervals") > page.index("<table>") and len(tables[1]) == 1 + len(found)
    assert page.count("a larger size fails") == 5  # four rows and the explanation


def test_growth_from_level_to_level_is_given_for_tasks_that_differ_in_depth_alone(tmp_path):
    study = Study(
        [Rule(name) for name in NAMES], [{"m": [3, 4], "L": [2, 3, 4]}], Sizes([4, 16, 64, 256, 1024, 4096]), seeds=[0, 1, 2]
    )
    curves = sigmoid_curve(lambda run, task: 30.0 if run.rule == NAMES[1] else 2.0 * task.m**task.L, noise=0.0)
    runs = fake_study(tmp_path / "a", study, curves, False)
    table = gather(tmp_path / "a/runs", runs).table
    rows = report._exponents(table, complexities(table, 0.1))
    for m in (3, 4):
        for rule, factor in (("backprop", m), (NAMES[1], 1)):
            text = rows.filter(pl.col("rule") == rule)[f"factor from level to level, m={m}"][0]
            low, high = map(float, re.findall(r"[\d.]+", text)[1:3])
            assert float(text.split()[0]) == pytest.approx(factor, rel=0.15) and low <= factor * 1.15 and high >= factor / 1.15


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
    panels = _rungs(gather(tmp_path / "a/runs", runs).table, {run.name: run for run in runs})
    for line in next(iter(panels.values())).values():
        assert {rung: mean for rung, (mean, _, _) in line.items()} == pytest.approx({r: r / 10 for r in range(1, 9)})
    assert len(next(iter(panels.values()))) == 2


def rungs_of(folder, runs):
    return _rungs(gather(folder / "runs", runs).table, {run.name: run for run in runs})


def test_rungs_are_found_wherever_masks_and_feedback_come_from(tmp_path):
    pairs = {"model.masks": ["exact", "constant"], "model.feedback": ["transposed", "random"]}
    one, sizes = [Rule("mask_ladder", "rung it")], Sizes([512])
    study = Study(one, [{"L": 3}], sizes, seeds=[0], grid=[{"model.network.width": [8, 16], **pairs}])
    (lines,) = rungs_of(tmp_path / "grid", fake_study(tmp_path / "grid", study, lambda *_: 0.9, False)).values()
    assert {name: sorted(line) for name, line in lines.items()} == {"width=8": [1, 4, 5, 6], "width=16": [1, 4, 5, 6]}
    study = Study(one, [{"L": 3}], sizes, seeds=[0], settings={"model.masks": "batch_mean"})
    (lines,) = rungs_of(tmp_path / "all", fake_study(tmp_path / "all", study, lambda *_: 0.9, False)).values()
    assert {name: sorted(line) for name, line in lines.items()} == {"accuracy": [2]}
    runs = fake_study(tmp_path / "searched", Study(one, [{"L": 3}], sizes, seeds=[0]), lambda *_: 0.9, False)
    chosen = {"model": {"init_args": {"masks": "none", "feedback": "direct"}}}  # nothing but the run itself knows
    (tmp_path / "searched/runs" / runs[0].name / "config.yaml").write_text(yaml.safe_dump(chosen))
    (lines,) = rungs_of(tmp_path / "searched", runs).values()
    assert {name: sorted(line) for name, line in lines.items()} == {"accuracy": [8]}


def heights(ax):
    """Of the lines across a panel, by label."""
    return {line.get_label(): line.get_ydata()[0] for line in ax.lines if line.get_label() in ("chance", "small error")}


def test_each_task_has_its_own_chance(tmp_path, monkeypatch):
    tasks = [{"v": 4, "n": 4, "m": 4, "L": 4}, {"v": 8, "n": 8, "m": 7, "L": 2}]
    study = Study([Rule("mask_ladder", "rung 1")], tasks, Sizes([64, 512]), seeds=[0, 1])
    runs = fake_study(tmp_path / "a", study, sigmoid_curve(lambda *_: 100))
    table = gather(tmp_path / "a/runs", runs).table
    floors, kept = [], {}
    monkeypatch.setattr(report, "heat_map", lambda maps, floor, label: floors.append(floor) or heat_map(maps, floor, label))
    monkeypatch.setattr(report, "learning_curves", lambda *args: kept.setdefault("curves", learning_curves(*args)))
    monkeypatch.setattr(report, "ladder", lambda *args: kept.setdefault("ladder", ladder(*args)))
    main(["report", str(tmp_path / "a")])
    assert floors == [0.25, 0.0]  # probes of the largest task, which has four classes and symbols; sensitivities
    for figure in kept.values():
        shown = {ax.get_title(): heights(ax) for ax in figure.axes}
        assert shown["v=4 n=4 m=4 s=2 L=4"]["chance"] == 0.25 and shown["v=8 n=8 m=7 s=2 L=2"]["chance"] == 0.125
    curves = {ax.get_title(): heights(ax)["small error"] for ax in kept["curves"].axes}
    assert curves == pytest.approx({"v=4 n=4 m=4 s=2 L=4": 1 - 0.1 * 0.75, "v=8 n=8 m=7 s=2 L=2": 1 - 0.1 * 0.875})
    bounds = {task: 0.1 * (1 - chance) for task, chance in zip(table["task"], table["chance"], strict=True)}
    for (_, task, _), own in complexities(table, 0.1).items():
        size_P, error_SP = curve(table.filter(pl.col("task") == task))
        assert own.value == sample_complexity(size_P, error_SP, bounds[task]).value


def test_every_rule_has_a_look_of_its_own_and_keeps_it_whatever_else_is_drawn():
    names = [path.stem for path in (ROOT / "configs/rules").glob("*.yaml")] + [f"rung {r}" for r in range(1, 9)]
    looks = styles(names)
    assert set(names) <= {name for row in STYLED for name in row}
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(names)
    assert all(styles([name, "another"])[name] == look for name, look in looks.items())
    unknown = styles([f"unknown {i}" for i in range(40)])
    assert len({(look.colour, look.marker) for look in unknown.values()}) == 40


def test_colours_can_be_told_apart_without_red_or_green():
    """Pairs of colours as people without red or green cones see them (Viénot et al. 1999)."""
    lms = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
    for blind in (
        np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
        np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
    ):
        seen = np.clip(LINEAR @ (np.linalg.inv(lms) @ blind @ lms).T, 0, 1) ** (1 / 2.2)
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 10 * np.eye(len(seen))
        assert apart.min() > 0.12


LINEAR = np.array([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in COLOURS]) ** 2.2
GREY = dict(zip(COLOURS, 116 * np.cbrt(LINEAR @ [0.2126, 0.7152, 0.0722]) - 16, strict=True))
"""Lightness L* of each colour, from 0 to 100."""


@pytest.mark.parametrize("path", sorted((ROOT / "configs/studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_rules_of_a_study_differ_in_colour_and_in_grey(path):
    content = yaml.safe_load(path.read_text())
    for rules in (content["rules"], content["quick"].get("rules", content["rules"])):
        names = [rule if isinstance(rule, str) else rule.get("name", rule["rule"]) for rule in rules]
        looks = styles(names).values()
        colours = [look.colour for look in looks]
        assert len(set(colours)) == min(len(names), len(COLOURS)) and max(map(colours.count, colours)) <= 2
        for one, other in itertools.combinations(looks, 2):
            if abs(GREY[one.colour] - GREY[other.colour]) < 15:
                assert one.marker != other.marker and one.line != other.line


def test_bounds_that_are_equal_do_not_hide_one_another_and_look_like_their_rule():
    names = ["backprop", "dfa", "sign_dfa", "feedback_alignment", "drtp"]
    points = {name: ([Point(512, 4096, 4096, 4096, 1), Point(4096, 64, 64, 64, -1)], None) for name in names}
    figure = complexity({"n m^L": points, "L": points})
    figure.draw_without_rendering()
    for ax in figure.axes:
        markers = [line for line in ax.get_children() if getattr(line, "get_marker", str)() not in ("", "None", "_", "|")]
        shown = [line for line in markers if line not in ax.lines or line.get_markerfacecolor() == "white"]
        assert len(shown) == 2 * len(names)
        looks = [(line.get_color(), line.get_marker()) for line in shown]
        assert set(looks) == {(look.colour, look.marker) for look in styles(names).values()}
        places = np.array([line.get_transform().transform(line.get_xydata())[0] for line in shown])
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1) + 100 * np.eye(len(places))
        assert apart.min() * 72 / figure.dpi > 5  # points; a marker has 5
        box = ax.get_window_extent()
        assert (places[:, 0] > box.x0).all() and (places[:, 0] < box.x1).all()
        ends = [(text.xycoords.transform(text.xy) - text.get_transform().transform(text.xyann))[1] for text in ax.texts]
        assert len(ends) == 2 * len(names)
        assert [np.sign(end) for end in ends] == [1 if text.xy[1] == 4096 else -1 for text in ax.texts]


def test_names_with_signs_that_matplotlib_reads_are_shown_as_they_are(tmp_path):
    names = ["a $x_{$ b", "_mine", r"$\alpha$"]
    curves = {name: Curve([64, 512], [0.2, 0.9], [0.1, 0.8], [0.3, 1.0]) for name in names}
    figure = learning_curves({names[0]: curves, "b": curves}, {names[0]: 0.1, "b": 0.1})
    figure.draw_without_rendering()
    assert [text.get_text() for text in figure.legends[0].texts][:3] == [plain(name) for name in names]
    study = Study([Rule("backprop", name=name) for name in names], [{"L": 3}], Sizes([64, 512]), seeds=[0])
    fake_study(tmp_path / "a", study, sigmoid_curve(lambda *_: 100))
    main(["report", str(tmp_path / "a")])
    assert all(f"<td>{name}</td>" in (tmp_path / "a/report/index.html").read_text() for name in names)


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
            value, value, value, 64.0, 4096.0, np.zeros(1), 3
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
    for out in (tmp_path / "thesis.txt/page", Path("/proc/none/page")):
        with pytest.raises(SystemExit) as stop:
            main(["report", str(made[0]), f"--out={out}"])
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.count("\n") == 1 and "out: got" in err and str(out) in err

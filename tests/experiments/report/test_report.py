"""The report of a study, finished or not, from results whose answer is known."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import polars
import pytest
import yaml
from PIL import Image
from study_helpers import BACKPROP, SIBLINGS, STUDY, fake_study, p_star, results, sigmoid_curve

from experiments.cli import main
from experiments.report.page import Page
from experiments.study.chosen import read_chosen
from experiments.study.folder import StudyFolder
from experiments.study.study import Rule, Sizes, Study
from experiments.study.tidy import complexities, gather

ROOT = Path(__file__).parents[3]


def test_the_tidy_table_has_a_row_for_each_replica_in_both_formats(made):
    folder, runs = made
    parquet, csv = polars.read_parquet(folder / "report/results.parquet"), polars.read_csv(folder / "report/results.csv")
    assert parquet.shape == csv.shape and parquet.height == sum(len(run.sizes) * len(run.seeds) for run in runs)
    run = runs[-1]
    content = json.loads((folder / "runs" / run.name / "results.json").read_text())
    rows = parquet.filter(polars.col("run") == run.name)
    for row, replica in zip(rows.iter_rows(named=True), content["replicas"], strict=True):
        assert (row["seed"], row["P"], row["test_accuracy"]) == (
            replica["seed"],
            replica["train_size"],
            replica["test_accuracy"],
        )
        assert row["L"] == 5 and row["n m^L"] == 8 * 4**5 and row["v m^3"] == 512 and row["chance"] == 0.125
        assert row["probe/layer2/level3"] == replica["probe"]["layer2"]["level3"]
        assert row["sensitivity/layer3/level2"] == 3.0
    assert csv["test_accuracy"].to_list() == pytest.approx(parquet["test_accuracy"].to_list(), rel=0, abs=5.1e-6)


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
    assert polars.read_csv(tmp_path / "out/results.csv")["run"].unique().to_list() == [made[1][5].name]


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


def test_a_study_that_has_not_begun_to_bear_results_is_reported_too(tmp_path):
    runs = fake_study(tmp_path / "a", STUDY, sigmoid_curve(p_star))
    shutil.rmtree(tmp_path / "a/runs")
    (tmp_path / "a/failed.json").write_text(json.dumps({runs[0].name: "data.m: got 9 <b>"}))
    main(["report", str(tmp_path / "a")])
    page = (tmp_path / "a/report/index.html").read_text()
    assert "0 of 6 runs" in page and "5 missing or unfinished; 1 failed" in page and "data.m: got 9 &lt;b&gt;" in page


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


def test_a_linked_page_has_each_figure_once_in_a_file_beside_it(made, tmp_path):
    main(["report", str(made[0]), f"--out={tmp_path}", "--linked=true"])
    page, whole = (tmp_path / "index.html").read_text(), (made[0] / "report/index.html").read_text()
    figures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*figures, "index.html", "results.csv"])
    assert sorted(unquote(link) for link in re.findall('src="([^"]+)"', page)) == figures
    assert re.sub('src="[^"]+"', "", page) == re.sub('src="[^"]+"', "", whole)
    for name in figures:
        small, large = Image.open(tmp_path / name).convert("RGB"), Image.open(made[0] / "report" / name).convert("RGB")
        apart = np.abs(np.asarray(small, int) - np.asarray(large, int))
        assert small.size == large.size and apart.mean() < 1 and (apart > 48).mean() < 1e-3, name
        assert (tmp_path / name).stat().st_size < 0.7 * (made[0] / "report" / name).stat().st_size


def test_the_reports_in_the_documents_have_each_figure_once():
    folders = [path for path in (ROOT / "docs/results").iterdir() if path.is_dir()]
    studies, comparisons = (
        {path.stem for path in (ROOT / f"configs/{of}").glob("*.yaml")} for of in ("studies", "comparisons")
    )
    assert studies <= {path.name for path in folders} <= studies | comparisons
    for folder in folders:
        page = (folder / "index.html").read_text()
        pictures = sorted(path.name for path in folder.glob("*.png"))
        assert sorted(unquote(link) for link in re.findall('src="([^"]+)"', page)) == pictures
        assert {path.suffix for path in folder.iterdir()} - {".json"} == {".png", ".html", ".csv"}
        read_chosen(folder / "chosen.json")  # what its searches have chosen, where it is kept
    assert sum(path.stat().st_size for path in (ROOT / "docs/results").rglob("*") if path.is_file()) < 8e6


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", " =1+1", "\t=1", "backprop"])
def test_a_name_is_text_for_a_spreadsheet(name, tmp_path, no_pictures):
    study = Study([Rule("backprop", name=name)], [{"L": 3}], Sizes([64, 512]), seeds=[0])
    fake_study(tmp_path / "a", study, sigmoid_curve(p_star))
    main(["report", str(tmp_path / "a")])
    with open(tmp_path / "a/report/results.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["rule"] for row in rows} == {name if name == "backprop" else f"'{name}"}
    texts = {value for row in rows for key, value in row.items() if key in ("run", "stage", "class", "task", "cell", "pairs")}
    assert not any(text.strip().startswith(tuple("=+-@")) for text in texts)
    assert float(rows[0]["test_accuracy"]) >= 0


def changed(file, **changes):
    def change(folder):
        content = yaml.safe_load((folder / file).read_text(encoding="utf-8"))
        (content["runs"][0] if file == "runs.json" else content).update(changes)
        (folder / file).write_text(json.dumps(content), encoding="utf-8")

    return change


def replaced(file, text):
    return lambda folder: (folder / file).write_text(text, encoding="utf-8")


FOREIGN = [
    replaced(file, text) for file in ("runs.json", "study.yaml") for text in ("", "{", "[1]", "3", "[" * 3000, "a: 1\na: 2")
]
FOREIGN += [
    changed("runs.json", task={"v": "x"}),
    changed("runs.json", task={"v": 8, "n": 8, "m": 9, "s": 2, "L": 3}),
    changed("runs.json", sizes=["64"]),
    changed("runs.json", sizes=None),
    changed("runs.json", cell=[]),
    changed("runs.json", name=3),
    changed("runs.json", vary="P"),
    changed("runs.json", args=[3]),
    changed("runs.json", more=1),
    replaced("chosen.json", '{"a": 3}'),
    changed("study.yaml", threshold="small"),
]


@pytest.mark.parametrize("change", FOREIGN)
def test_a_study_of_somebody_else_is_refused_in_a_line(change, made, tmp_path, capsys, no_pictures):
    for file in "runs.json", "study.yaml":
        shutil.copy(made[0] / file, tmp_path)
    change(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path)])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith(f"rhm: run_dir: got {tmp_path}") and err.count("\n") == 1


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"a": 3}', '{"a": {"kind": "?", "message": "b"}}', '{"a": {"kind": "failed"}}', "[" * 100000]
)
def test_failures_that_cannot_be_read_are_not_known(text, tmp_path):
    (tmp_path / "failed.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="failed.json: "):
        StudyFolder(tmp_path).read_failed()


def test_a_disk_that_fills_up_while_figures_are_drawn_is_said_in_a_line(made, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Page, "figure", full)
    with pytest.raises(SystemExit) as stop:
        main(["report", str(made[0]), f"--out={tmp_path / 'a'}"])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith(
        f"rhm: out: got {tmp_path / 'a'} (No space left on device), "
    )


def test_replicas_that_have_diverged_are_counted_and_named(tmp_path, no_pictures):
    runs = fake_study(tmp_path, Study([Rule("backprop")], [{"L": 3}], Sizes([64, 512]), seeds=[0, 1]), lambda *_: 0.5, False)
    path = tmp_path / "runs" / runs[0].name / "results.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for replica in content["replicas"]:
        replica["diverged"] = replica["train_size"] == 512
    path.write_text(json.dumps(content), encoding="utf-8")
    main(["report", str(tmp_path)])
    page = (tmp_path / "report/index.html").read_text(encoding="utf-8")
    assert (
        "<summary>Runs with diverged replicas, counted with what weights that are not finite reach: 1</summary><ul>"
        f"<li>{runs[0].name}: seed 0 of 512 strings, seed 1 of 512 strings</li></ul>" in page
    )

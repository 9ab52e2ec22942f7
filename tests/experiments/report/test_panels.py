"""What goes into which figure."""

from __future__ import annotations

import math

import polars
import pytest
import yaml
from study_helpers import fake_study, p_star, sigmoid_curve

from callbacks.figures import heat_map
from experiments.cli import main
from experiments.report import panels
from experiments.report.figures import LAW, ladder, learning_curves, p_star_by_task
from experiments.report.panels import RUNG_OF, rungs_of
from experiments.study.complexity import sample_complexity
from experiments.study.study import Rule, Sizes, Study
from experiments.study.tidy import complexities, curve, gather


def test_without_sensitivities_and_probes_there_are_no_maps(tmp_path):
    study = Study([Rule("backprop")], [{"L": 3}], Sizes([512, 2048]), seeds=[0])
    fake_study(tmp_path / "a", study, sigmoid_curve(p_star), maps=False)
    main(["report", str(tmp_path / "a")])
    assert [path.stem for path in (tmp_path / "a/report").glob("*.png")] == ["learning_curves"]


def test_the_mask_ladder_shows_the_accuracy_of_each_rung_at_the_largest_size(tmp_path):
    rungs = [Rule("mask_ladder", f"rung {r}", {"model.masks": m, "model.feedback": f}) for (m, f), r in RUNG_OF.items()]
    study = Study(rungs, [{"L": 3}], Sizes([512, 2048]), grid=[{"model.network.width": [8, 16]}], seeds=[0, 1])
    runs = fake_study(
        tmp_path / "a", study, lambda run, task, size, rng: int(run.rule[-1]) / 10 if size == 2048 else 0.0, False
    )
    main(["report", str(tmp_path / "a")])
    assert (tmp_path / "a/report/mask_ladder.png").exists()
    found = rungs_of(gather(tmp_path / "a/runs", runs).table, {run.name: run for run in runs})
    for line in next(iter(found.values())).values():
        assert {rung: mean for rung, (mean, _, _) in line.items()} == pytest.approx({r: r / 10 for r in range(1, 9)})
    assert len(next(iter(found.values()))) == 2


def found_rungs(folder, runs):
    return rungs_of(gather(folder / "runs", runs).table, {run.name: run for run in runs})


def test_rungs_are_found_wherever_masks_and_feedback_come_from(tmp_path):
    pairs = {"model.masks": ["exact", "constant"], "model.feedback": ["transposed", "random"]}
    one, sizes = [Rule("mask_ladder", "rung it")], Sizes([512])
    study = Study(one, [{"L": 3}], sizes, seeds=[0], grid=[{"model.network.width": [8, 16], **pairs}])
    (lines,) = found_rungs(tmp_path / "grid", fake_study(tmp_path / "grid", study, lambda *_: 0.9, False)).values()
    assert {name: sorted(line) for name, line in lines.items()} == {"width=8": [1, 4, 5, 6], "width=16": [1, 4, 5, 6]}
    study = Study(one, [{"L": 3}], sizes, seeds=[0], settings={"model.masks": "batch_mean"})
    (lines,) = found_rungs(tmp_path / "all", fake_study(tmp_path / "all", study, lambda *_: 0.9, False)).values()
    assert {name: sorted(line) for name, line in lines.items()} == {"accuracy": [2]}
    runs = fake_study(tmp_path / "searched", Study(one, [{"L": 3}], sizes, seeds=[0]), lambda *_: 0.9, False)
    chosen = {"model": {"init_args": {"masks": "none", "feedback": "direct"}}}  # nothing but the run itself knows
    (tmp_path / "searched/runs" / runs[0].name / "config.yaml").write_text(yaml.safe_dump(chosen))
    (lines,) = found_rungs(tmp_path / "searched", runs).values()
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
    monkeypatch.setattr(panels, "heat_map", lambda maps, floor, label: floors.append(floor) or heat_map(maps, floor, label))
    monkeypatch.setattr(panels, "learning_curves", lambda *args: kept.setdefault("curves", learning_curves(*args)))
    monkeypatch.setattr(panels, "ladder", lambda *args: kept.setdefault("ladder", ladder(*args)))
    main(["report", str(tmp_path / "a")])
    assert floors == [0.25, 0.0]  # probes of the largest task, which has four classes and symbols; sensitivities
    for figure in kept.values():
        shown = {ax.get_title(): heights(ax) for ax in figure.axes}
        assert shown["v=4 n=4 m=4 s=2 L=4"]["chance"] == 0.25 and shown["v=8 n=8 m=7 s=2 L=2"]["chance"] == 0.125
    curves = {ax.get_title(): heights(ax)["small error"] for ax in kept["curves"].axes}
    assert curves == pytest.approx({"v=4 n=4 m=4 s=2 L=4": 1 - 0.1 * 0.75, "v=8 n=8 m=7 s=2 L=2": 1 - 0.1 * 0.875})
    bounds = {task: 0.1 * (1 - chance) for task, chance in zip(table["task"], table["chance"], strict=True)}
    for (_, task, _), own in complexities(table, 0.1).items():
        size_P, error_SP = curve(table.filter(polars.col("task") == task))
        assert own.value == sample_complexity(size_P, error_SP, bounds[task]).value


def test_figures_show_the_floor_and_the_laws_of_each_task(tmp_path, monkeypatch):
    tasks = [{"v": 8, "n": 8, "m": 4, "L": [3, 4]}]
    study = Study([Rule("backprop")], tasks, Sizes([64, 512, 4096]), seeds=[0, 1])
    fake_study(tmp_path / "a", study, sigmoid_curve(lambda *_: 200))
    kept = {}
    monkeypatch.setattr(panels, "learning_curves", lambda *args: kept.setdefault("curves", learning_curves(*args)))
    monkeypatch.setattr(panels, "p_star_by_task", lambda *args: kept.setdefault("args", args) and p_star_by_task(*args))
    main(["report", str(tmp_path / "a")])
    upright = [[line.get_xdata()[0] for line in ax.lines if line.get_color() == LAW] for ax in kept["curves"].axes]
    assert upright == [pytest.approx([8 * 4 * math.log(10), *own]) for own in ([512], [512, 2048])]
    laws = kept["args"][2]
    assert laws["L"] == {
        "n m ln 10": pytest.approx({3: 73.68, 4: 73.68}, abs=0.01),
        "v m^3": {3: 512, 4: 512},
        "n m^L": {3: 512, 4: 2048},
    }
    assert laws["n m^L"] == {"n m^L": {512: 512, 2048: 2048}} and laws["v m^3"] == {"v m^3": {512: 512}}


def test_of_labels_theory_says_less_and_of_other_statistics_nothing(tmp_path):
    study = Study([Rule("backprop")], [{"L": [3, 4]}], Sizes([64, 512]), seeds=[0])
    table = gather(tmp_path / "a/runs", fake_study(tmp_path / "a", study, sigmoid_curve(lambda *_: 200))).table
    assert set(panels._laws_by_abscissa(table, "training")["L"]) == {"n m ln 10", "v m^3", "n m^L"}
    own = panels._laws_by_abscissa(table, "labelled")
    assert set(own) == {"n m^L", "L"} and set(own["L"]) == {"n m ln 10", "n m^L"}
    noisy = table.with_columns(plain=polars.lit(False))
    assert panels._laws(noisy, "training") == panels._laws_by_abscissa(noisy, "training") == {}

"""The look of figures."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import yaml
from study_helpers import fake_study, sigmoid_curve

from experiments.cli import main
from experiments.report.figures import (
    COLOURS,
    LAW,
    STYLED,
    Curve,
    Line,
    Point,
    RoundNumbers,
    ladder,
    learning_curves,
    p_star_by_task,
    plain,
    styles,
)
from experiments.study.study import Rule, Sizes, Study

ROOT = Path(__file__).parents[3]


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
    figure = p_star_by_task({"n m^L": points, "L": points})
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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("count", "length"),
    [(1, 60), (17, 60), *(pytest.param(*case, marks=pytest.mark.chaos) for case in ((1, 8), (17, 8), (44, 8), (120, 60)))],
)
def test_legends_are_whole_and_leave_room_for_the_panels(count, length):
    names = [f"rule {i}".ljust(length, "x") for i in range(count)]
    curves = {name: Curve([64, 512], [0.2, 0.9], [0.1, 0.8], [0.3, 1.0]) for name in names}
    points = {name: ([Point(x, 4096, 512, 8192, 0) for x in (64, 512)], Line(1, 1, "0.95 [0.80, 1.10]")) for name in names}
    rungs = {name: {1: (0.9, 0.8, 1.0), 2: (0.5, 0.4, 0.6)} for name in names}
    for figure in (
        learning_curves({"a": curves}, {"a": 0.1}),
        p_star_by_task({"n m^L": points, "v m^3": points}),
        ladder({"a": rungs}, {"a": 0.1}),
    ):
        figure.draw_without_rendering()
        legends = figure.legends + [ax.get_legend() for ax in figure.axes if ax.get_legend() is not None]
        assert legends and {
            name for legend in legends for text in legend.texts for name in names if name in text.get_text()
        } == {*names}
        for legend in legends:
            box = legend.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        for ax in figure.axes:
            box = ax.get_window_extent().transformed(figure.dpi_scale_trans.inverted())
            assert box.width > 2.5 and box.height > 1.8


def grey(ax):
    """What is drawn of theory: the lines, and the texts beside them."""
    lines = [line for line in ax.lines if line.get_color() == LAW]
    return [list(zip(*line.get_data(), strict=True)) for line in lines], [text.get_text() for text in ax.texts]


def test_laws_are_drawn_where_there_are_points_and_leave_the_panels_as_they_are():
    curves = {"a": Curve([64, 512], [0.2, 0.9], [0.1, 0.8], [0.3, 1.0])}
    ax = learning_curves(
        {"t": curves}, {"t": 0.1}, laws={"t": {"n m ln 10": 43.0, "v m^3": 767.0, "n m": 767.0, "n m^L": 770.0}}
    ).axes[0]
    assert [line[0][0] for line in grey(ax)[0]] == [43.0, 767.0] and grey(ax)[1] == ["n m ln 10", "v m$^3$, n m"]
    assert not learning_curves({"t": curves}, {"t": 0.1}, laws={"t": {"n m ln 10": 42.0}}).axes[0].texts
    points = {"a": ([Point(L, 100 * L, 90 * L, 110 * L, 0) for L in (3, 4)], None)}
    laws = {"L": {"v m^3": {3: 350.0, 4: 350.0}, "n m^L": {3: 312.0, 4: 1e9}, "n m ln 10": {3: 1.0, 4: 1.0}}}
    plain, drawn = (p_star_by_task({"L": points}, laws=own).axes[0] for own in (None, laws))
    assert grey(drawn) == ([[(3, 350), (4, 350)], [(3, 312), (4, 1e9)], [(3, 1), (4, 1)]], ["v m$^3$", "n m$^L$"])
    assert [text.xy for text in drawn.texts] == [(4, 350), (3, 312)]
    assert (plain.get_xlim(), plain.get_ylim()) == (drawn.get_xlim(), drawn.get_ylim())


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (32, 2048, [100, 300, 1000]),
        (20, 80, [20, 50]),
        (400, 900, [400, 500, 600, 700, 800, 900]),
        (1, 1e7, [1, 30, 1e3, 3e4, 1e6]),
    ],
)
def test_ticks_are_round_numbers_as_few_as_there_must_be(low, high, ticks):
    assert RoundNumbers().tick_values(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize("sizes", [[450, 470, 500], [1200, 2400, 4800, 9600], [7], [1, 10**7], [32, 128, 512, 2048]])
def test_numbers_of_an_axis_stand_apart(sizes):
    curves = {"a": Curve(sizes, *([0.5] * len(sizes) for _ in range(3)))}
    points = {"a": ([Point(x, x, x, x, 0) for x in sizes], None)}
    for figure in (
        learning_curves({str(i): curves for i in range(3)}, dict.fromkeys("012", 0.1)),
        p_star_by_task({"n m^L": points}),
    ):
        figure.draw_without_rendering()
        for ax in figure.axes:
            for axis, side in (ax.xaxis, "x"), (ax.yaxis, "y"):
                low, high = sorted(axis.get_view_interval())
                ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high and tick.label1.get_visible()]
                boxes = sorted(
                    (getattr(b, f"{side}0"), getattr(b, f"{side}1")) for b in (t.label1.get_window_extent() for t in ticks)
                )
                assert len(boxes) >= min(2, len(sizes)) or (side == "y" and ax is not figure.axes[0])  # which share theirs
                assert all(one[1] + 2 < other[0] for one, other in itertools.pairwise(boxes))
                texts = [tick.label1.get_text() for tick in ticks]
                assert len(set(texts)) == len(texts)


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

"""Tables of a report."""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import asdict, replace

import numpy as np
import polars
import pytest
from study_helpers import NAMES, STUDY, fake_study, p_star, sigmoid_curve

from experiments.cli import main
from experiments.report.tables import accuracy_table, chosen_table, exponents, ratio, unit_of, values_table
from experiments.study.chosen import Chosen, Trial, read_chosen, write_chosen
from experiments.study.complexity import sample_complexity
from experiments.study.study import Rule, Sizes, Study
from experiments.study.tidy import complexities, gather
from rhm import InvalidInput

CHOSEN = {
    "backprop": Chosen({"model.optimizer.lr": 0.2, "model.network.bottleneck": None}, 0.75, [], "a/search-1", 6, 0, 7200),
    "dfa": Chosen(
        {
            "model.optimizer.lr": 0.1,
            "model.clip": 1.0,
            "trainer.callbacks": [{"class_path": "CosineDecay", "init_args": {"warm_up": 9}}],
        },
        0.5,
        ["model.clip"],
        "b/search-2",
        6,
        2,
        7200,
        667,
    ),
}


def test_settings_of_few_searches_share_a_column_and_a_file_that_was_best_is_named():
    own = CHOSEN["dfa"]
    three = CHOSEN | {"clapp": replace(own, settings={"model.optimizer.lr": 0.1, "model.block.head": "v"}, at_edge=[])}
    lpl = {"lpl": replace(own, settings={}, at_edge=[])}
    table = chosen_table({**three, "gim": replace(own, settings={"model.optimizer.lr": 0.1}), **lpl}).rows(named=True)
    assert [row["model.optimizer.lr"] for row in table] == ["0.2", "0.1", "0.1", "0.1", "as its file"]
    assert [row["of its own"] for row in table][2:] == ['model.block.head: "v"', "–", "as its file"]
    assert chosen_table(lpl)["settings"].to_list() == ["as its file"]
    assert table[1]["of its own"] == "model.clip: 1.0, trainer.callbacks: CosineDecay" and "model.clip" not in table[1]


def test_page_and_document_say_what_the_search_has_chosen_and_what_lies_at_an_edge(tmp_path, no_pictures):
    fake_study(tmp_path / "a", STUDY, sigmoid_curve(p_star))
    write_chosen(tmp_path / "a/chosen.json", CHOSEN)
    keys = "search", "model.optimizer.lr", "model.network.bottleneck", "model.clip", "at the edge", "settings tried"
    shown = chosen_table(read_chosen(tmp_path / "a/chosen.json")).select(*keys, "steps x replicas").rows()
    assert shown == [
        ("backprop", "0.2", "null", "–", "none", "6", "7,200"),
        ("dfa", "0.1", "–", "1.0", "model.clip", "6, 2 failed", "7,200"),
    ]
    (tmp_path / "own.md").write_text("before\n<!-- table: begin -->\nold\n<!-- table: end -->\nafter\n")
    main(["report", str(tmp_path / "a"), f"--tables={tmp_path / 'own.md'}"])
    assert "<summary>Settings chosen by the search</summary>" in (tmp_path / "a/report/index.html").read_text()
    text = (tmp_path / "own.md").read_text()
    assert text.startswith("before\n<!-- table: begin -->\n**v=8") and text.endswith("|\n<!-- table: end -->\nafter\n")
    assert text.index("**v=8") < text.index("**P*: strings for an error of 0.1") < text.index("**settings chosen**")
    assert (
        "| dfa | 0.1 | – | 1.0 | CosineDecay | 667 | model.clip | 0.500 | 6, 2 failed | 7,200 |" in text and "old" not in text
    )
    main(["report", str(tmp_path / "a"), f"--tables={tmp_path / 'own.md'}"])
    assert (tmp_path / "own.md").read_text() == text


def test_accuracies_stand_beside_the_network_the_best_rule_first_with_their_mean_and_deviation(tmp_path, no_pictures):
    study = Study([Rule("backprop"), Rule("dfa", sizes=Sizes([512]))], [{"L": [3, 4]}], Sizes([64, 1024]), seeds=[0, 1])
    shares = {("backprop", 64): [0.1, 0.3], ("backprop", 1024): [0.25, 0.25], ("dfa", 512): [0.5, 0.7]}
    runs = fake_study(
        tmp_path, study, lambda run, task, size, rng: shares[run.rule, size].pop(0) if task.L == 3 else 0.5, False
    )
    for run in runs:
        path = tmp_path / "runs" / run.name / "results.json"
        content = json.loads(path.read_text())
        content["supervision"]["layers"] = ["rule", "rule", "labels"]
        own = (
            {"bottleneck": "v", "handed_on": [8, 8, 64]}
            if run.rule == "dfa"
            else {"bottleneck": None, "handed_on": [64, 64, 64]}
        )
        for replica in content["replicas"][: 3 if run.rule == "backprop" else 0]:
            replica["converged"] = replica["seed"] == 0
        content["network"] = {
            "class": "HierarchicalNetwork",
            "units": [64, 64, 64],
            "activation": "tanh",
            "normalise": False,
            **own,
        }
        if run.rule == "dfa":  # replicas of 1,000 steps in a run of 1,500, 128 strings each
            content |= {"operations_per_string": 1.2e6, "samples_seen": 192_000, "steps": 1500}
            content["replicas"] = [{**replica, "steps": 1000} for replica in content["replicas"]]
        path.write_text(json.dumps(content))
    table = gather(tmp_path / "runs", runs).table
    rows = accuracy_table(table, "v=8 n=8 m=4 s=2 L=3", "", 0.1).rows(named=True)
    assert [list(row.values()) for row in rows] == [
        [
            "dfa",
            "labels",
            "labels",
            "Hierarchical, 64 tanh units, hands on 8, normalised",
            "",
            "0.600 ± 0.141",
            "",
            "1,000",
            "154",
            "12",
        ],
        [
            "backprop",
            "labels",
            "labels",
            "Hierarchical, 64 tanh units",
            "0.200 ± 0.141",
            "",
            "0.250 ± 0.000",
            "1,000, 1 of 4 not converged",
            "",
            "12",
        ],
    ]
    assert list(rows[0])[4:7] == ["P = 64", "P = 512", "P = 1,024"]


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"a": {"settings": {}}}',
        *(json.dumps({"a": {**asdict(CHOSEN["dfa"]), **own}}) for own in ({"accuracy": "high"}, {"steps": "many"})),
    ],
)
def test_what_was_chosen_is_refused_where_it_cannot_be_read(text, tmp_path):
    write_chosen(tmp_path / "chosen.json", CHOSEN)
    assert read_chosen(tmp_path / "chosen.json") == CHOSEN and read_chosen(tmp_path / "none.json") == {}
    (tmp_path / "chosen.json").write_text(text)
    with pytest.raises(InvalidInput, match="chosen.json"):
        read_chosen(tmp_path / "chosen.json")


def test_rules_named_as_columns_of_the_overview_keep_columns_of_their_own(tmp_path, no_pictures):
    rules = [Rule("backprop", name) for name in ("task", "settings", "rule")]
    grid = [{"model.network.width": [64, 256]}]
    study = Study(rules, [{"L": [3, 4]}], Sizes([64, 4096]), grid=grid, seeds=[0, 1])
    fake_study(tmp_path / "a", study, sigmoid_curve(lambda *_: 500), False)
    main(["report", str(tmp_path / "a")])
    page = (tmp_path / "a/report/index.html").read_text()
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page.split("</table>")[0])]
    assert rows[0] == ["task", "settings", "task (rule)", "settings (rule)", "rule"]
    assert rows[1][:2] == ["v=8 n=8 m=4 s=2 L=3", "width=64"]


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
    rows = exponents(table, complexities(table, 0.1))
    for m in (3, 4):
        for rule, factor in (("backprop", m), (NAMES[1], 1)):
            text = rows.filter(polars.col("rule") == rule)[f"factor from level to level, m={m}"][0]
            low, high = map(float, re.findall(r"[\d.]+", text)[1:3])
            assert float(text.split()[0]) == pytest.approx(factor, rel=0.15) and low <= factor * 1.15 and high >= factor / 1.15


@pytest.mark.parametrize(
    ("own", "other", "shown"),
    [
        (500, 1000, "0.5"),
        (math.inf, 1000, "> 4.1"),
        (-math.inf, 640, "≤ 0.1"),
        (500, math.inf, "< 0.12"),
        (500, -math.inf, "≥ 7.8"),
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


def test_a_study_of_labels_counts_labelled_strings_and_says_in_a_sentence_who_needs_how_many(tmp_path, no_pictures):
    need = {"backprop": 900, "sibling_contrastive": 60, "clapp": 2, "frozen": 9999}
    rules = [Rule("backprop", vary="train_size", sizes=Sizes([256, 1024, 4096])), *map(Rule, [*need][1:])]
    labels = {"vary": "label_size", "settings": {"data.train_size": 4096}, "seeds": [0, 1]}
    study = Study(rules, [{"L": 3}], Sizes([8, 32, 128, 512]), "How few labels?", **labels)
    runs = fake_study(tmp_path / "a", study, sigmoid_curve(lambda run, task: need[run.rule]), False)
    main(["report", str(tmp_path / "a")])
    page = html.unescape((tmp_path / "a/report/index.html").read_text(encoding="utf-8"))
    table = gather(tmp_path / "a/runs", runs).table
    own = {rule: found.shown(found.value) for (rule, *_), found in complexities(table, 0.1).items()}
    counts = f"clapp ≤ 8, sibling_contrastive {own['sibling_contrastive']}, backprop {own['backprop']}, frozen > 512"
    assert f"<li>v=8 n=8 m=4 s=2 L=3, labelled strings for a small error: {counts}.</li>" in page
    assert "<h2>Labelled strings that each rule needs</h2>" in page and "smallest number of labelled strings" in page
    assert "training strings" not in page
    assert all(unit_of(rows) == ("training" if rule == "backprop" else "labelled") for (rule,), rows in table.group_by("rule"))


def test_of_five_seeds_it_is_told_how_many_have_a_small_error(tmp_path, no_pictures):
    study = Study([Rule("backprop")], [{"L": [3]}], Sizes([64, 128]), seeds=[0, 1, 2, 3, 4])
    shares = {64: [1.0, 1.0, 0.92, 0.9125, 0.125], 128: [0.91, 0.9, 0.5, 0.5, 0.5]}  # chance error 7/8, a tenth of it .0875
    runs = fake_study(tmp_path, study, lambda run, task, size, rng: shares[size].pop(0), False)
    (row,) = accuracy_table(gather(tmp_path / "runs", runs).table, "v=8 n=8 m=4 s=2 L=3", "", 0.1).rows(named=True)
    assert row["P = 64"].endswith(", 4 of 5") and row["P = 128"].endswith(", 0 of 5")


def test_what_the_best_run_with_each_value_reached():
    rates, bottlenecks, low = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [None, "v", "v", None, "v", None], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    settings = [
        {"model.optimizer.lr": rate, "model.network.bottleneck": width} for rate, width in zip(rates, bottlenecks, strict=True)
    ]
    trials = [Trial(own, {"30": accuracy}) for own, accuracy in zip(settings, low, strict=True)]
    trials[0] = Trial(settings[0], {"30": 0.1, "90": 0.7}, {"90": 1.0})  # a final has other grammars, and does not count
    own = Chosen(settings[0], 1.0, [], "a/search-1", 7, 0, 1, trials=[*trials, Trial({}, {"30": 0.9}), Trial(settings[1])])
    (row,) = values_table({"a": own}).rows(named=True)  # six rates are no values of a list
    assert row == {"search": "a", "model.network.bottleneck": 'null 0.700 (4); "v" 0.500 (3)'}
    assert values_table({}).height == 0
    by_hand = replace(own, settings={**settings[0], "model.clip": 1.0})
    assert values_table({"a": by_hand}).rows(named=True) == [row]  # what no run was given is left out

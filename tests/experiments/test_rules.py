"""``rhm rules``: every settings file, and rules of a person's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_line import refused, rhm

from experiments.rules import FAMILIES, NO_FILE
from experiments.settings import discover
from experiments.terminal import PlainConsole
from rules import Locality, LocalRule

ROOT = Path(__file__).parents[2]


RULES = sorted((ROOT / "configs" / "rules").glob("*.yaml"))


def table_of_rules(capsys) -> dict[str, list[str]]:
    """The cells of each line of ``rhm rules``, by the first."""
    rhm("rules")
    lines = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    return {first: cells for first, *cells in lines}


def test_rules_lists_every_settings_file_with_what_the_rule_that_it_builds_says(capsys):
    table = table_of_rules(capsys)  # of what is wrapped, the first line
    assert {path.stem for path in RULES} | {*FAMILIES} <= table.keys() and "no family" not in table and NO_FILE not in table
    seen = {name: " ".join(cells) for name, cells in table.items()}
    assert seen["sibling_contrastive"].startswith("LayerwiseContrastive none labels partner, batch, lateral,")
    assert seen["class_contrastive"].startswith("LayerwiseContrastive labels partner, batch, lateral,")
    assert seen["label_context"].startswith("LayerwiseContrastive labels nothing partner, batch, lateral,")
    assert seen["random_expansion"].startswith("LayerwiseContrastive none nothing partner, batch, lateral,")
    assert seen["clapp_pp"] == "CLAPPPlusPlus none labels partner, batch, lateral, arXiv 2601.21683"
    assert seen["dfa"].startswith("DirectFeedbackAlignment labels lateral, error")
    assert seen["drtp"].split()[1:4] == ["labels", "lateral,", "label"]
    assert table["frozen"][:3] == ["FrozenFeatures", "none", "nothing"]
    order = [*table]
    assert order.index("feedback") < order.index("dfa") < order.index("self-supervised") < order.index("gim")
    for rule in (rule for rule in discover().values() if issubclass(rule, LocalRule)):
        assert rule.family in FAMILIES and rule.source and rule.__name__ in {cells[0] for cells in table.values() if cells}, (
            rule
        )
        assert rule.__doc__ and rule.__doc__ != LocalRule.__doc__


class Mine(LocalRule):
    """A rule with no more than a rule must have."""

    knowledge = "none"

    def layer_updates(self, step):
        return []


class Ours(Mine):
    """A rule of another family, without a settings file."""

    family, locality = "evolution", Locality(label=True)


@pytest.fixture
def few_rules(tmp_path, monkeypatch):
    """A folder of settings files with two of ours and that of a rule without attributes."""
    for name in "scff", "end_to_end_contrastive":
        (tmp_path / f"{name}.yaml").write_text((ROOT / "configs/rules" / f"{name}.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(f"model: {Mine.__module__}.Mine\n")
    found = {**discover(), "Ours": Ours}
    monkeypatch.setattr("experiments.rules.discover", lambda: found)
    monkeypatch.setattr("experiments.rules.RULE_FILES", tmp_path)
    return tmp_path


def test_rules_lists_rules_of_a_persons_own_with_no_family_or_another(few_rules, capsys):
    table = table_of_rules(capsys)
    assert table["mine"] == ["Mine", "none"]
    assert [*table].index("evolution") > [*table].index("supervised layerwise")
    assert table["evolution"] == table["no family"] == []
    assert any(cells[:3] == ["Ours", "none", "label"] for name, cells in table.items() if name == NO_FILE)


def test_rules_does_not_break_names_in_a_terminal_of_80_columns(few_rules, capsys, monkeypatch):
    monkeypatch.setattr("experiments.rules.wide_console", lambda: PlainConsole(width=80))
    rhm("rules")
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.startswith("configs/rules"))
    assert max(map(len, lines)) <= 80 and "sees" in header.split()
    words = {word for line in lines for word in re.split(r"[\s,]+", line)}
    assert {
        "end_to_end_contrastive",
        "SelfContrastiveForwardForward",
        "labels",
        "partner",
        "lateral",
        "other",
        "layers",
    } <= words


@pytest.mark.parametrize(
    ("text", "words"),
    [("{}", ["model: got nothing"]), ("model: {class_path: Backprop, init_args: {clips: 1}}", ["model.clips", "'clip'"])],
)
def test_rules_names_a_settings_file_that_builds_no_rule(text, words, few_rules, capsys):
    (few_rules / "bad.yaml").write_text(text + "\n")
    line = refused(capsys, "rules")
    assert all(word in line for word in [f"{few_rules / 'bad.yaml'}: got settings that build no rule", *words]), line

"""Imports go upward only, and a rule has what the documents say of it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from experiments.cli import discover
from rules import LocalRule

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "rhm": set(),
    "networks": {"rhm"},
    "datamodules": {"rhm"},
    "rules": {"rhm", "networks", "datamodules"},
    "callbacks": {"rhm", "networks", "datamodules", "rules"},
    "experiments": {"rhm", "networks", "datamodules", "rules", "callbacks"},
}


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names & MAY_IMPORT.keys()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_upward_only(package):
    files = list((ROOT / package).glob("*.py"))
    assert files
    for path in files:
        assert imported(path) <= MAY_IMPORT[package] | {package}, path


RULES = [item for item in discover().values() if issubclass(item, LocalRule)]


@pytest.mark.parametrize("rule", RULES, ids=lambda c: c.__name__)
def test_every_rule_says_where_it_is_from_what_it_sees_and_what_it_knows(rule):
    assert rule.source and rule.__doc__ and rule.locality is not None
    assert rule.knowledge in ("labels", "grammar", "none")
    assert not (rule.knowledge == "none" and (rule.locality.label or rule.locality.error or rule.locality.scalar_error))


def test_the_rules_are_found():
    assert {"Backprop", "DirectFeedbackAlignment", "LayerwiseContrastive"} <= {c.__name__ for c in RULES}

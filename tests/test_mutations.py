"""The script behind ``make test-mutations``: it breaks what it says, and tells what is caught from what survives."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
import yaml
from equations import ask
from rich.progress import Progress
from rule_helpers import compute

PATH = Path(__file__).parent / "mutations.py"


@pytest.fixture
def mutations(monkeypatch):
    spec = importlib.util.spec_from_file_location("mutations", PATH)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "mutations", module)  # dataclasses look their module up
    monkeypatch.setattr(sys, "path", sys.path.copy())
    spec.loader.exec_module(module)
    torch.set_default_dtype(torch.float64)
    yield module
    torch.set_default_dtype(torch.float32)


def test_every_broken_term_of_a_rule_is_caught(mutations):
    (row,) = mutations.rows(["gevb"], Progress(disable=True))
    assert row.counts["values"] == row.counts.total() >= 5 and not row.survivors


def test_what_nobody_compares_survives_and_is_not_explained(mutations, monkeypatch):
    def run(case):
        rule = mutations.copied(case.rule)
        ask.move(rule, ask.said(rule, compute(rule))[0])

    monkeypatch.setattr(mutations.Prepared, "check", run)
    (row,) = mutations.rows(["gevb"], Progress(disable=True))
    assert row.counts["survived"] == len(row.survivors) >= 5 and not row.counts["values"]
    assert mutations.explain(*row.survivors[0]) is None and "not explained" in mutations.markdown([row])


def test_every_survivor_that_is_explained_still_stands_in_the_code():
    """An explanation is found by a function's name and the source of an expression in it."""
    root = PATH.parents[1]
    found = set()
    for path in [*root.glob("rules/**/*.py"), *root.glob("networks/*.py")]:
        for owner in ast.walk(ast.parse(path.read_text())):
            if not isinstance(owner, (ast.ClassDef, ast.Module)):
                continue
            prefix = f"{owner.name}." if isinstance(owner, ast.ClassDef) else ""
            for function in owner.body:
                if isinstance(function, ast.FunctionDef):
                    expressions = (node for node in ast.walk(function) if isinstance(node, ast.expr))
                    found |= {(prefix + function.name, ast.unparse(node)) for node in expressions}
    for entry in yaml.safe_load((PATH.parent / "mutations.yaml").read_text()):
        assert (entry["function"], ast.unparse(ast.parse(entry["expression"], mode="eval"))) in found, entry

"""``rhm check --contract``: whether the rule of the settings keeps the contract, as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from experiments.settings import instantiate
from experiments.terminal import wide_console
from rules import LocalRule
from rules.checking import SIZES, findings_of


def show_contract(settings: dict[str, Any]) -> None:
    """Try the rule on its task and pairs with few strings, and print what each check found.

    Args:
        settings: of a run, with all that is left to defaults.

    Raises:
        SystemExit: with code 1, as a check has failed.
    """
    data = settings["data"]

    def make(seeds: Sequence[int]) -> LocalRule:
        arguments = {**data["init_args"], **SIZES, "label_size": None, "seeds": list(seeds)}
        parts = {"model": settings["model"], "data": {**data, "init_args": arguments}}
        rule = instantiate([f"--{part}={json.dumps(tree)}" for part, tree in parts.items()])
        return rule.prepare(rule.data)

    findings = findings_of(make)
    name = settings["model"]["class_path"].rpartition(".")[2]
    table = Table(box=SIMPLE_HEAD, show_edge=False)
    table.add_column("the contract", no_wrap=True)
    table.add_column(name, overflow="fold")
    for finding in findings:
        table.add_row(finding.check, finding.found or "ok")
    wide_console().print_table(table)
    if not all(finding.ok for finding in findings):
        raise SystemExit(1)

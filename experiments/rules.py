"""``rhm rules``: every learning rule, as its class describes itself."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import yaml
from rich.table import Table

from experiments.tables import wide_console
from rhm import InvalidInput
from rhm.errors import nearest
from rules import LocalRule

SETTINGS = Path(__file__).parent.parent / "configs" / "rules"


def rules() -> None:
    """List every rule with family, supervision, locality, source and settings files."""
    from experiments.cli import discover

    found = {item for item in discover().values() if issubclass(item, LocalRule) and not inspect.isabstract(item)}
    files = settings_files()
    table = Table(title="what a layer's update sees beyond the layer's own activity and weights, as the tests prove it")
    for column in "family", "rule", "supervision", "sees", "source", "configs/rules":
        table.add_column(column, overflow="fold")
    for family in FAMILIES:
        for rule in sorted((rule for rule in found if rule.family == family), key=lambda rule: rule.__name__):
            names = ", ".join(sorted(files.get(rule.__name__, [])))
            table.add_row(family, rule.__name__, supervision(rule), sees(rule), rule.source, names)
        table.add_section()
    wide_console().print(table)


def settings_file(rule: str) -> Path:
    """A settings file, given by its path or by its name in ``configs/rules``.

    Raises:
        InvalidInput: there is none.
    """
    for path in Path(rule), SETTINGS / f"{rule}.yaml":
        if path.is_file():
            return path
    known = {path.stem for path in SETTINGS.glob("*.yaml")}
    raise InvalidInput("rule", rule, f"a settings file or the name of one in configs/rules{nearest(rule, known)}")


FAMILIES = ("reference", "feedback", "self-supervised", "supervised layerwise")
"""In the order of the table."""


def supervision(rule: type[LocalRule]) -> str:
    """What the hidden layers learn from beyond strings: ``labels``, ``none``, or what the pairs take."""
    return "as the pairs" if rule.uses_pairs else rule.knowledge


def sees(rule: type[LocalRule]) -> str:
    """The parts of a rule's locality that are open, in words."""
    return ", ".join(f.name.replace("_", " ") for f in fields(rule.locality) if getattr(rule.locality, f.name)) or "nothing"


def settings_files() -> dict[str, list[str]]:
    """Names of the settings files of each rule's class."""
    found: dict[str, list[str]] = {}
    for path in SETTINGS.glob("*.yaml"):
        rule = yaml.safe_load(path.read_text())["model"]["class_path"].rsplit(".", 1)[-1]
        found.setdefault(rule, []).append(path.stem)
    return found

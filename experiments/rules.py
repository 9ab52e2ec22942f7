"""``rhm rules``: every learning rule, as its settings file builds it."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

from jsonargparse import ArgumentError
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from experiments.explain import in_one_line
from experiments.settings import RULE_FILES, check_file, discover, instantiate
from experiments.terminal import wide_console
from rhm import InvalidInput
from rules import LocalRule

FAMILIES = ("reference", "feedback", "self-supervised", "supervised layerwise")
"""In the order of the table; any other comes after them."""
NO_FILE = "–"
ROOM_FOR_SOURCES = 110
"""Columns of a terminal; one with fewer gets a table without sources."""


def rules() -> None:
    """List every rule by family: settings file, class, supervision, what trains the layers above its own, locality, source."""
    console = wide_console()
    title = (
        "sees: what a layer's update and what it tracks depend on beyond its own activity and weights, as the tests prove it\n"
        "top layer: what trains the layers that the rule leaves alone, where there are such"
    )
    sources = console.width >= ROOM_FOR_SOURCES
    table = Table(title=title, box=SIMPLE_HEAD, show_edge=False, padding=(0, int(sources), 0, 0))
    for column in "configs/rules", "class":
        table.add_column(column, no_wrap=True)
    table.add_column("learns from", min_width=len("labels"))
    table.add_column("top layer", min_width=len("nothing"))
    table.add_column("sees", min_width=len("transport"))
    if sources:
        table.add_column("source", overflow="fold")
    listed = all_rules()
    if any(name == NO_FILE for name, _ in listed):
        table.caption = f"{NO_FILE} no settings file, so no test: what the class says of itself"
    others = sorted({family(rule) for _, rule in listed}.difference(FAMILIES))
    for heading in (*FAMILIES, *others):
        table.add_row(Text(heading, style="bold"))
        for name, rule in listed:
            if family(rule) == heading:
                source = [getattr(rule, "source", "")] if sources else []
                table.add_row(name, class_of(rule).__name__, supervision(rule), upper_layers(rule), sees(rule), *source)
        table.add_section()
    console.print_table(table)


def all_rules() -> list[tuple[str, LocalRule | type[LocalRule]]]:
    """The rule of each settings file with the file's name, and with a dash each class that has no file.

    Raises:
        InvalidInput: a settings file that builds no rule.
    """
    built = [(path.stem, build(path)) for path in sorted(RULE_FILES.glob("*.yaml"))]
    classes = {item for item in discover().values() if issubclass(item, LocalRule)} - {type(rule) for _, rule in built}
    return [*built, *((NO_FILE, item) for item in sorted(classes, key=lambda item: item.__name__))]


def build(path: Path) -> LocalRule:
    """The rule of a settings file, not yet prepared."""
    check_file(str(path))
    try:
        return instantiate([f"--config={path}"])
    except (ArgumentError, ValueError) as error:
        raise InvalidInput(str(path), "settings that build no rule", f"those of one; {in_one_line(error)}") from error


def class_of(rule: LocalRule | type[LocalRule]) -> type[LocalRule]:
    """The class of a rule that is built, or the class itself."""
    return rule if inspect.isclass(rule) else type(rule)


def family(rule: LocalRule | type[LocalRule]) -> str:
    """The group in the table; a rule that names none is in a group of its own."""
    return getattr(rule, "family", "") or "no family"


def supervision(rule: LocalRule | type[LocalRule]) -> str:
    """What the hidden layers learn from beyond strings: ``labels``, ``grammar`` or ``none``; a class leaves it to the pairs."""
    if isinstance(rule, LocalRule):
        return rule.supervision
    return "as the pairs" if rule.uses_pairs else getattr(rule, "knowledge", "")


def upper_layers(rule: LocalRule | type[LocalRule]) -> str:
    """What trains the layers above those of the rule, such as the top one, which has no siblings; a class cannot tell."""
    layers = rule.trained_by[rule.trained_layers : -1] if isinstance(rule, LocalRule) else []
    return layers[0] if layers else ""


def sees(rule: LocalRule | type[LocalRule]) -> str:
    """The parts of a rule's locality that are open, in words; empty for a rule that does not say."""
    locality = getattr(rule, "locality", None)
    if locality is None:
        return ""
    return ", ".join(f.name.replace("_", " ") for f in fields(locality) if getattr(locality, f.name)) or "nothing"

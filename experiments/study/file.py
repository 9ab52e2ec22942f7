"""A study's file as arguments of the command line, and with all that is left to defaults."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

import yaml

from experiments.files import read_settings
from experiments.settings import RULE_FILES
from experiments.study.study import Study
from rhm import InvalidInput

PARTS = {
    "sizes": "{unit: n m^L, multiples: [1, 2, 4]}",
    "steps": "{least: 1000, most: 4000}",
    "search": "{trials: 3, settings: {model.optimizer.lr: [0.001, 0.01]}}",
}
"""Parts of a study that have keys of their own, and one of each."""


def study_settings(args: list[str]) -> list[str]:
    """Arguments of a study whose files are read: names of rules as entries, with ``--quick`` the quick variant of a file.

    Settings of all runs that are given one by one, ``--settings.model.clip=1``, are put among those of the files.

    Raises:
        InvalidInput: a file that cannot be read.
    """
    quick, given = "--quick" in args, []
    settings, one_by_one = dict[str, Any](), dict[str, Any]()
    rest = iter(args)
    for argument in rest:
        option, _, value = argument.partition("=")
        if option == "--rules":
            value = value or next(rest, "")
            rules = _listed(value)
            given.append(f"--rules={value if rules is None else json.dumps(_entries(rules))}")
            continue
        if option.startswith("--settings."):
            one_by_one[option.removeprefix("--settings.")] = _said(value or next(rest, ""))
            continue
        if option == "--settings":
            value = value or next(rest, "")
            settings = said if isinstance(said := _said(value), dict) else settings
            given.append(f"--settings={value}")
            continue
        if option not in ("-c", "--config"):
            given.append(argument)
            continue
        path = value or next(rest, "")
        if not path:
            raise InvalidInput("config", "nothing", "a YAML file with a study")
        content = read_settings("config", path)
        variant = content.pop("quick", None)
        if quick:
            if not isinstance(variant, dict):
                raise InvalidInput("quick", variant, f"a part `quick` of {path} that says what differs")
            content = merged(content, variant)
        _check_parts("", content)
        if isinstance(content.get("rules"), list):
            content["rules"] = _entries(content["rules"])
        if isinstance(content.get("settings"), dict):
            settings = content["settings"]
        given.append(f"--config={json.dumps(content)}")
    return given + ([f"--settings={json.dumps({**settings, **one_by_one})}"] if one_by_one else [])


def _check_parts(where: str, content: dict[str, Any]) -> None:
    """Refuse something else in place of a part that has keys of its own, which the parser would take for a class."""
    for key in PARTS.keys() & content.keys():
        if not isinstance(content[key], dict) and not (content[key] is None and (where or key == "search")):
            raise InvalidInput(f"{where}{key}", content[key], f"keys with values, such as {PARTS[key]}")


def _said(value: str) -> Any:
    """What an argument gives: a number, a list, a text."""
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def _listed(value: str) -> list[Any] | None:
    """A list as an argument gives it."""
    return read if isinstance(read := _said(value), list) else None


def _entries(rules: list[Any]) -> list[Any]:
    """Names of rules as entries, paths from the root; ``all`` stands for every file in ``configs/rules`` without an entry."""
    entries = [{"rule": rule} if isinstance(rule, str) else rule for rule in rules]
    for entry in entries:
        if not isinstance(entry, dict):
            raise InvalidInput("rules", entry, "names of settings files, or entries such as {rule: dfa, name: DFA}")
        _check_parts("rules.", {key: value for key, value in entry.items() if key != "search"})
        if str(entry.get("rule")).endswith(".yaml"):
            entry["rule"] = os.path.abspath(entry["rule"])  # as other processes may be in other folders
    given = {entry["rule"] for entry in entries if "rule" in entry}
    others = [{"rule": name} for name in sorted(path.stem for path in RULE_FILES.glob("*.yaml")) if name not in given]
    return [own for entry in entries for own in (others if entry == {"rule": "all"} else [entry])]


def merged(tree: Any, other: Any) -> Any:
    """A tree with another's values in place of its own; lists are not merged."""
    if not isinstance(tree, dict) or not isinstance(other, dict):
        return other
    return {**tree, **{key: merged(tree.get(key), value) for key, value in other.items()}}


def study_yaml(study: Study) -> str:
    """A study as the file that gives it, with all that is left to defaults."""
    return yaml.safe_dump(json.loads(json.dumps(asdict(study))), sort_keys=False)

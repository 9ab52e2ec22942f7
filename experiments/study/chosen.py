"""The settings that a search has chosen: written as a settings file, and read again."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from experiments.files import read_settings
from rhm import InvalidInput

MISSING = object()


def rule_settings(run_dir: Path, tried: Iterable[str] = ()) -> str:
    """A run's settings of rule and pairs, and whatever else was tried, as a settings file.

    Args:
        run_dir: of the run.
        tried: dotted names of the settings that a search has tried.

    Raises:
        InvalidInput: they cannot be read, or are not those of a run.
    """
    content = read_settings("run_dir", run_dir / "config.yaml")
    try:
        return yaml.safe_dump(_kept(content, tried), sort_keys=False)
    except (KeyError, TypeError, IndexError) as error:
        got = f"{run_dir / 'config.yaml'} ({type(error).__name__}: {error})"
        raise InvalidInput("run_dir", got, "settings of a run that was made here") from error


def _kept(content: dict[str, Any], tried: Iterable[str]) -> dict[str, Any]:
    kept = {"data": {"init_args": {"pairs": content["data"]["init_args"]["pairs"]}}, "model": content["model"]}
    for path in (key.replace(".init_args", "").split(".") for key in tried):
        if path[0] == "data":
            kept["data"]["init_args"][path[1]] = content["data"]["init_args"][path[1]]
        elif path[0] == "trainer":
            kept.setdefault("trainer", {})[path[1]] = content["trainer"][path[1]]
        else:
            kept[path[0]] = content[path[0]]
    return kept


def chosen_settings(path: Path, tried: Iterable[str]) -> dict[str, Any]:
    """Values of the settings that a search has tried, from the file that :func:`rule_settings` has written.

    Raises:
        InvalidInput: the file cannot be read or has no value for one of them.
    """
    content, found = read_settings("chosen", path), {}
    for key in tried:
        value: Any = content
        for part in key.replace(".init_args", "").split("."):
            levels = [value, *(value.get(name) for name in ("init_args", "dict_kwargs"))] if isinstance(value, dict) else []
            value = next((level[part] for level in levels if isinstance(level, dict) and part in level), MISSING)
        if value is MISSING:
            raise InvalidInput(
                "chosen", f"{path} without {key}", "all settings that were searched; without the file they are chosen again"
            )
        found[key] = value
    return found

"""What a rule keeps from a settings file that was written for another one."""

from __future__ import annotations

from typing import Any

from experiments.files import alike, flatten, read_settings
from experiments.shipped import config_files


def kept_from_files(args: list[str], model: dict[str, Any]) -> tuple[str, list[str]]:
    """The rule of a file whose place another one has taken, and the settings of that file that the other has now.

    Args:
        args: of the command line.
        model: ``class_path`` and ``init_args`` as they came out.

    Returns:
        The rule's name and the settings as ``model.KEY=VALUE``; none, if no file was written for another rule.
    """
    typed = {argument.partition("=")[0].removeprefix("--").replace(".init_args", "") for argument in args}
    other, kept = "", dict[str, Any]()
    for file in config_files(args):
        own = read_settings("config", file).get("model")
        if not isinstance(own, dict) or "class_path" not in own:
            continue
        settings = flatten(own.get("init_args") or {})
        if _name(own["class_path"]) == _name(model["class_path"]):
            kept = {key: value for key, value in kept.items() if key not in settings}
        else:
            other, kept = _name(own["class_path"]), kept | settings
    now = flatten(model.get("init_args") or {})
    found = {key.replace("init_args.", ""): now[key] for key in kept if key in now and alike(_name(now[key]), _name(kept[key]))}
    return other, [f"model.{k}={v}" for k, v in found.items() if f"model.{k}" not in typed and not k.endswith("class_path")]


def _name(value: Any) -> Any:
    """A class without the modules that it lies in; any other value as it is."""
    return value.rpartition(".")[2] if isinstance(value, str) else value

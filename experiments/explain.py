"""One line for what a person got wrong in the settings: the key, what it got and what is allowed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping

from rhm.errors import nearest

OURS = re.compile(r"^[\s\-]*(\S.*: got .*, allowed: .*)$", re.MULTILINE)
KEY = re.compile(r'Parser key "([^"]+)"')
NOT_ACCEPTED = re.compile(r"(?:Option|Key) '([^']+)' is not (?:accepted|expected)")
UNRECOGNIZED = re.compile(r"unrecognized arguments: --?([^=\s]+)|does not accept option '([^']+)'")
REQUIRED = re.compile(r"arguments are required: (\S+)")
NO_CLASS = re.compile(r"(?:Expected a dot import path string: |has no attribute |Expected a path but )'?([\w.]+)")
EXPECTED = re.compile(r"Expected an? (?:<class ')?(?:\w+\.)*(\w+)(?:'>)?")
VALUE = re.compile(r"(?:Got value|Given value): (.*)")
NO_FILE = re.compile(r"File does not exist: '([^']+)'")


def explain(message: str, classes: Mapping[str, type], options: Iterable[str]) -> str:
    """Shorten what the argument parser says.

    Args:
        message: of the parser, or of an exception while classes were built.
        classes: what settings may name, by short name.
        options: known settings, dotted.
    """
    message = message.replace("\\n", "\n").replace("\\'", "'").replace('\\"', '"')
    if ours := OURS.search(message):
        return ours[1].split("', ")[0]
    path = ".".join(dict.fromkeys(key for key in KEY.findall(message) if key != "fit"))
    if nested := re.search(r"NestedArg\(key='([^']+)'", message):
        path = f"{path.split('.')[0]}.{nested[1]}"
    path = path.replace(".init_args", "")
    if file := NO_FILE.search(message):
        return f"config: got {file[1]}, allowed: a file that exists"
    if required := REQUIRED.search(message):
        key = required[1].strip(",").split(".", 1)[-1]
        key = key if not path or key.startswith(path) else f"{path}.{key}"
        return f"{key}: got nothing, allowed: --{key}=VALUE or a settings file with -c"
    if unrecognized := UNRECOGNIZED.search(message):
        return _unknown(unrecognized[1] or unrecognized[2], options)
    if wrong := NOT_ACCEPTED.search(message):
        key, known = wrong[1].removeprefix("init_args."), _parameters(classes.values()) | set(options)
        full = path if path.endswith(key) else f"{path}.{key}".strip(".")
        return _unknown(full, known)
    if name := NO_CLASS.search(message):
        return f"{path}: got {name[1]}, allowed: the name of a class{nearest(name[1].rsplit('.', 1)[-1], classes)}"
    kinds = [kind for kind in dict.fromkeys(EXPECTED.findall(message)) if kind not in ("NoneType",)]
    if kinds and (value := VALUE.search(message)):
        got = re.sub(r"NestedArg\(key='[^']+', val=(.*)\)$", r"\1", value[1]).strip("\"'), ")
        values = "a value that `rhm fit --help` lists" if "Literal" in kinds else " or ".join(kinds)
        return f"{path}: got {got}, allowed: {values}"
    return " ".join(message.split())


def _unknown(key: str, known: Iterable[str]) -> str:
    prefix, _, last = key.rpartition(".")
    siblings = {k.rpartition(".")[2] for k in known if k.rpartition(".")[0] in (prefix, "")}
    return f"{key}: unknown key, allowed: keys that `rhm fit --help` lists{nearest(last, siblings)}"


def _parameters(classes: Iterable[type]) -> set[str]:
    names: set[str] = set()
    for item in classes:
        try:
            names |= set(inspect.signature(item).parameters)
        except (TypeError, ValueError):
            continue
    return names

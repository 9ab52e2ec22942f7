"""Settings files that come with the package, found by name from any folder; a file of one's own goes first."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path, PurePath

import rhm
from rhm import InvalidInput
from rhm.errors import nearest

_PACKAGED = Path(rhm.__file__).parent / "configs"  # in a wheel, see setup.py
CONFIGS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parent.parent / "configs"
OPTIONS = ("-c", "--config")
NAME = re.compile(r"[\w./~+-]+")
"""What may be meant as the name of a file, and not as settings that are typed in its place."""


def names() -> dict[str, Path]:
    """Every file that comes with the package, by the name that finds it: ``rules/backprop``."""
    files = sorted(path for path in CONFIGS.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {short(path.relative_to(CONFIGS).as_posix()): path for path in files}


def short(name: str) -> str:
    """A name as :func:`names` lists it: ``rules/backprop`` of ``rules/backprop.yaml`` and ``configs/rules/backprop.yaml``."""
    return PurePath(name).as_posix().removeprefix("configs/").removesuffix(".yaml")


def find(name: str) -> tuple[Path | None, str]:
    """The settings file of a name, and a note where it is one's own although a file of this name comes with the package.

    Then it has its whole path, so that a process that is given it says nothing again.

    Args:
        name: path of a file, with or without ``.yaml``, or a name that :func:`names` lists.
    """
    shipped = names().get(short(name))
    own = next((Path(path) for path in (name, f"{name}.yaml") if os.path.exists(path) and not os.path.isdir(path)), None)
    if own is None:
        return shipped, ""
    if shipped is None or own.samefile(shipped):
        return own, ""
    return own.absolute(), f"{own} is a file of your own; `rhm configs {short(name)}` prints the one that comes with rhm"


def options(args: list[str], *names: str) -> list[tuple[str, str]]:
    """Which of some options arguments have, in their order, each with its value."""
    found = []
    for argument, following in pairwise([*args, ""]):
        option, given, value = argument.partition("=")
        if option in names:
            found.append((option, value if given else following))
    return found


def config_files(args: list[str]) -> list[str]:
    """The settings files that arguments name, in their order."""
    return [value for _, value in options(args, *OPTIONS)]


def with_files(args: list[str]) -> tuple[list[str], list[str]]:
    """Arguments in which ``-c NAME`` names the file that is found, and the notes of :func:`find`.

    Raises:
        InvalidInput: there is no such file.
    """
    found, notes, named = list[str](), list[str](), False
    for argument in args:
        option, _, value = argument.partition("=")
        name = argument if named else value if option in OPTIONS else ""
        named = argument in OPTIONS
        if NAME.fullmatch(name):
            path, note = find(name)
            if path is None and not os.path.isdir(name):
                allowed = f"a file that exists or a name that `rhm configs` lists{nearest(short(name), names())}"
                raise InvalidInput("config", name, allowed)
            argument = f"{argument.removesuffix(name)}{path or name}"
            notes += [note] if note else []
        found.append(argument)
    return found, notes

"""Short names of tasks and settings, for tables and for folders."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from rhm import Task

CLASS_PATH = re.compile(r"([A-Za-z_]\w*\.)+[A-Z]\w*")
LONGEST_SLUG = 80
"""In bytes: a file name has at most 255, and holds a rule, a task and a cell."""


def task_label(task: Task) -> str:
    """A task's parameters in short."""
    return " ".join(f"{key}={value}" for key, value in vars(task).items())


def cell_label(settings: Mapping[str, Any]) -> str:
    """Settings in short: the last part of each name, where it is the only one of the kind, and of each class."""
    last = [key.rsplit(".", 1)[-1] for key in settings]
    names = [short if last.count(short) == 1 else key for key, short in zip(settings, last, strict=True)]
    return ", ".join(f"{name}={_short(value)}" for name, value in zip(names, settings.values(), strict=True))


def _short(value: Any) -> Any:
    return value.rsplit(".", 1)[-1] if isinstance(value, str) and CLASS_PATH.fullmatch(value) else value


def slug(name: str) -> str:
    """A name as part of a path; the end of a long one is replaced by its hash."""
    name = re.sub(r"[^\w.=+-]+", "_", name)
    if len(name.encode()) <= LONGEST_SLUG:
        return name
    return f"{name.encode()[: LONGEST_SLUG - 9].decode(errors='ignore')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def as_arguments(settings: dict[str, Any]) -> list[str]:
    """Settings as the command line takes them."""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]

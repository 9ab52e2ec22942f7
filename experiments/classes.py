"""Classes that settings name by a path, such as ``mylab.rules.MyRule``.

A person's own are imported before the parser asks for them: what it makes of a module that cannot be imported hides the cause.
"""

from __future__ import annotations

import inspect
import os
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from itertools import pairwise
from types import ModuleType
from typing import Any

import yaml
from pytorch_lightning import Callback, Trainer
from torch.optim import Optimizer

from datamodules import Pairs, ReplicaDataModule
from experiments.files import load_yaml, read_settings
from networks import NetworkConfig
from rhm import InvalidInput
from rhm.errors import nearest
from rhm.names import NAMES, looked_in
from rules import LocalRule
from rules.base.block import Block

Branches = Mapping[str, tuple[type, str]]
"""Places in the settings of a command where classes lie, dotted: what they are a kind of, and what lists their settings."""
BRANCHES: Branches = {
    "trainer": (Trainer, "--help"),
    "trainer.callbacks": (Callback, "--trainer.callbacks.help=CALLBACK"),
    "data": (ReplicaDataModule, "--data.help"),
    "data.pairs": (Pairs, "--data.pairs.help=PAIRS"),
    "model": (LocalRule, "--model.help=RULE"),
    "model.block": (Block, "--model.help=RULE"),
    "model.network": (NetworkConfig, "--model=RULE --model.network.help=NETWORK"),
    "model.optimizer": (Optimizer, "--model=RULE --model.optimizer.help=OPTIMIZER"),
}
"""Where a run's settings name a class: what it is a kind of, and what shows the settings that lie there."""

TYPES = {"network": "NetworkConfig", "block": "Block", "optimizer": "OptimizerCallable", "pairs": "Pairs | None"}
"""What a constructor has to say of settings that name a class; the parser would not know where to look for it."""

PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
KNOWN = (*NAMES, "torch", "pytorch_lightning")
"""Packages whose classes the parser knows."""
INNER = ("class_path", "init_args")
"""Keys that a person need not type."""


def check_classes(args: list[str]) -> None:
    """See that all classes of one's own that arguments name can be imported, and stand where they belong.

    Args:
        args: of a run, with files after ``-c`` or ``--config``.

    Raises:
        InvalidInput: by the key, with what went wrong where.
    """
    for argument, following in pairwise([*args, ""]):
        option, _, value = argument.partition("=")
        value = value or following
        if not option.startswith("-") or not value:
            continue
        if option in ("-c", "--config"):
            named = class_paths(read_settings("config", value))
        else:
            key = option.removeprefix("--").removesuffix("+").removesuffix(".help")
            named = class_paths(_read(value), ".".join(part for part in key.split(".") if part not in INNER))
        for key, path in named:
            if path.split(".")[0] not in KNOWN or os.path.isdir(os.path.join(looked_in(), path.split(".")[0])):
                check_class(key, path)


def _read(value: str) -> Any:
    try:
        return load_yaml(value)
    except yaml.YAMLError:
        return None  # which the parser says


def class_paths(settings: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Paths of classes in a tree of settings, each with its key as a person types it.

    Args:
        settings: the tree.
        key: where it lies.
    """
    if isinstance(settings, dict):
        for name, value in settings.items():
            if name == "class_path" and isinstance(value, str) and PATH.fullmatch(value):
                yield key, value
            else:
                yield from class_paths(value, key if name in INNER else f"{key}.{name}".removeprefix("."))
    elif isinstance(settings, list):
        for item in settings:
            yield from class_paths(item, key)
    elif key in BRANCHES and isinstance(settings, str) and PATH.fullmatch(settings) and not os.path.isfile(settings):
        yield key, settings


def check_class(key: str, path: str, kind: type | None = None) -> None:
    """See that a path is that of a class that can stand here.

    Args:
        key: where it was given.
        path: of the class, with its module.
        kind: what it has to be; what :data:`BRANCHES` says of the key by default.

    Raises:
        InvalidInput: its module is not found or cannot be imported, or has no such class, or one of another kind, abstract, or
            of which a setting that names a class has no type.
    """
    item = _imported(key, path)
    kind = kind or BRANCHES.get(key, (None, ""))[0]
    if not inspect.isclass(item):
        if isinstance(item, ModuleType) or not callable(item):
            raise InvalidInput(key, f"{path} (a {type(item).__name__})", "the path of a class: MODULE.CLASS")
        return  # a function that makes one, of which the parser knows more
    if kind is not None and not issubclass(item, kind) and kind is not Optimizer:  # what makes one would do
        raise InvalidInput(key, f"{path} (no {kind.__name__})", f"a subclass of {kind.__name__}")
    if inspect.isabstract(item):
        missing = ", ".join(sorted(getattr(item, "__abstractmethods__", ())))
        raise InvalidInput(key, f"{path} (abstract, without {missing})", f"a class that defines {missing}")
    settings = inspect.signature(item).parameters if issubclass(item, (LocalRule, ReplicaDataModule)) else {}
    for name in [name for name in TYPES if name in settings]:
        own = settings[name]
        if own.annotation is own.empty and (own.default is own.empty or own.default is None):
            raise InvalidInput(key, f"{path} ({name} has no type)", f"a class that says {name}: {TYPES[name]}")


def _imported(key: str, path: str) -> Any:
    """What a path names: the longest part of it that is a module is imported, the rest looked up in it."""
    parts, missing = path.split("."), ""
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        try:
            item: Any = import_module(name)
        except (Exception, SystemExit) as error:
            if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
                missing = f"no module {error.name}" if end < len(parts) else ""
                continue
            raise InvalidInput(key, f"{path} ({told(error, parts[0])})", "a class whose module can be imported") from error
        for place, part in enumerate(parts[end:]):
            if not hasattr(item, part):
                where = f" in {_file(item.__file__)}" if getattr(item, "__file__", None) else ""
                got = missing if missing and not place else f"no {part}"
                known = [name for name, value in vars(item).items() if getattr(value, "__module__", None) == item.__name__]
                hint = f"; {parts[0]} is a package of rhm: a folder of your own needs another name" if parts[0] in NAMES else ""
                raise InvalidInput(key, f"{path} ({got}{where})", f"a class that is there{nearest(part, known)}{hint}")
            item = getattr(item, part)
        return item
    where = f"in {looked_in()} or on Python's path"
    raise InvalidInput(key, f"{path} ({missing} {where})", "a class whose module is there")


def told(error: BaseException, package: str) -> str:
    """An exception with its message, and the last place in a package that it came through.

    Args:
        error: as it was raised.
        package: name of a module, with all that lie in it.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg}, {_file(error.filename)}, line {error.lineno}"
    frames = [*traceback.walk_tb(error.__traceback__)]
    own = [frame for frame in frames if f"{frame[0].f_globals.get('__name__')}.".startswith(f"{package}.")]
    place = f", {_file(own[-1][0].f_code.co_filename)}, line {own[-1][1]}" if own else ""
    return f"{type(error).__name__}: {error}{place}" if str(error) else f"{type(error).__name__}{place}"


def _file(path: str) -> str:
    """A file as it lies in the current folder, if it does."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


@contextmanager
def building() -> Iterator[None]:
    """Say of a class of one's own whose constructor raises what it raises, and where.

    Raises:
        InvalidInput: it does, by the key of its kind.
    """
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InvalidInput):
            if (found := _constructed(cause)) is not None:
                kind = type(found)
                path, package = f"{kind.__module__}.{kind.__qualname__}", kind.__module__.split(".")[0]
                key = next((key for key, (base, _) in BRANCHES.items() if isinstance(found, base)), path)
                raise InvalidInput(key, f"{path} ({told(cause, package)})", "a class that can be built") from error
            cause = cause.__cause__
        raise


def _constructed(error: BaseException) -> object | None:
    """The object of one's own whose constructor an error came through, if it did."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        module = type(owner).__module__
        own = frame.f_globals.get("__name__") == module and module.split(".")[0] not in (*KNOWN, "jsonargparse")
        if own and frame.f_code.co_name == "__init__":
            return owner
    return None

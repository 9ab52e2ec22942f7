"""Settings: the classes that they may name, files that hold them, and the rule that they describe."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import pairwise
from pydoc import locate
from typing import Any, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace, _loaders_dumpers, get_loader, set_loader
from jsonargparse._deprecated import JsonargparseDeprecationWarning
from pytorch_lightning.cli import LightningArgumentParser

import callbacks
import datamodules
import networks
import rules
from datamodules import ReplicaDataModule, RHMDataModule
from datamodules.numbers import Seeds, integer
from experiments.classes import Branches, building, check_classes
from experiments.files import Unclear, check_yaml, read_settings
from experiments.shipped import CONFIGS, OPTIONS, options, with_files
from rhm import InvalidInput
from rhm.grammar_file import TASK, read_grammar
from rules import LocalRule

RULE_FILES = CONFIGS / "rules"
HEADS = "data", "model", "trainer"
"""What the settings of classes begin with."""
DATA: dict[str, Any] = {name: parameter.default for name, parameter in inspect.signature(RHMDataModule).parameters.items()}
"""What a run's data are where nothing is said, by argument of :class:`datamodules.RHMDataModule`."""
DATA_CLASS = "datamodules.RHMDataModule"
"""What they are where no other class is named."""


class ParsingError(Exception):
    """What the argument parser found wrong, with the settings that it knows.

    Args:
        message: of the parser.
        options: dotted names of the settings that it lists.
        branches: settings that lie within classes.
    """

    def __init__(self, message: str, options: list[str], branches: Branches):
        super().__init__(message)
        self.options, self.branches = options, branches


class Parser(LightningArgumentParser):
    """Raises what is wrong instead of printing usage."""

    branches: Branches = {}

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Raise the message as one that :mod:`experiments.explain` can shorten."""
        raise ParsingError(message, [a.dest for a in self._actions], self.branches) from ex


def discover() -> dict[str, type]:
    """Import every module whose classes settings may name; the classes by short name."""
    packages = networks, datamodules, rules, callbacks
    found: dict[str, type] = {}
    for package in packages:
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            found |= {
                name: item for name, item in vars(module).items() if inspect.isclass(item) and not inspect.isabstract(item)
            }
    return {name: item for name, item in found.items() if item.__module__.split(".")[0] in {p.__name__ for p in packages}}


def instantiate(args: list[str]) -> LocalRule:
    """The rule that settings describe, without a trainer and not yet prepared; ``rule.data`` is its datamodule.

    Args:
        args: of ``model`` and ``data``, such as ``--config=rules/dfa`` or ``--data.L=3``.

    Raises:
        InvalidInput: no rule is named.
    """
    return build(parse(args))


def build(settings: Namespace) -> LocalRule:
    """What :func:`instantiate` returns, from settings that :func:`parse` has read."""
    check_given(settings.as_dict())
    with warnings.catch_warnings(), building():
        warnings.simplefilter("ignore", JsonargparseDeprecationWarning)
        built = _parser_of_a_rule().instantiate_classes(settings)
    if built.model is None:
        raise InvalidInput("model", "nothing", "--model=RULE or a settings file with -c")
    built.model.__dict__["data"] = built.data
    return built.model


def parse(args: list[str]) -> Namespace:
    """What :func:`instantiate` builds from these arguments: each class by its path, with all of its settings."""
    discover()
    found = with_files(args)[0]
    check_classes(found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JsonargparseDeprecationWarning)
        settings = _parser_of_a_rule(data_class(found)).parse_args(found)
    say_task(settings.data, found)
    return settings


def check_given(settings: Any, place: str = "", kind: Any = None) -> None:
    """Refuse a null, or something else in the place of several settings, that a class does not take: the parser lets it pass.

    Args:
        settings: a tree, in which a class has ``class_path`` and ``init_args``.
        place: where the tree lies.
        kind: whose settings it has, if it does not say so.

    Raises:
        InvalidInput: by the name of the setting.
    """
    for item in settings if isinstance(settings, list) else []:
        check_given(item, place)
    if not isinstance(settings, dict):
        return
    kind = locate(str(settings["class_path"])) if "class_path" in settings else kind
    given = settings.get("init_args") or {} if "class_path" in settings else settings
    parameters, kinds = _arguments(kind.__init__) if inspect.isclass(kind) else ({}, {})
    for name, value in given.items():
        key, hint = f"{place}.{name}".removeprefix("."), kinds.get(name)
        if is_dataclass(hint) and not isinstance(value, dict):
            raise InvalidInput(key, value, f"{', '.join(field.name for field in fields(hint))}, each by its name")
        if value is None and hint is not None and parameters[name].default is not None and not _takes_null(hint):
            raise InvalidInput(key, "null", _in_words(hint))
        check_given(value, key, hint if is_dataclass(hint) else None)


@cache
def _arguments(init: Callable[..., None]) -> tuple[Mapping[str, inspect.Parameter], dict[str, Any]]:
    """The arguments of a class, and their types as far as they are there at run time."""
    parameters = inspect.signature(init).parameters
    try:
        return parameters, get_type_hints(init)
    except NameError:  # names of types that are there for type checkers alone
        return parameters, {}


def _takes_null(hint: Any) -> bool:
    return hint is Any or hint is object or type(None) in get_args(hint)


def _in_words(hint: Any) -> str:
    plain = [kind.__name__ for kind in get_args(hint) or (hint,) if kind in (bool, int, float, str)]
    return " or ".join(plain) or ("one integer or more" if hint is Seeds else "the name of a class")


def dumped(settings: Namespace) -> str:
    """What :func:`parse` returns, as YAML."""
    return str(_parser_of_a_rule().dump(settings))


def data_class(args: list[str]) -> str:
    """The path of the datamodule that arguments name, or files that they name: its defaults hold where nothing is said.

    The parser would take the defaults of another one, from which it starts, for what a person has said.
    """
    named = DATA_CLASS
    for said in _said_of(args, "--data", "--data.class_path"):
        name = said.get("class_path") if isinstance(said, dict) else said
        kind = getattr(datamodules, str(name).rpartition(".")[2], None)
        if inspect.isclass(kind) and issubclass(kind, ReplicaDataModule):
            named = f"datamodules.{kind.__name__}"
    return named


def say_task(data: Namespace, args: list[str]) -> None:
    """Put into settings the sizes that the file of ``data.grammar``, if there is one, says.

    Args:
        data: ``class_path`` and ``init_args``, as the parser has read them.
        args: that it has read them from.

    Raises:
        InvalidInput: a file that cannot be, or other sizes in the arguments.
    """
    given = data.get("init_args") or {}
    if given.get("grammar") is None or not all(key in given for key in TASK):
        return
    try:
        task = read_grammar(given["grammar"]).task
    except InvalidInput as error:
        raise InvalidInput(f"data.{error.key}", error.got, error.allowed) from error
    for key, own in vars(task).items():
        if key in said_of_data(args) and integer(given[key]) != own:
            raise InvalidInput(f"data.{key}", given[key], f"{own}, as in {given['grammar']}")
        given[key] = own


def said_of_data(args: list[str]) -> set[str]:
    """Settings of a datamodule that arguments name, or files that they name."""
    found = set[str]()
    for argument in args:
        option = argument.partition("=")[0]
        if option.startswith("--data."):
            found.add(option.removeprefix("--data.").removeprefix("init_args."))
    for said in _said_of(args, "--data"):
        if isinstance(said, dict):
            found |= {*said, *(said.get("init_args") or {})}
    return found


def _said_of(args: list[str], *names: str) -> Iterator[Any]:
    """What files and options of these names say of ``data``, in their order: settings, or the name of a class."""
    for option, value in options(args, *OPTIONS, *names):
        if option in OPTIONS:
            yield read_settings("config", value).get("data") if os.path.isfile(value) else None
        else:
            yield yaml.safe_load(value) if value.lstrip().startswith("{") else value


def with_data_help(args: list[str]) -> list[str]:
    """Arguments in which ``--data.help`` without a name is about the datamodule that the others name."""
    asked = f"--data.help={data_class(args)}"
    return [asked if a == "--data.help" and b.startswith("-") else a for a, b in pairwise([*args, "-"])]


@cache
def _parser_of_a_rule(data: str = DATA_CLASS) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(LocalRule, "model")
    parser.add_subclass_arguments(ReplicaDataModule, "data")
    parser.add_argument("--trainer", type=dict)
    parser.set_defaults({"data": {"class_path": data}})
    return parser


def check_file(path: str) -> None:
    """See that a settings file, if there is one of this name, can be read.

    Raises:
        InvalidInput: a folder, a file that is not YAML, or one without settings.
    """
    if os.path.exists(path):  # else the parser says so, or reads settings that are typed in place of a name
        read_settings("config", path)


_read_yaml = get_loader("yaml")


def _load(text: str) -> Any:
    """What the parser reads, from files that files name and from the command line too.

    It hands a null down to a setting within a class as the text "None" (4.53), which is a null here.
    """
    try:
        if ":" in text:
            check_yaml(text)
    except Unclear as error:
        raise InvalidInput("settings", f"YAML in which {error}", "each key once, and nothing within itself") from error
    return None if text.strip() == "None" else _read_yaml(text)


POWER = re.compile(r"[-+]?\d[\d_]*(\.\d*)?[eE]\+?\d+")


def _meant(text: str, value: Any) -> Any:
    """``1e3`` as the integer that it says: settings that are integers want it so, those that are floats take it too."""
    return int(value) if isinstance(value, float) and POWER.fullmatch(text.strip()) and value.is_integer() else value


def _read_plain(text: str, read: Callable[[str], Any] = _loaders_dumpers.load_basic) -> Any:
    return _meant(text, read(text))


def _read_float(loader: Any, node: yaml.ScalarNode) -> Any:
    return _meant(node.value, loader.construct_yaml_float(node))


def _write_member(dumper: yaml.SafeDumper, member: Enum) -> yaml.Node:
    return dumper.represent_data(member.value)


yaml.SafeDumper.add_multi_representer(Enum, _write_member)  # such as the interval of a Timer
# The parser reads a plain number without its loader for YAML, and has no place to say how.
_loaders_dumpers.load_basic = _read_plain
_loaders_dumpers.get_yaml_default_loader().add_constructor("tag:yaml.org,2002:float", _read_float)
set_loader("yaml", _load, (yaml.YAMLError,))

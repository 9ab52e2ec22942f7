"""Settings: the classes that they may name, files that hold them, and the rule that they describe."""

from __future__ import annotations

import importlib
import inspect
import os
import pkgutil
import re
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, get_loader, set_loader
from jsonargparse._deprecated import JsonargparseDeprecationWarning
from pytorch_lightning.cli import LightningArgumentParser

import callbacks
import datamodules
import networks
import rules
from datamodules import RHMDataModule
from experiments.files import Unclear, check_yaml, read_settings
from rhm import InvalidInput
from rhm.errors import nearest
from rules import LocalRule

CONFIGS = Path(__file__).parent.parent / "configs"
RULE_FILES = CONFIGS / "rules"
DATA: dict[str, Any] = {name: parameter.default for name, parameter in inspect.signature(RHMDataModule).parameters.items()}
"""What a run's data are where nothing is said, by argument of :class:`datamodules.RHMDataModule`."""
Branches = Mapping[str, tuple[type, str]]
"""Places in the settings of a command where classes lie, dotted: what they are a kind of, and what lists their settings."""


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
        args: of ``model`` and ``data``, such as ``--config=configs/rules/dfa.yaml`` or ``--data.L=3``.

    Raises:
        InvalidInput: no rule is named.
    """
    return build(parse(args))


def build(settings: Namespace) -> LocalRule:
    """What :func:`instantiate` returns, from settings that :func:`parse` has read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JsonargparseDeprecationWarning)
        built = _parser_of_a_rule().instantiate_classes(settings)
    if built.model is None:
        raise InvalidInput("model", "nothing", "--model=RULE or a settings file with -c")
    built.model.__dict__["data"] = built.data
    return built.model


def parse(args: list[str]) -> Namespace:
    """What :func:`instantiate` builds from these arguments: each class by its path, with all of its settings."""
    discover()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", JsonargparseDeprecationWarning)
        return _parser_of_a_rule().parse_args(with_numbers(args))


def dumped(settings: Namespace) -> str:
    """What :func:`parse` returns, as YAML."""
    return str(_parser_of_a_rule().dump(settings))


@cache
def _parser_of_a_rule() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(LocalRule, "model")
    parser.add_subclass_arguments(RHMDataModule, "data")
    parser.add_argument("--trainer", type=dict)
    parser.set_defaults({"data": {"class_path": "datamodules.RHMDataModule"}})
    return parser


def rule_file(rule: str) -> Path:
    """A settings file, given by its path or by its name in ``configs/rules``.

    Raises:
        InvalidInput: there is none.
    """
    for path in Path(rule), RULE_FILES / f"{rule}.yaml":
        if path.is_file():
            return path
    known = {path.stem for path in RULE_FILES.glob("*.yaml")}
    raise InvalidInput("rule", rule, f"a settings file or the name of one in configs/rules{nearest(rule, known)}")


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


DATA_KEY = re.compile(r"--data\.(seeds|train_size|label_size|batch_size|test_size|probe_size|eval_batch_size|[vnmsL])")
POWER = re.compile(r"\b\d+(\.\d+)?[eE]\+?\d{1,2}\b")


def with_numbers(args: list[str]) -> list[str]:
    """Arguments of the command line in which numbers of the data are as their types want them."""
    return [_numbers(argument) for argument in args]


def _numbers(argument: str) -> str:
    """``--data.seeds=3`` as a list of one, and ``--data.train_size=1e3`` as the integer that it is."""
    key, _, value = argument.partition("=")
    if not DATA_KEY.fullmatch(key) or not value:
        return argument
    value = POWER.sub(lambda found: f"{float(found[0]):.0f}" if float(found[0]).is_integer() else found[0], value)
    return f"{key}=[{value}]" if key == "--data.seeds" and value.isdecimal() else f"{key}={value}"


set_loader("yaml", _load, (yaml.YAMLError,))

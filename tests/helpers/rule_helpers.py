"""Every rule as its settings file builds it, on a task small enough for exact tests."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import Namespace
from torch import Tensor

from datamodules import Pairs, RHMDataModule
from experiments.settings import build, discover, instantiate, parse
from networks import DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork
from rules import LocalRule, Step, checking
from rules.base.perturbed import compute, copied, said, same
from rules.checking import SIZES, TASK, quiet_trainer

__all__ = ["SIZES", "TASK", "compute", "copied", "quiet_trainer", "said", "same"]  # which tests find here too
Plain = None | bool | int | float | str
CONFIGS = Path(__file__).parents[2] / "configs"
RULES = {path.stem: path for path in sorted((CONFIGS / "rules").glob("*.yaml"))}
NETWORKS = {
    "shared": HierarchicalNetwork(width=12),
    "shared, bottleneck": HierarchicalNetwork(width=12, bottleneck=6),
    "local": LocallyConnectedNetwork(width=12),
    "dense": DenseNetwork(width=12),
    "dense, bottleneck": DenseNetwork(width=12, bottleneck=6),
    "tanh": HierarchicalNetwork(width=12, activation="tanh"),
}


def every(n: int, cases: Iterable[Any]) -> list[Any]:
    """Each ``n``-th case, for `make test`, and the others marked for `make test-chaos`: of what all rules have from one place."""
    return [
        case if i % n == 0 else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.chaos)
        for i, case in enumerate(cases)
    ]


def make_data(pairs: Pairs | None = None, seeds=(0, 1, 2), **kwargs: Any) -> RHMDataModule:
    return RHMDataModule(seeds=list(seeds), pairs=copy.deepcopy(pairs), **{**TASK, **SIZES, **kwargs})


def from_settings(name: str, *args: str, seeds=(0, 1, 2)) -> LocalRule:
    """The rule of ``configs/rules/NAME.yaml`` with 12 units a layer and bottlenecks, heads and ranks as they are."""
    settings = parsed(name).clone()
    try:
        for argument in (f"--data.seeds={list(seeds)}", *args):
            change(settings, argument)
        rule = build(settings)
    except NotPlain:
        rule = instantiate([*small(name), f"--data.seeds={list(seeds)}", *args])
    return rule.prepare(rule.data)


@cache
def parsed(name: str) -> Namespace:
    """A settings file as the command line reads it, which takes longer than most tests."""
    return parse(small(name))


def small(name: str) -> list[str]:
    return [f"--config={RULES[name]}", *(f"--data.{k}={v}" for k, v in {**TASK, **SIZES}.items()), "--model.network.width=12"]


class NotPlain(Exception):
    """An argument that the command line alone understands, or refuses."""


def change(settings: Namespace, argument: str) -> None:
    """Do to settings what ``--model.network.width=6`` or ``--data.pairs=ClassPairs`` says."""
    key, _, text = argument.removeprefix("--").partition("=")
    *path, last = key.split(".")
    node: Any = settings
    for part in path:
        node = inside(node).get(part)
        if not isinstance(node, Namespace):
            raise NotPlain(key)
    node, value = inside(node), yaml.safe_load(text)
    if last not in node or isinstance(value, dict):
        raise NotPlain(key)
    before = node[last]
    if isinstance(value, str) and value in discover():
        value = of_class(discover()[value], before)
    elif isinstance(before, Namespace) and value is not None or isinstance(value, str) and not isinstance(before, str):
        raise NotPlain(key)
    node[last] = value


def inside(node: Namespace) -> Namespace:
    """The settings of a class, or of what is none."""
    return node.init_args if "class_path" in node and "init_args" in node else node


def of_class(kind: type, before: Namespace | None) -> Namespace:
    """Another class with its defaults, and what was said of the one before that it has too."""
    defaults = {name: argument.default for name, argument in inspect.signature(kind).parameters.items()}
    if any(default is inspect.Parameter.empty or not isinstance(default, Plain) for default in defaults.values()):
        raise NotPlain(kind.__name__)
    own = vars(inside(before)) if before is not None else {}
    kept = {name: value for name, value in own.items() if name in defaults}
    return Namespace(class_path=f"{kind.__module__}.{kind.__name__}", init_args=Namespace(**{**defaults, **kept}))


def updates(rule: LocalRule, step: Step) -> list[dict[str, Tensor]]:
    return said(rule, step).layers


def train(rule: LocalRule, steps: int = 6, precision: Any = "64-true", **settings: Any) -> dict[str, Tensor]:
    return checking.train(rule, steps, precision=precision, **settings)

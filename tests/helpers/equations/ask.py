"""The rule under test: built from its settings file, moved off its start, asked what it says, and moved by one step.

This file alone knows torch and the code under test; oracles see :class:`equations.case.Case`.

Shape suffixes: R replica, B batch.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import yaml
from rule_helpers import RULES, from_settings
from torch import Tensor

from equations.case import LEARNING_RATE, Answer, Case, State
from equations.network import PlainCompetition, PlainLayer, PlainNetwork, PlainSiblings
from networks import CompetitiveNetwork, DenseNetwork, SiblingNetwork
from rules import LocalRule, Step, Updates
from rules.base.perturbed import shake

SEED = 3


def build(name: str, *args: str) -> LocalRule:
    """A rule of one replica with 5 units and 6 strings a batch, all of its numbers moved off their start."""
    small = ("--model.network.width=5", "--data.batch_size=6")
    rule = from_settings(name, *small, *args, seeds=(SEED,))
    shake(rule)
    return rule


def numbers(tensor: Tensor) -> np.ndarray:
    """A copy of the only replica's numbers."""
    return tensor.detach()[0].numpy().copy()


def snapshot(rule: LocalRule) -> State:
    """All parameters by part, and buffers that belong to the rule."""
    parts = [{name: numbers(p) for name, p in part.named_parameters()} for part in rule.parts]
    return State(parts, {name: numbers(b) for name, b in rule.named_buffers() if not name.startswith("accuracy")})


def plain_network(rule: LocalRule, state: State) -> PlainNetwork:
    """The network that the settings ask for, on these parameters and buffers."""
    config, task = rule.network_config, rule.data.task
    layers: list[PlainLayer] = []
    parts = state.parts
    for k, part in enumerate(parts[:-1], 1):
        if isinstance(config, DenseNetwork):
            patch = task.s**task.L if k == 1 else 1
        else:
            patch = getattr(config, "patch", None) or task.s
        if isinstance(config, CompetitiveNetwork):
            moments = (state.buffers[f"network.layers.{k - 1}.{name}"] for name in ("mean_RC", "variance_RC"))
            layers.append(PlainCompetition(part, patch, "linear", False, *moments, config.power))
            continue
        bottleneck = config.bottleneck is not None and k < len(parts) - 1
        said = part, patch, config.activation, config.normalise or bottleneck
        if isinstance(config, SiblingNetwork):
            places = patch if k < len(parts) - 1 else 1
            layers.append(PlainSiblings(*said, places))
        else:
            layers.append(PlainLayer(*said))
    return PlainNetwork(layers, parts[-1], task.v, task.n, config.label_slot)


def arguments_of(name: str, args: tuple[str, ...]) -> dict[str, Any]:
    """The arguments that the settings file and the command line give to the rule's constructor; the network's are the network's."""
    found = copy.deepcopy(yaml.safe_load(RULES[name].read_text(encoding="utf-8"))["model"].get("init_args", {}))
    for arg in args:
        key, value = arg.removeprefix("--").split("=", 1)
        if key.startswith("model.") and not key.startswith("model.network"):
            *path, last = key.split(".")[1:]
            place = found
            for part in path:
                place = place.setdefault(part, {})
            place[last] = yaml.safe_load(value)
    return found


def case_of(rule: LocalRule, step: Step, name: str, args: tuple[str, ...] = ()) -> Case:
    """All that an oracle may know of a step: copies, so that the rule cannot change them."""
    state, batch = snapshot(rule), step.batch
    assert batch.key_RB is not None
    size = batch.x_RBD.shape[1]
    return Case(
        network=plain_network(rule, state),
        parts=state.parts,
        buffers=state.buffers,
        x_BD=numbers(batch.x_RBD).astype(int),
        y_B=numbers(batch.y_RB).astype(int),
        view_BD=None if batch.view_RBD is None else numbers(batch.view_RBD).astype(int),
        key_B=numbers(batch.key_RB),
        weight_B=np.ones(size) if batch.weight_RB is None else numbers(batch.weight_RB).astype(float),
        arguments=arguments_of(name, args),
        noise=lambda noise, shape: numbers(rule.noise(batch, noise, shape)),
        keys=lambda *names: int(rule.keys_R(*names)[0]),
        labels=rule.data.labels,
        pairs=(type(rule.pairs).__name__, getattr(rule.pairs, "level", None)) if rule.uses_pairs else None,
        half_BD=None if batch.half_RBD is None else numbers(batch.half_RBD),
    )


@torch.no_grad()
def said(rule: LocalRule, step: Step) -> tuple[Updates, Answer]:
    """What ``rule.updates`` returns, and the same as numbers of the only replica."""
    updates = rule.updates(step)
    answer = Answer(
        [{name: numbers(gradient) for name, gradient in layer.items()} for layer in updates.layers],
        {name: numbers(estimate) for name, estimate in updates.estimates.items()},
        {name: float(loss[0]) for name, loss in updates.losses.items()},
    )
    return updates, answer


def move(rule: LocalRule, updates: Updates, own_optimizer: bool = False) -> State:
    """The state after one step of gradient descent, or of the rule's own optimizer, with these updates."""
    if not own_optimizer:
        rule.optimizer = lambda groups: torch.optim.SGD(groups, lr=LEARNING_RATE)
    with torch.no_grad():
        rule.apply_updates(updates, rule.configure_optimizers())
    return snapshot(rule)

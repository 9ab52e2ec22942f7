"""A rule and its strings without content: what a run will need can be found of them before it takes any of it.

Shape suffixes: R replica, B batch, D position.
"""

from __future__ import annotations

import copy

import torch

from datamodules import Batch, ReplicaDataModule
from rhm import Derivation
from rules import LocalRule


def hollow(rule: LocalRule) -> LocalRule:
    """A copy of a rule that can be built on the device ``meta`` while the rule stays as it is."""
    twin = copy.copy(rule)  # of its own are the parts that are built
    for parts in "_modules", "_parameters", "_buffers":
        twin.__dict__[parts] = dict(twin.__dict__[parts])
    return twin


def hollow_batch(data: ReplicaDataModule, size: int, training: bool) -> Batch:
    """A batch of so many strings, without their content."""
    task, R, size = data.task, data.replicas, max(1, size)
    symbols = tuple(torch.empty(R, size, task.width(level), dtype=torch.uint8) for level in task.levels)
    derivation, key_RB = Derivation(symbols), torch.empty(R, size, dtype=torch.int64)
    view_RBD = derivation.x_RBD.clone() if training and data.pairs is not None and data.pairs.two_strings else None
    weight_RB = torch.empty(R, size, dtype=torch.float64) if training and data.label_sizes_R is not None else None
    copied = training and data.pairs is not None and data.pairs.two_copies
    half_RBD = torch.empty(derivation.x_RBD.shape, dtype=torch.bool) if copied else None
    return Batch(derivation.x_RBD, derivation.y_RB, view_RBD, key_RB, derivation, weight_RB, half_RBD)

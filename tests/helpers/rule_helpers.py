"""Every rule as its settings file builds it, on a task small enough for exact tests."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from datamodules import Pairs, RHMDataModule
from experiments.settings import instantiate
from networks import DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork
from rules import LocalRule, Step, Updates

CONFIGS = Path(__file__).parents[2] / "configs"
RULES = {path.stem: path for path in sorted((CONFIGS / "rules").glob("*.yaml"))}
TASK = {"v": 4, "n": 4, "m": 2, "s": 2, "L": 3}
SIZES = {"train_size": 64, "batch_size": 16, "test_size": 32, "probe_size": 32}
NETWORKS = {
    "shared": HierarchicalNetwork(width=12),
    "shared, bottleneck": HierarchicalNetwork(width=12, bottleneck=6),
    "local": LocallyConnectedNetwork(width=12),
    "dense": DenseNetwork(width=12),
    "dense, bottleneck": DenseNetwork(width=12, bottleneck=6),
    "tanh": HierarchicalNetwork(width=12, activation="tanh"),
}


def make_data(pairs: Pairs | None = None, seeds=(0, 1, 2), **kwargs: Any) -> RHMDataModule:
    return RHMDataModule(seeds=list(seeds), pairs=copy.deepcopy(pairs), **{**TASK, **SIZES, **kwargs})


@cache
def built(name: str, args: tuple[str, ...], seeds: tuple[int, ...]) -> LocalRule:
    """The rule of a settings file, not yet prepared: reading settings takes longer than most tests."""
    small = [f"--data.{key}={value}" for key, value in {**TASK, **SIZES, "seeds": list(seeds)}.items()]
    return instantiate([f"--config={RULES[name]}", *small, "--model.network.width=12", *args])


def from_settings(name: str, *args: str, seeds=(0, 1, 2)) -> LocalRule:
    """The rule of ``configs/rules/NAME.yaml`` with 12 units a layer and bottlenecks, heads and ranks as they are."""
    rule = copy.deepcopy(built(name, args, tuple(seeds)))
    return rule.prepare(rule.data)


@torch.no_grad()
def compute(rule: LocalRule, step: int = 0) -> Step:
    return rule.compute(rule.data.train_batch(step))


@torch.no_grad()
def said(rule: LocalRule, step: Step) -> Updates:
    """All that a rule says of a step."""
    return rule.layer_updates(step)


def updates(rule: LocalRule, step: Step) -> list[dict[str, Tensor]]:
    return said(rule, step).layers


def same(a: list[dict[str, Tensor]], b: list[dict[str, Tensor]]) -> list[bool]:
    return [x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x) for x, y in zip(a, b, strict=True)]


def copied(rule: LocalRule) -> LocalRule:
    other = copy.deepcopy(rule)
    other.__dict__["data"] = rule.data
    return other


def train(rule: LocalRule, steps: int = 6, precision: Any = "64-true", **kwargs: Any) -> dict[str, Tensor]:
    """The state of a rule after some steps of a trainer."""
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        precision=precision,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        **kwargs,
    )
    trainer.fit(rule, rule.data)
    assert trainer.global_step == steps or kwargs.get("devices", 1) > 1  # which children count, not this process
    return rule.state_dict()

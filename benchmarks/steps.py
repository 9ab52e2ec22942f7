"""The steps that benchmarks time: four rules at v=n=8, m=4, s=2, L=4."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from datamodules import Batch
from experiments.settings import instantiate
from rules import LocalRule

CONFIGS = Path(__file__).parent.parent / "configs" / "rules"
NAMES = ("backprop", "dfa", "sibling_contrastive", "clapp")


def rule_of(name: str, replicas: int, width: int = 256, batch: int = 128) -> LocalRule:
    """A rule as ``configs/rules/NAME.yaml`` has it, with its data in ``rule.data``, on the CPU."""
    settings = {"data.L": 4, "data.batch_size": batch, "data.seeds": list(range(replicas)), "model.network.width": width}
    rule = instantiate([f"--config={CONFIGS / f'{name}.yaml'}", *(f"--{key}={value}" for key, value in settings.items())])
    return rule.prepare(rule.data)


class Steps:
    """Training steps of a prepared rule without Lightning.

    Args:
        rule: with its data in ``rule.data``.
    """

    def __init__(self, rule: LocalRule):
        self.rule, self.step = rule, 0
        self.optimizer = rule.configure_optimizers()

    @torch.no_grad()
    def __call__(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.learn(self.rule.data.train_batch(self.step))
            self.step += 1

    def learn(self, batch: Batch) -> None:
        """All of a step but its strings."""
        self.rule.apply_updates(self.rule.updates_of(batch), self.optimizer)


def operations(steps: Steps) -> int:
    """Floating-point operations of the matrix products of a step."""
    with FlopCounterMode(display=False) as counter:
        steps(1)
    return counter.get_total_flops()


def move(rule: LocalRule, device: torch.device) -> None:
    """Rule and data onto a device, as a trainer would."""
    rule.to(device)
    rule.data.move(device)

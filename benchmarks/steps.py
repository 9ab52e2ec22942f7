"""The steps that benchmarks time: four rules at v=n=8, m=4, s=2, L=4."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

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


def updates_of(rule: LocalRule) -> Callable[[Batch], list[dict[str, torch.Tensor]]]:
    """A step without its optimizer: gradients of all layers and the readout."""

    def updates(batch: Batch) -> list[dict[str, torch.Tensor]]:
        return rule.updates(rule.compute(batch)).layers

    return updates


def move(rule: LocalRule, device: torch.device) -> None:
    """Rule and data onto a device, as a trainer would."""
    rule.to(device)
    rule.data.move(device)

"""Histograms of weights and updates. Shape suffixes: M values, H bins."""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.tensorboard import writers
from rhm import InvalidInput
from rules import LocalRule

BINS = 64


class Histograms(Callback):
    """Histograms of each layer's weights and of its updates: the gradients that the rule handed to the optimizer.

    They are counted on the device, over all replicas together, and read from it at once; other steps cost nothing. Costs: some
    passes over all weights every ``every`` steps. Off by default.

    Tags: ``weights/layer{k}/NAME`` and ``updates/layer{k}/NAME`` by parameter, ``.../readout/NAME``. TensorBoard only.

    Args:
        every: steps from one written step to the next.
    """

    def __init__(self, every: int = 500):
        if every < 1:
            raise InvalidInput("Histograms.every", every, "an integer of at least 1")
        self.every = every

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the histograms if it is their turn."""
        if trainer.global_step % self.every or not writers(trainer):
            return
        assert isinstance(pl_module, LocalRule)
        values = {}
        for group, module in zip(trainer.optimizers[0].param_groups, pl_module.parts, strict=True):
            for name, parameter in module.named_parameters():
                tag = f"{group['name']}/{name.rsplit('_', 1)[0]}"
                values[f"weights/{tag}"] = parameter.detach()
                if parameter.grad is not None:
                    values[f"updates/{tag}"] = parameter.grad
        rows = torch.stack([histogram(x) for x in values.values()]).tolist()
        for tag, (low, high, total, squares, *counts) in zip(values, rows, strict=True):
            limits = [low + (high - low) * (b + 1) / BINS for b in range(BINS)]
            for writer in writers(trainer):
                writer.add_histogram_raw(
                    tag, low, high, sum(counts), total, squares, limits, counts, global_step=trainer.global_step
                )


def histogram(x: Tensor) -> Tensor:
    """Lowest and highest value, sum, sum of squares and the counts of ``BINS`` equal bins between them, without a transfer."""
    x_M = x.flatten().double()
    low, high = x_M.aminmax()
    bin_M = ((x_M - low) / (high - low).clamp_min(1e-300) * BINS).long().clamp(0, BINS - 1)
    counts_H = torch.zeros(BINS, dtype=x_M.dtype, device=x.device).scatter_add_(0, bin_M, torch.ones_like(x_M))
    return torch.cat([torch.stack([low, high, x_M.sum(), x_M.square().sum()]), counts_H])

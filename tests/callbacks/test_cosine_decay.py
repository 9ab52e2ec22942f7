"""The falling rate."""

from __future__ import annotations

import math

import pytest
import pytorch_lightning as pl
import torch
from rule_helpers import make_data

from callbacks.cosine_decay import CosineDecay
from networks import HierarchicalNetwork
from rules.backprop import Backprop


def test_cosine_decay_takes_the_rate_from_its_start_to_its_floor_and_goes_on_after_a_resume(tmp_path):
    """Against the formula; SGD without momentum, whose steps are proportional to the rate."""
    rates = []

    class Record(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            rates.append(pl_module.optimizers().param_groups[0]["lr"])
            trainer.should_stop = trainer.global_step == 4

    for resumed in (None, tmp_path / "at4.ckpt"):
        rule = Backprop(HierarchicalNetwork(width=4), optimizer=lambda p: torch.optim.SGD(p, lr=0.5))
        trainer = pl.Trainer(
            max_steps=8, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, callbacks=[CosineDecay(floor=0.1), Record()],
        )  # fmt: skip
        trainer.fit(rule, make_data(seeds=(0,)), ckpt_path=resumed)
        trainer.save_checkpoint(tmp_path / f"at{trainer.global_step}.ckpt")
    assert rates == pytest.approx([0.5 * (0.1 + 0.9 * (1 + math.cos(math.pi * t / 8)) / 2) for t in range(8)])

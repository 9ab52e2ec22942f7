"""The falling rate."""

from __future__ import annotations

import math

import pytest
import pytorch_lightning as pl
import torch
from rule_helpers import make_data, quiet_trainer

from callbacks.cosine_decay import CosineDecay
from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.backprop import Backprop


@pytest.mark.parametrize("warm_up", [0, 3])
def test_cosine_decay_takes_the_rate_from_its_start_to_its_floor_and_goes_on_after_a_resume(warm_up, tmp_path):
    """Against the formula; SGD without momentum, whose steps are proportional to the rate."""
    rates = []

    class Record(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            rates.append(pl_module.optimizers().param_groups[0]["lr"])
            trainer.should_stop = trainer.global_step == 4

    for resumed in (None, tmp_path / "at4.ckpt"):
        rule = Backprop(HierarchicalNetwork(width=4), optimizer=lambda p: torch.optim.SGD(p, lr=0.5))
        trainer = quiet_trainer(max_steps=8, callbacks=[CosineDecay(0.1, warm_up), Record()])
        trainer.fit(rule, make_data(seeds=(0,)), ckpt_path=resumed)
        trainer.save_checkpoint(tmp_path / f"at{trainer.global_step}.ckpt")
    rise = [1, 1, 1, 1] if warm_up == 0 else [1 / 3, 2 / 3, 1, 1]
    falling = [0.5 * (0.1 + 0.9 * (1 + math.cos(math.pi * t / 8)) / 2) for t in range(8)]
    assert rates == pytest.approx([x * y for x, y in zip(falling, [*rise, 1, 1, 1, 1], strict=True)])


def test_what_is_no_rate_is_refused():
    with pytest.raises(InvalidInput, match="floor"):
        CosineDecay(floor=1.5)
    with pytest.raises(InvalidInput, match="warm_up"):
        CosineDecay(warm_up=-1)

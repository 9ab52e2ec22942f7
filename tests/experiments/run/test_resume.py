"""A run that goes on from a checkpoint of any step ends bit for bit as one that was never stopped, whatever the rule."""

from __future__ import annotations

import hashlib

import pytest
import pytorch_lightning as pl
import torch
from rule_helpers import RULES, every, from_settings
from run_processes import equal

from experiments.run.checkpoints import StepCheckpoint

STEPS = 7


def three_steps(name: str) -> list[int]:
    """Three different steps before the last, drawn by the rule's name."""
    digest = hashlib.sha256(name.encode()).digest()
    drawn = sorted(range(1, STEPS), key=lambda step: digest[step])
    return sorted(drawn[:3])


class AtSteps(StepCheckpoint):
    """Checkpoints of some steps, all of them kept."""

    KEEP = STEPS

    def __init__(self, folder, steps):
        super().__init__(folder, every=1)
        self.steps = steps

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step in self.steps:
            self.save(trainer)


def run(name: str, folder, steps, precision: str, start=None) -> dict:
    """Train a newly built rule to the end; everything that a checkpoint of its last step holds but for times."""
    trainer = pl.Trainer(
        max_steps=STEPS,
        max_epochs=-1,
        precision=precision,
        accelerator="cpu",
        logger=False,
        callbacks=[AtSteps(folder, steps)],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    rule = from_settings(name, seeds=(0, 1))
    trainer.fit(rule, rule.data, ckpt_path=start)
    assert trainer.global_step == STEPS
    content = torch.load(folder / f"step={STEPS}.ckpt", weights_only=True)
    return {key: content[key] for key in ("global_step", "state_dict", "optimizer_states", "run")}


CASES = every(3, [(name, "32-true") for name in RULES]) + [(name, "64-true") for name in ("backprop", "byol", "weight_mirror")]


@pytest.mark.parametrize(("name", "precision"), CASES)
@pytest.mark.parametrize("places", [slice(1, 2), pytest.param(slice(None), marks=pytest.mark.chaos)], ids=["one", "three"])
def test_a_rule_goes_on_exactly_from_random_steps(name, precision, places, tmp_path):
    stops = three_steps(name)[places]
    torch.manual_seed(0)
    whole = run(name, tmp_path / "whole", stops, precision)
    first = torch.load(tmp_path / "whole" / f"step={stops[0]}.ckpt", weights_only=True)["state_dict"]
    assert not equal(first, whole["state_dict"])
    for step in stops:
        torch.manual_seed(step)  # nothing may depend on a generator
        resumed = run(name, tmp_path / str(step), [], precision, tmp_path / "whole" / f"step={step}.ckpt")
        for part, value in whole.items():
            assert equal(resumed[part], value), (step, part)

"""What can only be seen where there is a GPU."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from rule_helpers import RULES, from_settings

from callbacks import Histograms, StepLog

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Watched(pl.Callback):
    """Makes it an error that the host waits for the device, between a callback before the step and one after it."""

    def __init__(self, start: bool):
        self.start = start

    def on_train_batch_start(self, trainer, *_):
        if self.start and trainer.global_step >= 2:  # what is made once has been made
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, *_):
        if not self.start:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", RULES)
def test_the_host_never_waits_for_the_device_in_a_step(name, tmp_path):
    rule = from_settings(name)
    trainer = pl.Trainer(
        max_steps=6,
        max_epochs=-1,
        accelerator="gpu",
        devices=1,
        logger=CSVLogger(tmp_path),
        callbacks=[Watched(True), StepLog(50), Histograms(50), Watched(False)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    try:
        trainer.fit(rule, rule.data)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert trainer.global_step == 6

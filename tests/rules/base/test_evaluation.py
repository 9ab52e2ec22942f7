"""What validations tell loggers."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger
from rule_helpers import make_data

from networks import HierarchicalNetwork
from rules.backprop import Backprop


def test_a_second_fit_of_a_rule_writes_what_it_measures_at_a_step_of_the_first(tmp_path):
    rule, data = Backprop(HierarchicalNetwork(12)), make_data()
    for name in ("first", "second"):
        logger = CSVLogger(tmp_path, name=name)
        trainer = pl.Trainer(
            max_steps=2,
            val_check_interval=2,
            num_sanity_val_steps=0,
            accelerator="cpu",
            logger=logger,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(rule, data)
        assert any("test/accuracy" in path.read_text() for path in (tmp_path / name).rglob("*.csv")), name

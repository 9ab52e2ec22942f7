"""What validations tell loggers."""

from __future__ import annotations

from pytorch_lightning.loggers import CSVLogger
from rule_helpers import make_data, quiet_trainer

from networks import HierarchicalNetwork
from rules.backprop import Backprop


def test_a_second_fit_of_a_rule_writes_what_it_measures_at_a_step_of_the_first(tmp_path):
    rule, data = Backprop(HierarchicalNetwork(12)), make_data()
    for name in ("first", "second"):
        logger = CSVLogger(tmp_path, name=name)
        trainer = quiet_trainer(max_steps=2, val_check_interval=2, limit_val_batches=None, logger=logger)
        trainer.fit(rule, data)
        assert any("test/accuracy" in path.read_text() for path in (tmp_path / name).rglob("*.csv")), name

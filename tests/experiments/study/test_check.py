"""Which combinations of a study can be trained."""

from __future__ import annotations

from experiments.study.check import fitting
from experiments.study.grid import expand
from experiments.study.study import Rule, Sizes, Study


def test_a_task_that_does_not_fit_takes_no_other_with_it():
    """There are 512 strings at L = 3 and 131,072 at L = 4."""
    study = Study(
        [Rule("backprop")],
        [{"v": 4, "n": 4, "m": 2, "L": [3, 4]}],
        Sizes([16]),
        settings={"data.test_size": 500, "model.network.width": 4},
        grid=[{"model.clip": [1.0, 2.0]}],
    )
    combinations, skipped = expand(study)
    kept = [c.name for c in fitting(combinations, skipped)]
    assert kept == [f"backprop/v4_n4_m2_s2_L4/clip={clip}" for clip in (1.0, 2.0)]
    assert len(skipped) == 1 and skipped[0].startswith("backprop/v4_n4_m2_s2_L3/clip=1.0 and 1 like it: data.train_size")

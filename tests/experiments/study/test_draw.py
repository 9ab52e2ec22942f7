"""Combinations of values."""

from __future__ import annotations

from experiments.study.draw import crossed, draw
from experiments.study.grid import expand
from experiments.study.study import Rule, Search, Sizes, Study


def test_lists_within_an_entry_are_crossed_and_entries_follow_one_another():
    assert crossed([{"m": [2, 3], "L": [2, 4]}, {"m": 5}]) == [
        {"m": 2, "L": 2},
        {"m": 2, "L": 4},
        {"m": 3, "L": 2},
        {"m": 3, "L": 4},
        {"m": 5},
    ]


def test_every_rule_has_the_same_number_of_trials_all_different():
    grid = {"model.optimizer.lr": [1, 2, 3], "model.clip": [4, 5]}
    trials = draw(grid, 4)
    assert len(trials) == 4 == len({str(t) for t in trials}) and draw(grid, 4) == trials
    assert len(draw(grid, 100)) == 6
    study = Study(
        [Rule("backprop"), Rule("dfa", search={"model.feedback_scale": [1, 2, 3]})], [{}], Sizes([64]), search=Search(grid, 2)
    )
    assert [len(c.trials()) for c in expand(study)[0]] == [2, 2]

"""What a study expands to."""

from __future__ import annotations

import pytest

from experiments.study.grid import expand
from experiments.study.study import Rule, Sizes, Steps, Study
from rhm import InvalidInput


def test_a_task_that_is_given_twice_is_one():
    found = expand(Study([Rule("backprop")], [{"L": 3}, {"L": [2, 3]}], Sizes([64])))[0]
    assert [c.task.L for c in found] == [3, 2]


def test_a_rule_that_no_task_is_left_for_is_named():
    study = Study([Rule("backprop"), Rule("dfa", only={"L": [9]})], [{"L": 3}], Sizes([64]))
    assert [reason for reason in expand(study)[1] if "dfa" in reason and "rules.only={'L': [9]}" in reason]


def test_more_labels_than_training_strings_are_left_out():
    study = Study([Rule("lpl")], [{}], Sizes([16, 2048, 4096]), vary="label_size", settings={"data.train_size": 2048})
    found, skipped = expand(study)
    assert found[0].sizes == [16, 2048] and "4,096 label_size" in skipped[0] and "data.train_size=2,048" in skipped[0]


def test_rules_tasks_and_cells_are_crossed_and_what_cannot_be_is_named():
    study = Study(
        [Rule("backprop"), Rule("lpl", only={"L": [3]}, grid=[{"model.network.width": 4}]), Rule("dfa", sizes=Sizes([10**9]))],
        [{"L": [2, 3]}, {"m": 9}],
        Sizes([64, 400]),
        grid=[{"model.network.width": [8, 16]}],
    )
    found, skipped = expand(study)
    assert [c.name for c in found] == [
        "backprop/v8_n8_m4_s2_L2/width=8",
        "backprop/v8_n8_m4_s2_L2/width=16",
        "backprop/v8_n8_m4_s2_L3/width=8",
        "backprop/v8_n8_m4_s2_L3/width=16",
        "lpl/v8_n8_m4_s2_L3/width=4",
    ]
    assert found[0].sizes == [64] and found[2].sizes == [64, 400]  # 512 strings at L = 2, of which 128 are for tests
    assert any("400" in reason and "512 strings" in reason for reason in skipped)
    assert any("m <= 8" in reason for reason in skipped) and any("1,000,000,000" in reason for reason in skipped)


def test_a_run_has_all_sizes_and_seeds_as_replicas_and_the_same_length_for_all():
    study = Study(
        [Rule("backprop", settings={"model.clip": 1.0})], [{}], Sizes([256, 1024]), seeds=[3, 4], steps=Steps(10, 5000, 20)
    )
    combination = expand(study)[0][0]
    run = combination.run("grid", combination.sizes, study.seeds, {"model.optimizer.lr": 0.1})
    assert {"--data.train_size=[256, 1024]", "--data.seeds=[3, 4]", "--model.clip=1.0", "--model.optimizer.lr=0.1"} <= set(
        run.args
    )
    assert run.steps == 160 and "--trainer.max_steps=160" in run.args  # 20 epochs of 1,024 strings in batches of 128
    assert combination.run("refined-1", [512], study.seeds, {}).steps == 160


def test_a_rule_may_have_a_length_of_its_own():
    rules = [Rule("backprop"), Rule("pepita", steps=Steps(6000, 6000)), Rule("dfa", steps=Steps(10, 5000, 40))]
    lengths = {
        c.rule.rule: c.run("grid", c.sizes, [0], {}).steps
        for c in expand(Study(rules, [{}], Sizes([1024]), steps=Steps(5, 5)))[0]
    }
    assert lengths == {"backprop": 5, "pepita": 6000, "dfa": 320}


def test_label_sizes_can_be_varied_instead():
    study = Study(
        [Rule("sibling_contrastive"), Rule("backprop", vary="train_size")],
        [{}],
        Sizes([16, 64]),
        vary="label_size",
        settings={"data.train_size": 1024},
        steps=Steps(1, 5000, 10),
    )
    siblings, backprop = (c.run("grid", c.sizes, [0], {}) for c in expand(study)[0])
    assert {"--data.train_size=1024", "--data.label_size=[16, 64]"} <= set(siblings.args) and siblings.steps == 80
    assert "--data.train_size=[16, 64]" in backprop.args and not any("label_size" in a for a in backprop.args)


@pytest.mark.parametrize(
    ("vary", "where", "name"),
    [("train_size", "settings", "label_size"), ("train_size", "rule", "label_size"), ("label_size", "settings", "train_size")],
)
def test_a_list_of_sizes_beside_those_that_vary_is_refused(vary, where, name):
    """Its replicas would be taken for seeds of one size."""
    given = {f"data.{name}": [100, 200]}
    rule = Rule("lpl", settings=given) if where == "rule" else Rule("lpl")
    study = Study([rule], [{}], Sizes([16, 64]), vary=vary, settings=given if where == "settings" else {})
    with pytest.raises(InvalidInput, match=rf"data.{name}: got \[100, 200\], allowed: one number"):
        expand(study)


def test_a_run_among_silent_positions_is_as_much_work_as_its_strings_are_long():
    """So that the longest runs are begun first."""
    study = Study([Rule("backprop")], [{"L": [2, 3]}], Sizes([64]), grid=[{"data.silent": [0, 1, 2]}, {"data.noise": 0.1}])
    runs = [combination.run("grid", combination.sizes, [0], {}) for combination in expand(study)[0]]
    tokens = [2**2, 4**2, 6**2, 2**2, 2**3, 4**3, 6**3, 2**3]
    assert [run.work / (run.steps * run.replicas) for run in runs] == tokens
    assert "--data.silent=2" in runs[2].args and runs[2].name.endswith("/silent=2/grid") and runs[2].task["s"] == 2

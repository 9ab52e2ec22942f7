"""What runs will cost."""

from __future__ import annotations

from experiments.study.estimate import Cost, Costs
from experiments.study.grid import expand
from experiments.study.study import Rule, Sizes, Study


def test_an_estimate_scales_with_the_task_and_the_rule():
    study = Study([Rule("backprop"), Rule("dfa")], [{"L": [2, 3]}], Sizes([64]))
    combinations = expand(study)[0]
    costs = Costs.__new__(Costs)
    keys = {(c.rule.label, c.task.L): (c.rule.label, str(c.task), str(c.cell)) for c in combinations}
    costs.found = {keys["backprop", 2]: Cost(1, 10), keys["backprop", 3]: Cost(3, 20), keys["dfa", 2]: Cost(5, 40)}
    costs.reference = {key[1:]: key for (rule, _), key in keys.items() if rule == "backprop"}
    costs.first = {rule: (keys[rule, 2], *keys[rule, 2][1:]) for rule in ("backprop", "dfa")}
    by_name = {(c.rule.label, c.task.L): costs.of(c) for c in combinations}
    assert by_name["backprop", 3] == Cost(3, 20) and by_name["dfa", 3] == Cost(15, 80)

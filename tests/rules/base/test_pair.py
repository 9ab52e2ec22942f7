"""Negatives, as all rules draw them that have one for each string.

Shape suffixes: R replica.
"""

from __future__ import annotations

import torch
from rule_helpers import compute, from_settings


def test_no_draw_makes_a_string_its_own_negative_and_all_others_occur():
    rule = from_settings("clapp")
    seen = set()
    for i in range(60):
        shift_R = rule.pair(compute(rule, i), 1).shift_R()
        assert ((shift_R >= 1) & (shift_R < 16)).all()
        seen |= set(shift_R.tolist())
    assert len(seen) == 15


def test_a_checkpoint_with_a_heads_former_name_is_loaded():
    rule, other = (from_settings("sfa", seeds=(seed,)) for seed in (1, 2))
    former = {name.replace("head_RCE", "head_RCC"): value for name, value in rule.state_dict().items()}
    assert former.keys() != rule.state_dict().keys()
    other.load_state_dict(former)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in rule.state_dict().items())

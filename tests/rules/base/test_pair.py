"""Negatives, as all rules draw them that have one for each string.

Shape suffixes: R replica.
"""

from __future__ import annotations

from rule_helpers import compute, from_settings


def test_no_draw_makes_a_string_its_own_negative_and_all_others_occur():
    rule = from_settings("clapp")
    seen = set()
    for i in range(60):
        shift_R = rule.pair(compute(rule, i), 1).shift_R()
        assert ((shift_R >= 1) & (shift_R < 16)).all()
        seen |= set(shift_R.tolist())
    assert len(seen) == 15

"""A rule beside its equation: what it says, and the state after one step.

Shape suffixes: the arrays are those of one replica.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rule_helpers import compute

from equations.ask import case_of, move, said
from equations.case import Answer, Equation, State
from rules import LocalRule


@dataclass
class Wanted:
    """What an equation wants of a rule in one step.

    Attributes:
        answer: what the rule must say.
        state: after the step.
        equation: that says so.
    """

    answer: Answer
    state: State
    equation: Equation


def wanted(equation: Equation, rule: LocalRule, name: str, args: tuple[str, ...] = ()) -> Wanted:
    """Ask the oracle; the rule stays as it is, and gives no more than its numbers."""
    step = compute(rule)
    answer = equation.says(case_of(rule, step, name, args))
    return Wanted(answer, equation.after(case_of(rule, step, name, args), answer), equation)


def check(rule: LocalRule, wants: Wanted) -> None:
    """Ask the rule, move it by one step, and compare.

    Raises:
        AssertionError: a number, a name or a shape is not the equation's.
    """
    rtol = wants.equation.rtol
    updates, ours = said(rule, compute(rule))
    compare_parts("", ours.gradients, wants.answer.gradients, rtol)
    compare("estimates", ours.estimates, wants.answer.estimates, rtol)
    compare("losses", ours.losses, wants.answer.losses, rtol)
    after = move(rule, updates, wants.equation.own_optimizer)
    compare_parts(" after the step", after.parts, wants.state.parts, rtol)
    compare("buffers after the step", after.buffers, wants.state.buffers, rtol)


def compare_parts(when: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]], rtol: float) -> None:
    """One comparison a part: the layers and, last, the readout."""
    assert len(ours) == len(theirs), f"{len(ours)} parts, of {len(theirs)}"
    for k, (one, other) in enumerate(zip(ours, theirs, strict=True), 1):
        compare(f"part {k}{when}", one, other, rtol)


def compare(what: str, ours: dict[str, Any], theirs: dict[str, Any], rtol: float) -> None:
    """The same names, shapes and numbers; a number may be off by ``rtol`` of itself or a tenth of that of the largest."""
    assert ours.keys() == theirs.keys(), f"{what}: {sorted(ours)} are said, {sorted(theirs)} wanted"
    for name, value in theirs.items():
        assert np.shape(ours[name]) == np.shape(value), f"{what}: {name}: shape {np.shape(ours[name])} of {np.shape(value)}"
        slack = 1e-15 + 0.1 * rtol * float(np.abs(value).max(initial=0))
        message = f"{what}: {name} (actual is the rule's, desired the equation's)"
        np.testing.assert_allclose(ours[name], value, rtol=rtol, atol=slack, err_msg=message)

"""Every settings file against its equation in ``tests/helpers/equations``: what the rule says, and the state after a step.

Shape suffixes: the arrays are those of one replica.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from equations import EQUATIONS
from equations.ask import build, case_of, compute, move, said
from equations.network import numeric_gradient
from equations.references import NETWORKS
from rule_helpers import RULES

CASES = [
    pytest.param(name, (*equation.small, *args), id=" ".join([name, *args]))
    for name, equation in EQUATIONS.items()
    for args in ((), *equation.variants)
]


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_equal(what: str, ours: dict, theirs: dict, rtol: float) -> None:
    """The same names, shapes and numbers; a number may be off by ``rtol`` of itself or a tenth of that of the largest."""
    assert ours.keys() == theirs.keys(), what
    for name, value in theirs.items():
        assert np.shape(ours[name]) == np.shape(value), f"{what}: {name}"
        largest = float(np.abs(value).max(initial=0))
        message = f"{what}: {name} (ours is the rule's, desired is the equation's)"
        np.testing.assert_allclose(ours[name], value, rtol=rtol, atol=1e-15 + 0.1 * rtol * largest, err_msg=message)


def test_every_settings_file_has_an_equation():
    assert EQUATIONS.keys() == RULES.keys()


@pytest.mark.parametrize(("name", "args"), CASES)
def test_a_rule_says_and_does_what_its_equation_says(name, args):
    equation, rule = EQUATIONS[name], build(name, *args)
    step = compute(rule)
    case = case_of(rule, step, name, args)
    updates, ours = said(rule, step)
    theirs = equation.says(case_of(rule, step, name, args))
    assert len(ours.gradients) == len(theirs.gradients) == len(case.parts)
    for k, (one, other) in enumerate(zip(ours.gradients, theirs.gradients, strict=True), 1):
        assert_equal(f"part {k}", one, other, equation.rtol)
    assert_equal("estimates", ours.estimates, theirs.estimates, equation.rtol)
    assert_equal("losses", ours.losses, theirs.losses, equation.rtol)

    after, wanted = move(rule, updates, equation.own_optimizer), equation.after(case, theirs)
    for k, (one, other) in enumerate(zip(after.parts, wanted.parts, strict=True), 1):
        assert_equal(f"part {k} after the step", one, other, equation.rtol)
    assert_equal("buffers after the step", after.buffers, wanted.buffers, equation.rtol)


@pytest.mark.parametrize("args", [(), *NETWORKS], ids=" ".join)
def test_the_chain_rule_of_the_plain_network_is_finite_differences_of_its_loss(args):
    rule = build("backprop", *args)
    case = case_of(rule, compute(rule), "backprop", args)
    answer = EQUATIONS["backprop"].says(case)

    def loss() -> float:
        return float(case.answered(case.runs()).loss_B.mean())

    assert answer.losses == {"loss/readout": loss()}
    for part, gradients in zip(case.parts, answer.gradients, strict=True):
        numeric = numeric_gradient(loss, part)
        assert gradients.keys() == numeric.keys()
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, numeric[name], rtol=1e-6, atol=1e-8, err_msg=name)

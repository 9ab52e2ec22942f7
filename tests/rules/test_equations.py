"""Every settings file against its equation in ``tests/helpers/equations``: what the rule says, and the state after a step.

Shape suffixes: the arrays are those of one replica.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from equations import EQUATIONS
from equations.ask import build, case_of
from equations.check import check, wanted
from equations.network import numeric_gradient
from equations.references import NETWORKS
from rule_helpers import RULES, compute

CASES = [
    pytest.param(
        name, (*equation.small, *args), id=" ".join([name, *args]), marks=[pytest.mark.chaos] if i and i % 4 != 1 else []
    )
    for name, equation in EQUATIONS.items()
    for i, args in enumerate(((), *equation.variants))
]
"""Each file as it is, and each fourth of its variants; the others in `make test-chaos`."""


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", [*RULES])
def test_a_settings_file_has_an_equation(name):
    assert name in EQUATIONS


def test_an_equation_has_a_settings_file():
    assert EQUATIONS.keys() <= RULES.keys()


@pytest.mark.parametrize(("name", "args"), CASES)
def test_a_rule_says_and_does_what_its_equation_says(name, args):
    rule = build(name, *args)
    check(rule, wanted(EQUATIONS[name], rule, name, args))


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

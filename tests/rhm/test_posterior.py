"""The posterior of a class, against going through all strings.

Shape suffixes: R replica, B string, D position, N class.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from rhm import InvalidInput, RandomHierarchyModel
from rhm.posterior import class_posterior

TASK = {"v": 4, "n": 4, "m": 3, "s": 2, "L": 2}


def all_strings(rules: dict[int, list], task: dict[str, int], symbol: int, level: int, weights: dict[int, list[float]]):
    """Each string below a symbol, with its probability."""
    if level == 0:
        yield (symbol,), 1.0
        return
    for tuple_, weight in zip(rules[level][symbol], weights[level], strict=True):
        below = [list(all_strings(rules, task, child, level - 1, weights)) for child in tuple_]
        for parts in itertools.product(*below):
            probability = weight
            for _, own in parts:
                probability *= own
            yield sum((part for part, _ in parts), ()), probability


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize(
    ("task", "frequencies"), [(TASK, None), (TASK, {2: (0.4, 0.3, 0.3)}), ({"v": 3, "n": 2, "m": 3, "s": 3, "L": 1}, None)]
)
def test_the_posterior_is_that_of_all_strings(task, frequencies, noise):
    model = RandomHierarchyModel(**task, seeds=(0, 1), frequencies=frequencies)
    weights = {level: list((frequencies or {}).get(level, [1 / task["m"]] * task["m"])) for level in range(1, task["L"] + 1)}
    tokens = torch.tensor(list(itertools.product(range(task["v"]), repeat=task["s"] ** task["L"])))
    found_RBN = class_posterior(model, tokens.expand(2, -1, -1), noise)
    for r in range(2):
        rules = {level: model.rules(level)[r].tolist() for level in range(1, task["L"] + 1)}
        likelihood_BN = torch.zeros(len(tokens), task["n"], dtype=torch.float64)
        for y in range(task["n"]):
            for string, probability in all_strings(rules, task, y, task["L"], weights):
                alike_BD = tokens == torch.tensor(string)
                each_BD = alike_BD.double() * (1 - noise) + noise / task["v"]
                likelihood_BN[:, y] += probability * each_BD.prod(1)
        possible_B = likelihood_BN.sum(1) > 0
        assert possible_B.all() if noise else not possible_B.all()
        wanted_BN = likelihood_BN / likelihood_BN.sum(1, keepdim=True)
        torch.testing.assert_close(found_RBN[r][possible_B], wanted_BN[possible_B], rtol=1e-9, atol=1e-12)
        assert found_RBN[r][~possible_B].isnan().all()


def test_noise_is_a_probability():
    with pytest.raises(InvalidInput, match="noise: got 1.5, allowed: a probability from 0 to 1"):
        class_posterior(RandomHierarchyModel(**TASK), torch.zeros(1, 1, 4, dtype=torch.long), 1.5)

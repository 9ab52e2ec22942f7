"""Rules of unequal frequency, against all strings of small grammars, each with the product of its rules' frequencies.

Shape suffixes: R replica, B batch.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from fractions import Fraction

import pytest
import torch
from oracles import FALSE_ALARM, derivations, is_derived, levels_of, parse_all, rules_of, strings, tail

import rhm.model
from rhm import InvalidInput, RandomHierarchyModel, Task
from rhm.frequencies import NUMBERS, PROBES, TESTS, other_rules, probability_alike, rule_ends, zipf

TASK = {"v": 4, "n": 3, "m": 3, "s": 2, "L": 2}
"""81 strings."""
UNEQUAL = {1: (0.5, 0.3, 0.2), 2: (0.25, 0.45, 0.3)}
CASES = {
    "all levels": (TASK, UNEQUAL),
    "tokens": (TASK, {1: UNEQUAL[1]}),
    "class": (TASK, {2: UNEQUAL[2]}),
    "one level": ({"v": 3, "n": 13, "m": 2, "s": 3, "L": 1}, {1: (0.4, 0.6)}),
    "three levels": ({**TASK, "v": 2, "n": 2, "m": 2, "L": 3}, {2: (0.4, 0.6), 3: (0.45, 0.55)}),
}
SIDES = {"train": 0, "probe": PROBES, "test": TESTS}


def weights(model, r: int) -> dict[tuple[int, ...], float]:
    """The probability of every string of a replica's grammar: of its class, and of the rule at each node."""
    task, found = model.task, {}
    every = [levels[0] for levels in derivations(rules_of(model, r))]
    for string, (_, choices) in zip(every, parse_all(rules_of(model, r), every), strict=True):
        frequency = [model.frequencies.get(level, [1 / task.m] * task.m) for level in range(1, task.L + 1)]
        rules = [of[choice] for of, chosen in zip(frequency, choices, strict=True) for choice in chosen]
        found[string] = math.prod(rules) / task.n
    return found


def assert_follows(count: Counter, weight: dict) -> None:
    """Chi-square test that counts follow weights, which need not sum to 1."""
    drawn, whole = sum(count.values()), sum(weight.values())
    expected = {key: drawn * value / whole for key, value in weight.items()}
    assert count.keys() <= expected.keys() and min(expected.values()) > 5
    statistic = sum((count[key] - mean) ** 2 / mean for key, mean in expected.items())
    assert tail(statistic, len(expected) - 1) > FALSE_ALARM


def numbers(start: int, count: int) -> torch.Tensor:
    return torch.arange(start, start + count)


@pytest.fixture(params=CASES)
def model(request, monkeypatch):
    monkeypatch.setattr("rhm.frequencies.MOST_ALIKE", 0.05)  # for grammars so small that each string is seen often
    task, frequencies = CASES[request.param]
    return RandomHierarchyModel(**task, seeds=[0, 1], frequencies=frequencies)


# ---------------------------------------------------------------- strings


def test_strings_have_the_frequency_of_their_rules_and_are_of_one_side(model):
    for r in range(2):
        weight, seen = weights(model, r), []
        assert math.isclose(sum(weight.values()), 1)
        for start in SIDES.values():
            count = Counter(strings(model.sample(numbers(start, 20_000)).x_RBD[r]))
            assert_follows(count, {string: weight[string] for string in count})
            seen += [*count]
        assert Counter(seen) == dict.fromkeys(weight, 1)  # every string of the grammar is of one side, and of no other


def test_half_of_what_is_drawn_is_to_train_on_and_a_quarter_each_for_probes_and_tests(monkeypatch):
    """In the mean over seeds, each of which has sides of its own."""
    monkeypatch.setattr("rhm.frequencies.MOST_ALIKE", 0.05)
    seeds = 60
    model = RandomHierarchyModel(**TASK, seeds=[0] * seeds, data_seeds=range(seeds), frequencies=UNEQUAL)
    weight = weights(model, 0)
    squares = sum(value**2 for value in weight.values())
    sides = {side: [frozenset(strings(x)) for x in model.sample(numbers(SIDES[side], 4000)).x_RBD] for side in SIDES}
    assert len({*sides["test"]}) == seeds
    for side, share in ("train", 0.5), ("probe", 0.25), ("test", 0.25):
        mean = sum(weight[string] for found in sides[side] for string in found) / seeds
        assert abs(mean - share) < 5 * math.sqrt(share * (1 - share) * squares / seeds)


def test_a_string_has_the_symbols_that_a_parser_finds(model):
    for start in SIDES.values():
        drawn = model.sample(numbers(start, 200))
        assert model.parse(drawn.x_RBD).equals(drawn)
        assert all(is_derived(rules_of(model, r), levels_of(drawn, r)) for r in range(2))


@pytest.mark.parametrize("task", [(4, 4, 3, 2, 3), (16, 5, 3, 2, 4), (300, 7, 2, 2, 4), (4, 4, 2, 2, 10)])
def test_a_string_depends_on_its_seeds_and_number_alone(task, monkeypatch):
    def made(seeds, data_seeds):
        unequal = {1: zipf(task[2], 0.5), task[4]: zipf(task[2], 0.2)}
        return RandomHierarchyModel(*task, seeds=seeds, data_seeds=data_seeds, frequencies=unequal)

    model, i = made([5, 6, 6], [1, 1, 2]), torch.cat([numbers(start, 9) for start in SIDES.values()])
    whole = model.sample(i)
    for r, (seed, data_seed) in enumerate([(5, 1), (6, 1), (6, 2)]):
        assert made([seed], [data_seed]).sample(i).equals(whole.map(lambda t, r=r: t[r : r + 1]))
    assert not torch.equal(whole.x_RBD[1], whole.x_RBD[2])
    i_RB = torch.stack([i, i.flip(0), i.roll(1)])
    assert torch.equal(model.sample(i_RB).x_RBD[1], whole.x_RBD[1].flip(0))
    monkeypatch.setattr(rhm.model, "CHUNK", 1)
    assert model.sample(i).equals(whole)


def test_numbers_go_up_to_a_power_of_two_and_have_no_way_back(model):
    assert model.index_range == NUMBERS == 2**62
    drawn = model.sample(torch.tensor([0, NUMBERS - 1]))
    for wrong in -1, NUMBERS:
        with pytest.raises(InvalidInput, match="numbers in"):
            model.sample(torch.tensor([wrong]))
    with pytest.raises(InvalidInput, match="a string that may be drawn twice has no number"):
        model.number(drawn)


# ---------------------------------------------------------------- other strings with the same symbols


@pytest.mark.parametrize("case", ["all levels", "tokens", "class"])
def test_rules_that_are_drawn_again_have_their_frequencies(case):
    task, frequencies = CASES[case]
    model = RandomHierarchyModel(**{**task, "n": 4, "L": 3}, seeds=[3], frequencies=frequencies)
    before = model.sample(torch.arange(10_000))
    for level in 1, 2, 3:
        after = model.resample(before, level, key=torch.arange(10_000)[None, :, None])
        assert all(torch.equal(a, b) for a, b in zip(after.symbols[level:], before.symbols[level:], strict=True))
        chosen = [choices for _, choices in parse_all(rules_of(model), strings(after.x_RBD[0]))]
        for drawn in range(1, level + 1):
            for node in range(2 ** (3 - drawn)):
                count = Counter(choices[drawn - 1][node] for choices in chosen)
                assert_follows(count, dict(enumerate(frequencies.get(drawn, [1 / 3] * 3))))


def test_a_synonym_is_another_one_by_its_frequency():
    model = RandomHierarchyModel(**{**TASK, "n": 4, "L": 3}, seeds=[3], frequencies=UNEQUAL)
    before = model.sample(torch.arange(20_000))
    old = [choices for _, choices in parse_all(rules_of(model), strings(before.x_RBD[0]))]
    for level in 1, 2:
        after = model.exchange(before, level, key=torch.arange(20_000)[None, :, None])
        new = [choices for _, choices in parse_all(rules_of(model), strings(after.x_RBD[0]))]
        for was in range(3):
            count = Counter(n[level - 1][0] for o, n in zip(old, new, strict=True) if o[level - 1][0] == was)
            assert_follows(count, {rule: f for rule, f in enumerate(UNEQUAL[level]) if rule != was})
        others = [l for l in (1, 2, 3) if l != level]
        assert all(o[l - 1] == n[l - 1] for o, n in zip(old, new, strict=True) for l in others)


# ---------------------------------------------------------------- numbers


def test_zipf_is_a_power_of_the_rank():
    assert zipf(4, 1) == pytest.approx([float(Fraction(144, 205 * k * k)) for k in (1, 2, 3, 4)])
    assert zipf(2, 0) == pytest.approx([2 / 3, 1 / 3]) and zipf(1, 3) == (1.0,)


def test_a_rules_part_is_its_frequency_in_units():
    frequencies = (0.1, 0.7, 2**-30, 0.2 - 2**-30)
    ends = rule_ends(frequencies).tolist()
    assert ends[-1] == 2**31
    parts = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    assert all(part > 0 and abs(part - f * 2**31) <= 1 for part, f in zip(parts, frequencies, strict=True))


def test_no_bits_give_the_same_rule_again():
    ends = rule_ends((0.2, 0.5, 2**-30, 0.3 - 2**-30))
    bits = torch.tensor([0, 2**31 - 1, 2**30, *range(5, 2**31, 2**20)]) << 32
    for rule in range(4):
        found = other_rules(bits, torch.full_like(bits, rule), ends)
        assert set(found.tolist()) <= {0, 1, 2, 3} - {rule} and found.max() == (3 if rule != 3 else 2)


def test_two_strings_are_the_same_as_often_as_their_weights_say(model):
    squares = sum(weight**2 for weight in weights(model, 0).values())
    assert math.isclose(probability_alike(model.task, model.frequencies), squares)


@pytest.mark.parametrize("task", [(4, 4, 3, 2, 3), (3, 2, 3, 2, 4)])
def test_json_keeps_frequencies(task):
    model = RandomHierarchyModel(*task, seeds=[1, 2], frequencies={2: (0.5, 0.25, 0.25)})
    copy = RandomHierarchyModel.from_json(model.to_json())
    assert json.loads(model.to_json())["frequencies"] == {"level 2": [0.5, 0.25, 0.25]}
    assert copy.to_json() == model.to_json() and copy.sample(torch.arange(50)).equals(model.sample(torch.arange(50)))
    assert "frequencies" not in json.loads(RandomHierarchyModel(*task).to_json())


@pytest.mark.parametrize(
    ("frequencies", "line"),
    [
        ({0: (0.5, 0.5)}, "frequencies: got those of level 0, allowed: levels from 1 to L=3"),
        ({4: (0.5, 0.5)}, "frequencies: got those of level 4"),
        ({1: (0.5, 0.4)}, "frequencies of level 1: got 2 numbers that sum to 0.9, allowed: m=2 numbers"),
        ({1: (0.5, 0.3, 0.2)}, "frequencies of level 1: got 3 numbers that sum to 1, allowed: m=2 numbers"),
        ({2: (1.5, -0.5)}, "frequencies of level 2: got [1.5, -0.5]"),
        ({2: (1.0, 0.0)}, "frequencies of level 2: got [1.0, 0.0], allowed: m=2 numbers of at least 1e-9"),
        ({2: (math.nan, 1.0)}, "frequencies of level 2: got [nan, 1.0]"),
        ({2: (True, 0.5)}, "frequencies of level 2: got [True, 0.5]"),
        ({2: "11"}, "frequencies of level 2: got 11"),
        ({1: (0.999, 0.001)}, "frequencies: got two strings that are the same with probability 0.031, allowed: at most 0.01"),
    ],
)
def test_frequencies_that_cannot_be_are_refused(frequencies, line):
    with pytest.raises(InvalidInput) as caught:
        RandomHierarchyModel(4, 4, 2, 2, 3, frequencies=frequencies)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
    assert Task(4, 4, 2, 2, 3).P_max == 512

"""The GPU benchmark where there is none."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction

import pytest
import torch

from benchmarks import elimination, floor
from benchmarks.gpu import main
from benchmarks.steps import Steps, operations, rule_of
from rhm import RandomHierarchyModel


def test_the_gpu_benchmark_says_so_where_there_is_no_gpu(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main([])
    assert capsys.readouterr().out == "no GPU here: nothing measured (--device=cpu tries the code)\n"


def test_the_gpu_benchmark_runs_tiny_on_the_cpu(capsys):
    main(["--device=cpu"])
    out = capsys.readouterr().out
    assert all(out.count(name) == 2 for name in ("backprop", "dfa", "sibling_contrastive", "clapp"))


def test_operations_are_those_of_the_matrix_products_of_a_step_of_backprop():
    """Two operations for each weight, string and position, forward and for the update; the signal goes down to layer 2."""
    rule = rule_of("backprop", 3, width=16, batch=4)
    weights = [(8 * 2 * 16, 8), (16 * 2 * 16, 4), (16 * 2 * 16, 2), (16 * 2 * 16, 1), (16 * 8, 1)]
    expected = sum(2 * 3 * 4 * count * positions * (2 if k == 0 else 3) for k, (count, positions) in enumerate(weights))
    assert operations(Steps(rule)) == expected


@pytest.mark.parametrize(("n", "m", "P"), [(2, 2, 3), (3, 2, 2), (2, 3, 4)])
def test_the_floor_is_that_of_all_sequences_of_strings(n, m, P):
    """Guessing by hand: the class of a rule that was not seen is any one, or one that lacks most of its rules."""
    guessed = eliminated = 0.0
    sequences = list(itertools.product(range(n * m), repeat=P))
    for sequence in sequences:
        lacks = [m - len({rule for rule in sequence if rule // m == y}) for y in range(n)]
        for rule in set(range(n * m)) - set(sequence):
            guessed += 1 - 1 / n
            eliminated += rule // m != lacks.index(max(lacks))
    wanted = (guessed / n / m / len(sequences), eliminated / n / m / len(sequences))
    assert floor.errors(n, m, P, trials=200_000) == pytest.approx(wanted, abs=5e-3)
    assert wanted[1] < wanted[0]


def test_the_floor_is_the_first_number_of_strings_with_so_small_an_error():
    for which, P in enumerate(floor.strings(4, 2)):
        at, before = floor.errors(4, 2, P)[which], floor.errors(4, 2, P - 1)[which]
        assert at <= 0.01 * 0.75 < before


@pytest.mark.parametrize("P", [4, 12])
def test_with_the_true_symbols_as_codes_a_table_is_at_the_floor(P):
    """Both expected errors, over many grammars, are those that have been counted without any string."""
    n, m, v, R = 4, 2, 4, 2000
    rule_RB = torch.randint(n * m, (R, P), generator=torch.Generator().manual_seed(0))
    order_RC = torch.rand(R, v * v, generator=torch.Generator().manual_seed(1)).argsort(1)
    pair_RC = order_RC[:, : n * m]  # of each of the root's rules
    all_RB = torch.arange(n * m).expand(R, -1)
    size_R = torch.full((R,), P)
    found = elimination.read_off(pair_RC.gather(1, rule_RB), rule_RB // m, size_R, pair_RC, all_RB // m, n, v * v)
    for accuracy_R, error in zip(found, floor.errors(n, m, P, trials=200_000), strict=True):
        assert 1 - accuracy_R.mean() == pytest.approx(error, abs=4 * float(accuracy_R.std()) / R**0.5 + 1e-3)


def test_a_table_has_the_strings_of_its_size_alone():
    """Two replicas of the same strings: one has all pairs, the other lacks both of class 1, and by elimination neither."""
    pair_RB, y_RB = torch.tensor([[0, 1, 2, 3]] * 2), torch.tensor([[0, 0, 1, 1]] * 2)
    guessed_R, eliminated_R = elimination.read_off(pair_RB, y_RB, torch.tensor([4, 2]), pair_RB, y_RB, 2, 4)
    assert guessed_R.tolist() == [1.0, 0.75]
    assert eliminated_R.tolist() == [1.0, 1.0]


@pytest.mark.chaos
def test_with_enough_strings_all_three_readouts_of_a_run_are_right_and_with_few_none_is(monkeypatch):
    monkeypatch.setattr(elimination, "SIZES", [16, 400])
    monkeypatch.setattr(elimination, "SEEDS", [100])
    for few, enough in elimination.accuracies(steps=600):
        assert few < 0.5
        assert enough > 0.98


@pytest.mark.parametrize(("v", "n", "L"), [(3, 3, 2), (6, 2, 2), (3, 3, 3)])
def test_symbols_are_alike_if_they_have_the_same_siblings_in_all_strings(v, n, L):
    """Counted string by string; below the uppermost level symbols are not equally frequent, and some never occur."""
    model = RandomHierarchyModel(v=v, n=n, m=2, s=2, L=L, seeds=range(60))
    symbols = model.sample(torch.arange(model.task.P_max).expand(60, -1)).symbols
    wanted = [any(two_alike(symbols[level][r].view(-1, 2).tolist()) for level in range(1, L)) for r in range(60)]
    assert floor.with_alike(model).tolist() == wanted and 0 < sum(wanted) < 60


def two_alike(pairs: list[list[int]]) -> bool:
    """Whether two symbols have the same siblings, each the same part of both's."""
    siblings = Counter((side, pair[side], pair[1 - side]) for pair in pairs for side in (0, 1))
    shares = []
    for symbol in {own for _, own, _ in siblings}:
        of_symbol = {(side, other): count for (side, own, other), count in siblings.items() if own == symbol}
        shares.append({key: Fraction(count, sum(of_symbol.values())) for key, count in of_symbol.items()})
    return any(one == two for one, two in itertools.combinations(shares, 2))


def test_where_all_pairs_are_used_all_symbols_are_alike():
    assert floor.with_alike(RandomHierarchyModel(v=4, n=4, m=4, s=2, L=3, seeds=range(3))).all()
    with pytest.raises(ValueError, match="tuples of 3"):
        floor.with_alike(RandomHierarchyModel(v=4, n=4, m=2, s=3, L=2))

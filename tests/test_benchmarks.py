"""The GPU benchmark where there is none."""

from __future__ import annotations

import itertools

import pytest
import torch

from benchmarks import floor
from benchmarks.gpu import main
from benchmarks.steps import Steps, operations, rule_of


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

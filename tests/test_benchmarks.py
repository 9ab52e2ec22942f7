"""The GPU benchmark where there is none."""

from __future__ import annotations

import torch

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

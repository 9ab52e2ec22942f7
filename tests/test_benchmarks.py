"""The GPU benchmark where there is none."""

from __future__ import annotations

import json

import torch

from benchmarks import rules_table
from benchmarks.gpu import main
from benchmarks.steps import Steps, operations, rule_of
from experiments.terminal import mean_and_deviation


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


def test_the_table_of_rules_has_a_line_for_each_run_that_was_made_and_goes_on(tmp_path):
    page, task = tmp_path / "page.md", tmp_path / "task.yaml"
    page.write_text("before\n<!-- table: begin -->\nold\n<!-- table: end -->\nafter\n")
    data = "v: 4, n: 4, m: 2, s: 2, L: 2, train_size: [8, 16], seeds: [0, 1], test_size: 16, probe_size: 16, batch_size: 8"
    task.write_text(
        f"data: {{class_path: RHMDataModule, init_args: {{{data}}}}}\ntrainer: {{max_steps: 2, val_check_interval: 2}}\n"
    )
    rules_table.main(["frozen", "dfa"], task, tmp_path / "runs", page, ("--trainer.accelerator=cpu",))
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    replicas = json.loads((tmp_path / "runs/dfa/results.json").read_text())["replicas"]
    least = [replica["test_accuracy"] for replica in replicas if replica["train_size"] == 8]
    cells = text.splitlines()[5].strip("| ").split(" | ")
    assert cells[0] == "dfa" and cells[4] == mean_and_deviation(least) and "P = 16" in text.splitlines()[2]
    written = (tmp_path / "runs/dfa/results.json").stat().st_mtime_ns
    rules_table.main(["dfa"], task, tmp_path / "runs", page, ("--trainer.accelerator=cpu",))
    assert (tmp_path / "runs/dfa/results.json").stat().st_mtime_ns == written

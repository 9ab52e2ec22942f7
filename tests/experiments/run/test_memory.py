"""How much memory a run takes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from command_line import RUN, refused
from rule_helpers import RULES, every, from_settings, parsed

import rhm.memory
from experiments.run import limits
from experiments.run.hollow import hollow_batch
from experiments.run.memory import Live, bytes_of, check_run
from experiments.settings import build
from rhm import InvalidInput


def unprepared(name):
    return build(parsed(name).clone())


@pytest.mark.parametrize("name", every(6, RULES))
def test_the_memory_of_every_rule_is_found_without_building_it(name):
    rule = unprepared(name)
    weights, whole = bytes_of(rule, rule.data)
    assert not hasattr(rule, "network") and not rule._parameters
    rule.prepare(rule.data)
    assert weights == sum(p.nbytes for p in rule.parameters())
    assert whole > 3 * weights + sum(b.nbytes for b in rule.buffers())


def test_the_memory_of_a_wide_network_is_that_of_its_weights_their_moments_and_the_sums_of_its_probes():
    rule = from_settings("backprop", "--model.network.width=512", "--data.batch_size=1", "--data.eval_batch_size=1")
    weights, whole = bytes_of(rule, rule.data)
    square = 8 * rule.data.replicas * 512**2
    sums, solved = len(rule.network.layers) * square, 4 * square
    assert 0 < whole - 3 * weights - sums - solved < weights / 10


def test_what_is_drawn_to_begin_with_counts_beside_what_is_kept():
    """Initial codes are drawn as numbers of eight bytes, which are more than all that a step makes."""
    rule = unprepared("exchange_clustering")
    rule.network_config.codebooks = 20_000
    _, whole = bytes_of(rule, rule.data)
    with Live() as live:
        rule.prepare(rule.data)
    assert live.most > 1.4 * sum(b.nbytes for b in rule.buffers()) and whole == pytest.approx(live.most, rel=1e-3)


def test_live_bytes_are_those_of_tensors_that_are_not_yet_gone():
    live = Live()
    with live:
        a = torch.empty(100, device="meta")
        b = a + 1
        b += 1
        c = b[:50]
        assert live.now == 800
        del a
        assert live.now == 400
        del b
        assert live.now == 400  # a part of it is kept
        del c
        d = torch.empty(50, device="meta")
        assert live.now == d.nbytes == 200
        del d
    assert live.now == 0 and live.most == 800


@pytest.mark.parametrize("name", ["backprop", "sibling_contrastive", "class_contrastive", "gevb", "exchange_clustering"])
def test_the_bytes_of_a_step_without_content_are_those_of_a_step(name):
    found = []
    for device in "meta", "cpu":
        rule = unprepared(name)
        with torch.device(device), torch.no_grad(), Live() as live:
            rule.prepare(rule.data)
            batch = hollow_batch(rule.data, 16, training=True) if device == "meta" else rule.data.train_batch(0)
            rule.updates(rule.compute(batch))  # makes what is made once and kept, such as the tokens' codes
            rest = live.most = live.now
            rule.updates(rule.compute(batch))
        found.append(live.most - rest)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("settings", "key"),
    every(
        2,
        [
            ("--data.v=2048 --data.m=2", "data.v"),
            ("--data.L=20 --data.batch_size=2", "data.L"),
            ("--data.silent=20", "data.silent"),
            ("--data.silent=1 --data.L=10 --data.batch_size=2", "data.L"),
            ("--model.network.width=10000000", "model.network.width"),
            ("--data.batch_size=10000000", "data.batch_size"),
            ("--data.batch_size=1000000000000", "data.batch_size"),
            ("--data.batch_size=9000000000000000000", "data.batch_size"),
            ("--data.batch_size=200 --model.network.width=10000000", "model.network.width"),
            ("--data.eval_batch_size=1e9", "data.eval_batch_size"),
            (f"--data.seeds={[*range(300)]}", "data.seeds"),
            ("--model.network.bottleneck=1e5", "model.network.bottleneck"),
        ],
    ),
)
def test_what_does_not_fit_is_refused_by_the_setting_that_makes_it_large(settings, key, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(rhm.memory, "free_memory", lambda: 50e6)
    given = ["-c=configs/rules/sibling_contrastive.yaml", *RUN, *settings.replace(", ", ",").split()]
    line = refused(capsys, "check", *given, f"--run_dir={tmp_path / 'a'}")
    assert line.startswith(f"rhm: {key}: got ") and "GiB are free" in line, line


def test_what_fits_is_not_refused(monkeypatch):
    rule = unprepared("sibling_contrastive")
    _, whole = bytes_of(rule, rule.data)
    monkeypatch.setattr(rhm.memory, "free_memory", lambda: whole)
    check_run(rule, rule.data, on_gpu=False)
    monkeypatch.setattr(rhm.memory, "free_memory", lambda: whole - 1)
    with pytest.raises(InvalidInput):
        check_run(rule, rule.data, on_gpu=False)


def test_on_a_gpu_its_memory_counts_and_the_weights_must_fit_here(monkeypatch):
    rule = unprepared("backprop")
    weights, whole = bytes_of(rule, rule.data)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (whole, 2 * whole))
    monkeypatch.setattr(rhm.memory, "free_memory", lambda: weights)
    check_run(rule, rule.data, on_gpu=True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (whole - 1, 2 * whole))
    with pytest.raises(InvalidInput, match="on the GPU"):
        check_run(rule, rule.data, on_gpu=True)


@pytest.mark.parametrize(
    ("devices", "nodes", "world"), [("auto", 1, 1), (2, 1, 2), ([0, 1, 2], 2, 6), ("0,1", 1, 2), (-1, 1, 1)]
)
def test_ranks_that_share_a_batch_have_a_part_of_it_each(devices, nodes, world, monkeypatch):
    seen = []
    monkeypatch.setattr(limits.memory, "check_run", lambda *args: seen.append(args[2:]))
    trainer = SimpleNamespace(accelerator="cpu", devices=devices, num_nodes=nodes)
    limits.check_memory(None, None, trainer)
    assert seen == [(False, world)]

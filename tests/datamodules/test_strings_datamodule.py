"""Strings of one's own: the numbers that strings are made from here tell which string a batch holds."""

from __future__ import annotations

import copy
import inspect
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command_line import SMALL as SMALL_RUN
from command_line import refused, results, rhm, weights
from jsonargparse import Namespace
from oracles import assert_uniform
from rule_helpers import RULES, every, parsed, quiet_trainer

import datamodules.base
from callbacks import LayerwiseLinearProbe, PairStatistics, RepresentationGeometry, SynonymicSensitivity
from datamodules import (
    ClassPairs,
    HalfPairs,
    MaskedPairs,
    PositionHalfPairs,
    RandomHalfPairs,
    SelfPairs,
    SiblingPairs,
    StringsDataModule,
    SynonymPairs,
)
from experiments.run.load import load_run
from experiments.run.tables import probe_table
from experiments.settings import build, instantiate
from networks import DenseNetwork, HierarchicalNetwork
from rhm import InvalidInput
from rules.backprop import Backprop
from rules.contrastive import LayerwiseContrastive
from rules.frozen import FrozenFeatures

N, V, LENGTH = 90, 4, 8
SMALL = {"train_size": 50, "test_size": 20, "probe_size": 15, "batch_size": 10, "eval_batch_size": 8}


def digits(number: int) -> list[int]:
    """A string of eight tokens that tells its number."""
    return [number // V**place % V for place in range(4)] + [(number + place) % V for place in range(4)]


X = [digits(number) for number in range(N)]
Y = [number * 7 % 3 for number in range(N)]


def module(**changes):
    return StringsDataModule(**{"x": X, "y": Y, **SMALL, **changes})


def numbers(batch, r=0) -> list[int]:
    """Which strings a batch holds, after a look at their labels."""
    found = []
    for tokens, label in zip(batch.x_RBD[r].tolist(), batch.y_RB[r].tolist(), strict=True):
        number = sum(token * V**place for place, token in enumerate(tokens[:4]))
        assert tokens == X[number] and label == Y[number]
        found.append(number)
    return found


def shown(data, steps, r=0):
    return [number for step in steps for number in numbers(data.train_batch(step), r)]


def measured(data, start, end, r=0):
    steps = -(-(end - start) // data.eval_batch_size)
    return [number for step in range(steps) for number in numbers(data.eval_batch(step, start, end), r)]


# ---------------------------------------------------------------- which strings


def test_what_the_strings_are_is_found():
    data = module()
    task = data.task
    assert (task.v, task.n, task.s, task.L, task.length, task.strings) == (4, 3, 2, 3, 8, 90)
    assert task.levels == (0, 3) and data.grammar is None
    assert data.x_PD.tolist() == X and data.y_P.tolist() == Y


@pytest.mark.parametrize("train_size", [50, [50, 7, 70], None])
def test_no_string_is_trained_on_and_tested_with(train_size):
    data = module(train_size=train_size, seeds=[0, 1])
    for r, size in enumerate(data.replica_sizes):
        trained, tested = shown(data, range(14), r), measured(data, *data.test_range, r)
        assert size == (70 if train_size is None else size)
        assert len({*trained}) == size and len(tested) == len({*tested}) == 20
        assert not {*trained} & {*tested}
        probes = measured(data, *data.probe_range, r)
        assert len({*probes}) == 15 and not {*probes} & {*tested}
        assert len({*probes} & {*trained}) == max(0, size - 55)


def test_the_split_is_that_of_a_loop_over_string_numbers():
    """String by string, each replica by itself: a permutation of the rows, cut at the same places."""
    data = module(train_size=[50, 30], seeds=[3, 4])
    for r, size in enumerate(data.replica_sizes):
        rows = []
        for number in range(N):
            derivation = data.strings(torch.tensor([number]))
            tokens, label = derivation.x_RBD[r, 0].tolist(), int(derivation.y_RB[r, 0])
            rows.append(X.index(tokens))
            assert label == Y[rows[-1]]
        assert sorted(rows) == list(range(N))
        assert Counter(shown(data, range(size // 10), r)) == Counter(rows[:size])
        assert measured(data, *data.test_range, r) == rows[70:]
        assert measured(data, *data.probe_range, r) == rows[55:70]


def test_sizes_of_a_seed_have_one_split_and_seeds_have_their_own():
    data = module(train_size=[20, 40], seeds=[5, 6])
    assert data.replica_seeds == [5, 5, 6, 6] and data.replica_sizes == [20, 40, 20, 40]
    small, large, other = (set(shown(data, range(4), r)) for r in (0, 1, 3))
    assert small < large and large != other
    assert measured(data, *data.test_range, 0) == measured(data, *data.test_range, 1) != measured(data, *data.test_range, 2)


def test_each_string_is_tested_with_as_often_as_others():
    data = module(seeds=range(300))
    assert_uniform(data.row(torch.arange(70, 90)), N)
    assert_uniform(data.row(torch.arange(2)) // 9, 10)


@pytest.mark.parametrize("train_size", [50, [50, 30, 64]])
def test_an_epoch_shows_each_string_once_in_an_order_of_its_own(train_size):
    data = module(train_size=train_size, seeds=[0, 1])
    for r, size in enumerate(data.replica_sizes):
        all_shown = shown(data, range(-(-3 * size // 10)), r)
        epochs = [all_shown[e * size : (e + 1) * size] for e in range(3)]
        assert all(len({*epoch}) == size and {*epoch} == {*epochs[0]} for epoch in epochs)
        assert epochs[0] != epochs[1] != epochs[2]


def test_without_sizes_a_fifth_is_tested_with_and_the_others_are_trained_on():
    data = StringsDataModule(x=X, y=Y)
    assert data.test_range == (72, 90) and data.probe_range == (0, 72) and data.replica_sizes == [72]
    assert data.probes_trained_on == 72
    for size in 20, 2e1, "2e1", np.int64(20):
        assert module(train_size=None, test_size=size).replica_sizes == [70]


def test_chance_is_the_share_of_the_commonest_class():
    assert StringsDataModule(x=X, y=[0] * 60 + [1] * 30).chance == 60 / 90
    assert module().chance == max(Counter(Y).values()) / 90


def test_tokens_that_are_tested_and_trained_with_are_counted():
    y = [number % 2 for number in range(N)]
    x = [digits(number % 60) for number in range(N)]  # thirty strings are there twice
    data = StringsDataModule(x=x, y=y, **{**SMALL, "train_size": [40, 70]}, seeds=[0, 1, 2])
    twins = []
    for r, size in enumerate(data.replica_sizes):
        rows = [data.strings(torch.tensor([number])).x_RBD[r, 0].tolist() for number in range(N)]
        twins.append(sum(any(tested == trained for trained in rows[:size]) for tested in rows[70:]))
    assert data.trained_twins() == twins and max(twins) > min(twins) > 0
    line = next(line for line in data.warnings(10**6, False) if "token by token" in line)
    assert line.startswith(f"{max(twins)} of the 20 test strings are the same, token by token, as a training string")
    assert not any("token by token" in line for line in module().warnings(10**6, False))


# ---------------------------------------------------------------- batches

SCHEMES = {
    "none": lambda: None,
    "siblings": SiblingPairs,
    "class": ClassPairs,
    "halves": HalfPairs,
    "masked": MaskedPairs,
}


def assert_same(ours, theirs, r=0, q=0):
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if isinstance(a, torch.Tensor):
            assert torch.equal(a[r], b[q])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_replica_sees_what_it_would_see_alone(scheme, monkeypatch):
    monkeypatch.setattr(datamodules.base, "BLOCK_TOKENS", 600)
    together = module(train_size=[50, 30], label_size=[10, 20], seeds=[0, 1], pairs=SCHEMES[scheme]())
    assert together.replicas == 8
    described = zip(together.replica_seeds, together.replica_sizes, together.replica_label_sizes, strict=True)
    for r, (seed, size, labelled) in enumerate(described):
        alone = module(train_size=size, label_size=labelled, seeds=[seed], pairs=SCHEMES[scheme]())
        for step in (0, 1, 9, 40):
            assert_same(together.train_batch(step), alone.train_batch(step), r)
        assert_same(together.eval_batch(1, *together.test_range), alone.eval_batch(1, *alone.test_range), r)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_two_ranks_see_what_one_sees(scheme):
    data = module(seeds=[0, 1], pairs=SCHEMES[scheme]())
    for step in (0, 7):
        whole, parts = data.train_batch(step), [data.train_batch(step, rank, 2) for rank in range(2)]
        assert all(part.x_RBD.shape[1] == 5 for part in parts)
        for r in range(2):
            assert sum((numbers(part, r) for part in parts), []) == numbers(whole, r)
        if whole.view_RBD is not None:
            assert torch.equal(torch.cat([part.view_RBD for part in parts], 1), whole.view_RBD)
        if whole.half_RBD is not None:
            assert torch.equal(torch.cat([part.half_RBD for part in parts], 1), whole.half_RBD)
    shares = [numbers(data.eval_batch(0, *data.test_range, rank, 2)) for rank in range(2)]
    assert sorted(sum(shares, [])) == sorted(numbers(data.eval_batch(0, *data.test_range)))


def test_a_share_of_the_replicas_is_those_replicas():
    whole, part = module(seeds=[0, 1, 2, 3], pairs=ClassPairs()), module(seeds=[0, 1, 2, 3], pairs=ClassPairs())
    part.keep_share(1, 2)
    assert part.replica_seeds == [2, 3]
    for r in range(2):
        assert_same(whole.train_batch(3), part.train_batch(3), r + 2, r)


# ---------------------------------------------------------------- pairs


@pytest.mark.parametrize("train_size", [50, None, [50, 4]])
def test_a_class_partner_is_another_training_string_of_the_class(train_size):
    data = module(train_size=train_size, pairs=ClassPairs(), seeds=[0, 1])
    for r, size in enumerate(data.replica_sizes):
        trained = {data.strings(torch.tensor([i])).x_RBD[r, 0].tolist().__str__() for i in range(size)}
        label = {str(x): y for x, y in zip(X, Y, strict=True)}
        alone = {y for y, count in Counter(label[x] for x in trained).items() if count == 1}
        for step in range(8):
            batch = data.train_batch(step)
            for own, other in zip(batch.x_RBD[r].tolist(), batch.view_RBD[r].tolist(), strict=True):
                assert str(other) in trained and label[str(own)] == label[str(other)]
                assert (own == other) == (label[str(own)] in alone)


@pytest.mark.parametrize(
    "pairs", [SiblingPairs, SelfPairs, HalfPairs, RandomHalfPairs, PositionHalfPairs, MaskedPairs, ClassPairs]
)
def test_a_rule_learns_from_pairs(pairs):
    data = module(pairs=pairs(), seeds=[0, 1])
    rule = LayerwiseContrastive(HierarchicalNetwork(width=8, bottleneck=4)).prepare(data)
    before = copy.deepcopy(rule.state_dict())
    quiet_trainer(max_steps=3).fit(rule, data)
    assert not torch.equal(before["network.layers.0.weight_RGFE"], rule.state_dict()["network.layers.0.weight_RGFE"])
    assert all(value.isfinite().all() for value in rule.state_dict().values())


def test_what_needs_a_grammar_is_refused_by_name():
    with pytest.raises(InvalidInput, match="data.pairs: got SynonymPairs, allowed: SiblingPairs, ClassPairs"):
        module(pairs=SynonymPairs(1))
    rule = LayerwiseContrastive(HierarchicalNetwork(width=8)).prepare(module(pairs=SiblingPairs()))
    with pytest.raises(InvalidInput, match="SynonymicSensitivity with StringsDataModule, allowed: .*no grammar"):
        SynonymicSensitivity().check(rule)

    class Told(FrozenFeatures):
        knowledge = "grammar"

    with pytest.raises(InvalidInput, match="data: got StringsDataModule, allowed: RHMDataModule for Told"):
        Told(HierarchicalNetwork(width=8)).prepare(module())


# ---------------------------------------------------------------- rules


def on_own_strings(name: str, path: Path):
    """A rule with its settings file and 12 units a layer, on strings of a file."""
    settings = parsed(name).clone()
    own = {"path": str(path), "seeds": [0, 1], "pairs": settings.data.init_args.pairs, **SMALL, "batch_size": 16}
    settings.data = Namespace(class_path="datamodules.StringsDataModule", init_args=Namespace(**own))
    rule = build(settings)
    return rule.prepare(rule.data)


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("own") / "own.npz"
    np.savez(path, x=np.array(X), y=np.array(Y))
    return path


@pytest.mark.parametrize("name", every(6, RULES))
def test_every_rule_takes_ten_steps_with_its_settings(name, file):
    rule = on_own_strings(name, file)
    before = copy.deepcopy(rule.state_dict())
    trainer = quiet_trainer(max_steps=10)
    trainer.fit(rule, rule.data)
    after = rule.state_dict()
    assert trainer.global_step == 10 and not rule.diverged_R.any()
    assert any(not torch.equal(before[key], after[key]) for key in after)
    trainer.test(rule, rule.data, verbose=False)
    assert rule.test_accuracy_R.shape == (2,) and rule.test_accuracy_R.isfinite().all()


def test_replicas_train_together_as_alone(file):
    def trained(**changes):
        rule = Backprop(HierarchicalNetwork(width=8))
        data = module(**changes)
        quiet_trainer(max_steps=5, precision="64-true").fit(rule, data)
        return rule.state_dict()

    together = trained(train_size=[50, 30], seeds=[0, 1])
    for r, (seed, size) in enumerate([(0, 50), (0, 30), (1, 50), (1, 30)]):
        alone = trained(train_size=size, seeds=[seed])
        for key, value in alone.items():
            assert torch.allclose(together[key][r : r + 1], value, rtol=0, atol=1e-12), key


def test_a_run_that_is_stopped_goes_on_bit_for_bit(tmp_path):
    def trained(steps, last=None):
        rule, data = LayerwiseContrastive(HierarchicalNetwork(width=8)), module(pairs=ClassPairs(), seeds=[0, 1])
        trainer = quiet_trainer(max_steps=steps)
        trainer.fit(rule, data, ckpt_path=last)
        trainer.save_checkpoint(tmp_path / f"{steps}.ckpt")
        return rule.state_dict()

    whole = trained(9)
    trained(4)
    again = trained(9, tmp_path / "4.ckpt")
    assert all(torch.equal(whole[key], again[key]) for key in whole)


def test_a_checkpoint_gives_a_rule_and_its_strings_back_while_the_file_is_the_same(tmp_path):
    path = tmp_path / "own.pt"
    torch.save({"x": torch.tensor(X), "y": torch.tensor(Y)}, path)
    rule, data = Backprop(HierarchicalNetwork(width=8)), module(x=None, y=None, path=str(path), train_size=[20, 30])
    trainer = quiet_trainer(max_steps=2)
    trainer.fit(rule, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = Backprop.load_from_checkpoint(tmp_path / "a.ckpt")
    assert isinstance(again.data, StringsDataModule) and again.data.replica_sizes == [20, 30]
    assert_same(data.train_batch(3), again.data.train_batch(3))
    x_RBD = data.train_batch(0).x_RBD
    assert torch.equal(rule(x_RBD)[-1].out_RBDC, again(x_RBD)[-1].out_RBDC)
    torch.save({"x": torch.tensor(X).flip(1), "y": torch.tensor(Y)}, path)
    with pytest.raises(InvalidInput, match="data.path: got .*own.pt with other strings or labels"):
        Backprop.load_from_checkpoint(tmp_path / "a.ckpt")


def test_a_checkpoint_of_strings_that_are_in_no_file_asks_for_them(tmp_path):
    rule, data = Backprop(HierarchicalNetwork(width=8)), module()
    trainer = quiet_trainer(max_steps=1)
    trainer.fit(rule, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(InvalidInput, match="does not say all"):
        Backprop.load_from_checkpoint(tmp_path / "a.ckpt")
    assert Backprop.load_from_checkpoint(tmp_path / "a.ckpt", datamodule=module()).data.task == data.task


# ---------------------------------------------------------------- probes and diagnostics


def test_probes_read_tokens_and_the_class_and_nothing_else():
    """Each of 256 strings once; the class is the first token, or 0: a layer that sees the whole string can tell it."""
    x = [[number // V**place % V for place in range(4)] for number in range(256)]
    y = [max(0, tokens[0] - 1) for tokens in x]
    data = StringsDataModule(x=x, y=y, seeds=[0, 1], train_size=128, test_size=64, probe_size=150)
    rule, probe = FrozenFeatures(DenseNetwork(width=64)), LayerwiseLinearProbe()
    trainer = quiet_trainer(max_steps=1, callbacks=[probe])
    trainer.fit(rule, data)
    trainer.test(rule, data, verbose=False)
    for table in probe.accuracy_KLR, probe.logistic_KLR:
        assert table.shape == (2, 3, 2) and table[:, 1].isnan().all()
        assert (table[0, [0, 2]] > 0.95).all()
    for r in range(2):
        fitted, tested = (
            [data.strings(torch.tensor([i])) for i in range(*range_)] for range_ in (data.probe_range, data.test_range)
        )
        for level in 0, 1:
            place = 0 if level else slice(None)
            ours, theirs = (
                [derivation.symbols[level][r, 0].tolist()[place] for derivation in part] for part in (fitted, tested)
            )
            if level:  # the class
                commonest = max(range(V), key=ours.count)
                share = sum(label == commonest for label in theirs) / len(theirs)
            else:  # a token at each place
                best = [max(range(V), key=[tokens[d] for tokens in ours].count) for d in range(4)]
                share = sum(tokens[d] == best[d] for tokens in theirs for d in range(4)) / (4 * len(theirs))
            assert math.isclose(float(probe.baseline_KLR[0, 2 * level, r]), share, abs_tol=1e-6)
    table = probe_table(probe.accuracy_KLR, probe.baseline_KLR, data.task, "ridge")
    assert [column.header for column in table.columns] == ["layer", "level 0\ntokens", "level 2\nclass"]
    assert not probe.accuracy_KLR[:, list(data.task.levels)].isnan().any()


def test_diagnostics_that_need_no_grammar_measure():
    data = module(pairs=SiblingPairs(), seeds=[0, 1], batch_size=16)
    looks = [RepresentationGeometry(strings=10), PairStatistics()]
    rule = LayerwiseContrastive(HierarchicalNetwork(width=8, bottleneck=4))
    quiet_trainer(max_steps=2, callbacks=looks, limit_val_batches=1.0, val_check_interval=1).fit(rule, data)
    assert looks[0].values["participation_ratio/layer1"].isfinite().all()
    assert looks[1].values["share_false/layer1"].isnan().all()  # parents of siblings are not known
    assert looks[1].values["share_false/layer2"].isfinite().all()  # but the class is, which those of the top layer have


# ---------------------------------------------------------------- the command line


def own(rule: str, file: Path, *args: str) -> list[str]:
    sizes = [f"--data.{key}={value}" for key, value in SMALL.items()]
    more = ["--model.network.width=8", "--trainer.accelerator=cpu", "--trainer.max_steps=4", "--checkpoint_every=2"]
    typed = ["--data=StringsDataModule", f"--data.path={file}", *sizes]
    return ["-c", f"rules/{rule}", *typed, *more, "--trainer.val_check_interval=2", *args]


def test_a_run_of_the_command_line_from_its_start_to_its_curve(file, tmp_path, capsys):
    run, args = f"--run_dir={tmp_path / 'a'}", own("clapp", file, "--data.train_size=[20,40]", "--data.seeds=[1,2]")
    rhm("check", *args, run)
    assert not list(tmp_path.iterdir())
    rhm("fit", *args, run)
    found = results(tmp_path / "a")
    task = {"v": 4, "n": 3, "s": 2, "L": 3, "strings": 90}
    assert found["task"].items() > task.items() and found["status"] == "finished"
    assert [(r["seed"], r["train_size"]) for r in found["replicas"]] == [(1, 20), (1, 40), (2, 20), (2, 40)]
    assert all(list(r["probe"]["layer1"]) == ["level0", "level3"] for r in found["replicas"])
    assert found["replicas"][0]["chance"] == pytest.approx(1 / 3)
    capsys.readouterr()
    rhm("test", run)
    assert "level 3" in (out := capsys.readouterr().out) and "level 1" not in out
    rhm("curves", f"--run_dirs=[{tmp_path / 'a'}]", f"--out={tmp_path / 'a.png'}")
    assert (tmp_path / "a.png").exists()
    rule = load_run(str(tmp_path / "a"))
    batch = rule.data.eval_batch(0, *rule.data.test_range)
    assert rule.network(batch.x_RBD)[-1].out_RBDC.shape[:2] == (4, 8)


def test_each_kind_of_data_has_its_own_defaults_whatever_was_run_before_in_the_process(file, tmp_path):
    args, grammar = (
        [f"--data.path={file}", "--model.network.width=8", "--trainer.max_steps=1"],
        [*SMALL_RUN, "--trainer.max_steps=1"],
    )
    for name, given in ("a", ["--data=RHMDataModule", *grammar]), ("b", ["--data=StringsDataModule", *args]), ("c", grammar):
        rhm("fit", "--model=Backprop", *given, "--tables=false", f"--run_dir={tmp_path / name}")
    kinds = [yaml.safe_load((tmp_path / name / "config.yaml").read_text())["data"] for name in "abc"]
    assert kinds[1]["init_args"].keys() == {*inspect.signature(StringsDataModule).parameters}
    assert kinds[1]["init_args"]["test_size"] is None and kinds[0] == kinds[2]


def test_a_run_of_the_command_line_goes_on_bit_for_bit(file, tmp_path):
    args = own("backprop", file, "--tables=false")
    rhm("fit", *args, "--trainer.max_steps=8", f"--run_dir={tmp_path / 'a'}")
    for steps in 4, 8:
        rhm("fit", *args, f"--trainer.max_steps={steps}", f"--run_dir={tmp_path / 'b'}")
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_is_not_measured_with_strings_that_it_was_trained_on_nor_goes_on_with_others(tmp_path, capsys):
    path, run = tmp_path / "own.npz", f"--run_dir={tmp_path / 'a'}"
    np.savez(path, x=np.array(X), y=np.array(Y))
    args = own("backprop", path, "--data.train_size=null", "--tables=false", run)
    rhm("fit", *args)
    capsys.readouterr()
    for size in 10, 30:
        line = refused(capsys, "test", run, f"--data.test_size={size}")
        assert line == f"rhm: data.test_size: got {size}, allowed: 20, as in the run, which was trained on all the others"
    np.savez(path, x=np.array(X)[::-1], y=np.array(Y))
    before = (tmp_path / "a/results.json").read_bytes()
    for command in ["test", run], ["fit", *args, "--trainer.max_steps=6"]:
        assert "fingerprint" in refused_at_last(capsys, *command)
    assert (tmp_path / "a/results.json").read_bytes() == before


def refused_at_last(capsys, *args) -> str:
    """The line that a call is refused with, after others that tell how it went."""
    with pytest.raises(SystemExit) as stop:
        rhm(*args)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_settings_that_say_nothing_are_those_of_the_datamodule_that_is_named(tmp_path, file):
    """Wherever it is named: on the command line, before or behind a file, in a file, in a dictionary."""
    named = tmp_path / "own.yaml"
    named.write_text(f"data: {{class_path: StringsDataModule, init_args: {{path: {file}}}}}", encoding="utf-8")
    typed = ["--data=StringsDataModule", f"--data.path={file}"]
    whole = {"class_path": "datamodules.StringsDataModule", "init_args": {"path": str(file)}}
    for args in (
        ["--config=rules/clapp", *typed],
        [*typed, "--config", "rules/clapp"],
        [f"--config={named}", "--config=rules/clapp"],
        ["--config=rules/clapp", f"--config={named}"],
        ["--config=rules/clapp", f"--data={json.dumps(whole)}"],
    ):
        data = instantiate(args).data
        assert isinstance(data, StringsDataModule) and isinstance(data.pairs, SiblingPairs), args
        assert data.replica_sizes == [72] and data.test_range == (72, 90), args
    assert instantiate(["--config=rules/clapp"]).data.replica_sizes == [2048]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ([], "data.path: got nothing, allowed: a file, or x and y in Python in its place"),
        (["--data.path=FILE", "--data.x=[[1]]"], "data.path: got path and x, allowed: a file, or x and y"),
        (["--data.path=none.npz"], "data.path: got none.npz, allowed: a file that exists"),
        (
            ["--data.path=FILE", "--data.s=3"],
            "data.s: got 3, allowed: a number whose power is the length of the strings, 8: 2 or 8",
        ),
        (["--data.path=FILE", "--data.s=1"], "data.s: got 1, allowed: an integer of at least 2"),
        (["--data.path=FILE", "--data.train_size=90"], "data.train_size: got 90 with test_size 18, allowed: train_size"),
        (["--data.path=FILE", "--data.test_size=90"], "data.train_size: got 1 with test_size 90, allowed: train_size"),
        (["--data.path=FILE", "--data.test_size=0"], "data.test_size: got 0, allowed: an integer from 1"),
        (["--data.path=FILE", "--data.L=3"], "data.L: unknown key, allowed: keys that `rhm fit --data.help` lists"),
        (["--data.path=FILE", "--data.pairs=SynonymPairs", "--data.pairs.level=1"], "data.pairs: got SynonymPairs, allowed"),
        (["--data.path=FILE", "--trainer.callbacks+=SynonymicSensitivity"], "trainer.callbacks: got SynonymicSensitivity with"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_written(args, line, file, tmp_path, capsys):
    given = [arg.replace("FILE", str(file)) for arg in args]
    said = refused(capsys, "fit", "-c", "rules/dfa", "--data=StringsDataModule", *given, f"--run_dir={tmp_path / 'a'}")
    assert said.startswith(f"rhm: {line}"), said
    assert not list(tmp_path.iterdir())


def test_help_is_about_the_datamodule_that_is_named(capsys):
    for args, key in (["--data=StringsDataModule"], "--data.path"), ([], "--data.m"):
        with pytest.raises(SystemExit) as stop:
            rhm("fit", *args, "--data.help")
        assert stop.value.code == 0 and key in capsys.readouterr().out

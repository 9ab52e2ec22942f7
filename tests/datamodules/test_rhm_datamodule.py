import json
import math
from collections import Counter

import pytest
import torch
import yaml
from command_line import RUN, refused, results, rhm
from oracles import assert_uniform, derivations, levels_of, rules_of, strings
from pytorch_lightning.demos.boring_classes import BoringModel
from rule_helpers import every, quiet_trainer

import datamodules.base
from callbacks import RepresentationGeometry, SynonymicSensitivity
from datamodules import ClassPairs, MaskedPairs, RHMDataModule, SiblingPairs, SynonymPairs
from datamodules.base import SizedSteps, Steps
from networks import HierarchicalNetwork
from rhm import InvalidInput, RandomHierarchyModel, SparseTask, Task
from rules.backprop import Backprop

SMALL = {"v": 4, "n": 3, "m": 2, "s": 2, "L": 3, "test_size": 60, "probe_size": 40, "eval_batch_size": 16}
"""384 strings, of which 284 are left to train on."""

SCHEMES = {
    "none": lambda: None,
    "siblings": SiblingPairs,
    "class": ClassPairs,
    "synonyms": lambda: SynonymPairs(2),
    "class, endless": ClassPairs,
    "none, endless": lambda: None,
    "none, zipf": lambda: None,
    "class, zipf": ClassPairs,
    "synonyms, zipf": lambda: SynonymPairs(2),
    "class, zipf, endless": ClassPairs,
    "class, noise": ClassPairs,
    "synonyms, noise": lambda: SynonymPairs(2),
    "class, noise, endless": ClassPairs,
    "synonyms, silent": lambda: SynonymPairs(2),
    "class, silent, endless": ClassPairs,
    "class, zipf, noise, silent": ClassPairs,
    "masked": MaskedPairs,
    "masked, noise": MaskedPairs,
}
ZIPF = {"zipf": 0.2}
"""At all levels: two of the 384 strings are the same with probability .007."""


def module(**changes):
    return RHMDataModule(**{**SMALL, "train_size": 50, "batch_size": 8, **changes})


def with_scheme(name, **changes):
    own = ({"train_size": None} if "endless" in name else {}) | (ZIPF if "zipf" in name else {})
    own |= {"noise": 0.3} if "noise" in name else {}
    own |= {"silent": 1} if "silent" in name else {}
    return module(pairs=SCHEMES[name](), **{**own, **changes})


def seen(data, steps, r=0):
    """Tokens of the training strings of some steps, in order."""
    return [string for step in steps for string in strings(data.train_batch(step).x_RBD[r])]


def evaluated(data, start, end, r=0):
    """Tokens of all strings in a range of evaluation."""
    steps = -(-(end - start) // data.eval_batch_size)
    return [string for step in range(steps) for string in strings(data.eval_batch(step, start, end).x_RBD[r])]


def assert_same(a, b):
    assert torch.equal(a.x_RBD, b.x_RBD) and torch.equal(a.y_RB, b.y_RB) and a.derivation.equals(b.derivation)
    assert (a.view_RBD is None) == (b.view_RBD is None)
    assert a.view_RBD is None or torch.equal(a.view_RBD, b.view_RBD)
    assert (a.half_RBD is None) == (b.half_RBD is None)
    assert a.half_RBD is None or torch.equal(a.half_RBD, b.half_RBD)


# ---------------------------------------------------------------- which strings


@pytest.mark.parametrize("train_size", [50, 284, [50, 7, 284], None])
def test_training_probe_and_test_strings_do_not_overlap(train_size):
    data = module(train_size=train_size, seeds=[0, 1])
    for r in range(data.replicas):
        train = set(seen(data, range(40), r))
        probe, test = evaluated(data, *data.probe_range, r), evaluated(data, *data.test_range, r)
        assert len(probe) == len(set(probe)) == 40
        assert len(test) == len(set(test)) == 60
        assert not train & set(test) and not train & set(probe) and not set(probe) & set(test)
        size = data.replica_sizes[r]
        assert len(train) == (284 if size is None else size)


def test_all_strings_are_trained_on_or_tested_when_sizes_add_up():
    data = module(train_size=324, test_size=60)
    train, test = set(seen(data, range(41))), set(evaluated(data, *data.test_range))
    assert len(train) == 324 and not train & test
    assert len(train | test) == 384 == data.task.P_max


def test_probe_strings_may_be_training_strings_where_there_are_too_few():
    data = module(train_size=300, test_size=60, probe_size=1000)
    train, probe, test = set(seen(data, range(40))), evaluated(data, *data.probe_range), set(evaluated(data, *data.test_range))
    assert len(probe) == len(set(probe)) == 324
    assert train <= set(probe) and not test & set(probe)


def test_batches_hold_what_the_grammar_says():
    data = module(train_size=[30, 40], seeds=[3, 4])
    for batch in (data.train_batch(2), data.eval_batch(1, *data.test_range)):
        assert data.grammar.parse(batch.x_RBD).equals(batch.derivation)
        assert torch.equal(batch.y_RB, batch.derivation.y_RB) and torch.equal(batch.x_RBD, batch.derivation.x_RBD)
        assert batch.view_RBD is None
    assert data.train_batch(2).x_RBD.shape == (4, 8, 8)


def test_evaluation_ends_with_a_shorter_batch():
    data = module()
    assert [data.eval_batch(step, *data.test_range).x_RBD.shape[1] for step in range(4)] == [16, 16, 16, 12]


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_share_every_batch_of_an_evaluation(world):
    data = RHMDataModule(4, 4, 2, 2, 3, train_size=64, test_size=60, probe_size=64, eval_batch_size=16)
    for step in range(len(data.val_dataloader()[1])):
        whole = data.eval_batch(step, *data.test_range)
        parts = [data.eval_batch(step, *data.test_range, rank, world) for rank in range(world)]
        assert sorted(s for part in parts for s in strings(part.x_RBD[0])) == sorted(strings(whole.x_RBD[0]))


@pytest.mark.parametrize("own", [{}, {"zipf": 0.2}, {"silent": 1}])
def test_a_rank_may_have_no_string_of_a_batch(own):
    data = RHMDataModule(4, 4, 2, 2, 3, train_size=64, test_size=60, probe_size=64, eval_batch_size=16, **own)
    assert data.eval_batch(0, 0, 1, rank=1, world=2).x_RBD.shape[1] == 0


def test_evaluation_steps_can_be_counted_and_run_again():
    steps = SizedSteps(4)
    assert len(steps) == 4 and list(steps) == list(steps) == [0, 1, 2, 3]


def test_training_steps_do_not_end():
    assert [step for step, _ in zip(Steps(), range(5), strict=False)] == [0, 1, 2, 3, 4]


def test_sizes_are_crossed_with_seeds():
    data = module(train_size=[10, 20], seeds=[5, 6, 7])
    assert data.replicas == 6
    assert data.replica_seeds == [5, 5, 6, 6, 7, 7]
    assert data.replica_sizes == [10, 20] * 3
    assert len(set(seen(data, range(3), 0))) == 10
    assert set(seen(data, range(8), 0)) < set(seen(data, range(8), 1))  # the first strings are the same


# ---------------------------------------------------------------- epochs


@pytest.mark.parametrize("batch_size", [8, 7, 64, 1])
@pytest.mark.parametrize("train_size", [50, 64, [50, 7, 64], [16, 128], 1])
def test_an_epoch_shows_each_string_once(train_size, batch_size):
    data = module(train_size=train_size, batch_size=batch_size, seeds=[0, 1])
    for r, size in enumerate(data.replica_sizes):
        epochs = 3
        shown = seen(data, range(-(-epochs * size // batch_size)), r)
        sets = [Counter(shown[e * size : (e + 1) * size]) for e in range(epochs)]
        assert len(sets[0]) == size and set(sets[0].values()) == {1}
        assert all(one == sets[0] for one in sets)


@pytest.mark.parametrize("train_size", [50, 64, [50, 64]])
def test_epochs_and_seeds_have_different_orders(train_size):
    data = module(train_size=train_size, batch_size=1, seeds=[0, 1])
    position = torch.arange(50 * 64 * 2)
    index_RB = data.train_index(position)
    for r, size in enumerate(data.replica_sizes):
        epochs = index_RB[r, : 50 * size].view(50, size)
        assert len({tuple(epoch) for epoch in epochs.tolist()}) == 50
        # two random orders agree in one place on average: over 49 pairs a Poisson number of mean 49
        assert (epochs[1:] == epochs[:-1]).sum() < 100
        assert (epochs == torch.arange(size)).sum() < 100
    assert (index_RB[0] == index_RB[-1]).float().mean() < 0.1


def test_positions_of_a_string_are_uniform_over_epochs():
    size = 24
    index = module(train_size=size).train_index(torch.arange(size * 4000))[0].view(4000, size)
    for place in (0, 1, 11, 23):
        assert_uniform(index[:, place], size)
    assert_uniform(index[::2, 0] // 4 * 6 + index[1::2, 0] // 4, 36)


@pytest.mark.parametrize("probe_size", [40, 10_000])
def test_an_endless_stream_repeats_nothing_before_all_is_shown(probe_size):
    data = module(train_size=None, probe_size=probe_size)
    fresh = 284 if probe_size == 40 else 324
    shown = seen(data, range(fresh // 8))
    assert len(set(shown)) == len(shown)
    assert not set(seen(data, range(60))) & set(evaluated(data, *data.test_range))
    assert len(set(seen(data, range(60)))) == fresh


def test_an_endless_stream_of_a_large_task_is_fresh():
    data = RHMDataModule(16, 16, 8, 2, 3, train_size=None, batch_size=500, test_size=2000, probe_size=1000, seeds=[0, 1])
    for r in range(2):
        shown = seen(data, range(40), r)
        assert len(set(shown)) == 20_000
        assert not set(shown) & set(evaluated(data, *data.test_range, r) + evaluated(data, *data.probe_range, r))


# ---------------------------------------------------------------- a batch is a pure function of the step


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_batch_does_not_depend_on_what_was_asked_before(scheme):
    data = with_scheme(scheme)
    expected = {step: with_scheme(scheme).train_batch(step) for step in (0, 3, 100, 5000)}
    for step in (100, 3, 5000, 0, 0, 100, 3):
        assert_same(data.train_batch(step), expected[step])


@pytest.mark.parametrize("scheme", every(3, SCHEMES))
def test_a_batch_does_not_depend_on_the_block(scheme, monkeypatch):
    expected = [with_scheme(scheme).train_batch(step) for step in range(9)]
    for tokens in (1, 3 * 8 * 8):
        monkeypatch.setattr(datamodules.base, "BLOCK_TOKENS", tokens)
        data = with_scheme(scheme)
        for step in range(9):
            assert_same(data.train_batch(step), expected[step])


@pytest.mark.parametrize("train_size", [50, 64, [50, 64], [16, 17, 128]])
@pytest.mark.parametrize("scheme", [name for name in SCHEMES if "endless" not in name])
def test_a_replica_sees_what_it_would_see_alone(scheme, train_size, monkeypatch):
    monkeypatch.setattr(datamodules.base, "BLOCK_TOKENS", 6 * 8 * 8)
    together = with_scheme(scheme, train_size=train_size, seeds=[0, 1])
    for r, (seed, size) in enumerate(zip(together.replica_seeds, together.replica_sizes, strict=True)):
        alone = with_scheme(scheme, train_size=size, seeds=[seed])
        for step in (0, 1, 9, 40):
            ours, theirs = together.train_batch(step), alone.train_batch(step)
            assert torch.equal(ours.x_RBD[r], theirs.x_RBD[0]) and torch.equal(ours.y_RB[r], theirs.y_RB[0])
            if ours.view_RBD is not None:
                assert torch.equal(ours.view_RBD[r], theirs.view_RBD[0])
            if ours.half_RBD is not None:
                assert torch.equal(ours.half_RBD[r], theirs.half_RBD[0])


@pytest.mark.parametrize("scheme", ["none, endless", "class, endless"])
def test_a_replica_of_an_endless_stream_sees_what_it_would_see_alone(scheme, monkeypatch):
    monkeypatch.setattr(datamodules.base, "BLOCK_TOKENS", 6 * 8 * 8)
    together = with_scheme(scheme, seeds=[0, 1, 2])
    for r in range(3):
        alone = with_scheme(scheme, seeds=[r])
        for step in (0, 1, 9):
            ours, theirs = together.train_batch(step), alone.train_batch(step)
            assert torch.equal(ours.x_RBD[r], theirs.x_RBD[0])
            if ours.view_RBD is not None:
                assert torch.equal(ours.view_RBD[r], theirs.view_RBD[0])


@pytest.mark.parametrize("world", [2, 4])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_ranks_share_a_batch(scheme, world):
    data = with_scheme(scheme, seeds=[0, 1])
    for step in (0, 7):
        whole, parts = data.train_batch(step), [data.train_batch(step, rank, world) for rank in range(world)]
        assert all(part.x_RBD.shape[1] == 8 // world for part in parts)
        assert torch.equal(torch.cat([part.x_RBD for part in parts], 1), whole.x_RBD)
        assert torch.equal(torch.cat([part.y_RB for part in parts], 1), whole.y_RB)
        for level, symbols in enumerate(whole.derivation.symbols):
            assert torch.equal(torch.cat([part.derivation.symbols[level] for part in parts], 1), symbols)
        if whole.view_RBD is not None:
            assert torch.equal(torch.cat([part.view_RBD for part in parts], 1), whole.view_RBD)
        if whole.half_RBD is not None:
            assert torch.equal(torch.cat([part.half_RBD for part in parts], 1), whole.half_RBD)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"batch_size": 0}, "data.batch_size"),
        ({"test_size": 0}, "data.test_size"),
        ({"probe_size": 0}, "data.probe_size"),
        ({"eval_batch_size": -1}, "data.eval_batch_size"),
        ({"train_size": 0}, "data.train_size"),
        ({"train_size": []}, "data.train_size"),
        ({"train_size": [4, 0]}, "data.train_size"),
        ({"train_size": [4, 4]}, "data.train_size"),
        ({"train_size": [None, 10]}, "data.train_size"),
        ({"train_size": 325}, "data.train_size"),
        ({"train_size": [4, 325]}, "data.train_size"),
        ({"train_size": None, "test_size": 384}, "data.train_size"),
        ({"seeds": [1, 1]}, "data.seeds"),
        ({"seeds": []}, "data.seeds"),
        ({"seeds": [-1]}, "data.seeds"),
        ({"m": 5}, "data.m"),
        ({"n": 9}, "data.n"),
        ({"L": 1, "n": 8, "train_size": 4, "test_size": 4, "pairs": SiblingPairs()}, "data.pairs"),
        ({"pairs": SynonymPairs(0)}, "data.pairs.level"),
        ({"pairs": SynonymPairs(4)}, "data.pairs.level"),
        ({"pairs": "SiblingPairs"}, "data.pairs"),
        ({"pairs": SiblingPairs}, "data.pairs"),
    ],
)
def test_bad_arguments_are_refused_by_name(changes, key):
    with pytest.raises(InvalidInput) as caught:
        module(**changes)
    assert caught.value.key == key
    assert "\n" not in str(caught.value)


class ByHand(BoringModel):
    """A module of somebody's own that steps its optimizers by itself: so many times at each batch, or at some.

    Args:
        optimizers: how many.
        times: that each steps at a batch.
        every: batches.
    """

    def __init__(self, optimizers=1, times=1, every=1):
        super().__init__()
        self.automatic_optimization = False
        self.count, self.times, self.every, self.seen = optimizers, times, every, []

    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(self.count)]

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        for optimizer in [self.optimizers()] if self.count == 1 else self.optimizers():
            for _ in range(self.times if batch_idx % self.every == 0 else 0):
                optimizer.step()


class Automatic(BoringModel):
    def __init__(self):
        super().__init__()
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch)
        return self.step(torch.ones(1, 32))


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (Automatic, {}),
        (Automatic, {"accumulate_grad_batches": 2}),
        (ByHand, {}),
        (lambda: ByHand(optimizers=2), {}),
        (lambda: ByHand(times=2), {}),
        (lambda: ByHand(every=3), {}),
        (lambda: ByHand(times=0), {}),
    ],
    ids=["automatic", "accumulated", "manual", "two optimizers", "two steps", "a step at every third", "none"],
)
def test_a_module_of_ones_own_is_shown_each_batch_once(model, settings, tmp_path):
    def shown(model, epochs, path=None):
        trainer = quiet_trainer(max_epochs=epochs, limit_train_batches=2, limit_val_batches=0, max_steps=-1, **settings)
        trainer.fit(model, module(), ckpt_path=path)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return model.seen

    first = shown(model(), 2)
    seen = first + shown(model(), 3, tmp_path / "last.ckpt")
    assert len(first) == 4 and len(seen) == 6
    for step, batch in enumerate(seen):
        assert_same(batch, module().train_batch(step))


def test_a_list_of_one_size_is_that_size():
    for step in (0, 9):
        assert_same(module(train_size=[50]).train_batch(step), module(train_size=50).train_batch(step))


@pytest.mark.parametrize(
    ("changes", "steps", "compares", "lines"),
    [
        ({}, 7, True, []),
        ({"train_size": 8}, 7, True, []),
        ({"train_size": 7}, 7, False, []),
        ({"train_size": 7}, 7, True, ["data.batch_size=8 is more than the 7 training strings"]),
        ({"train_size": [50, 3, 7]}, 9, True, ["data.batch_size=8 is more than the 3 or 7 training strings"]),
        ({"train_size": None, "batch_size": 300}, 9, True, ["data.batch_size=300 is more than the 284 training strings"]),
        ({"train_size": None}, 1, True, []),
        (
            {"train_size": [50, 49, 48]},
            6,
            True,
            ["trainer.max_steps=6 show 48 strings, fewer than the 49 or 50 of data.train_size"],
        ),
        ({"train_size": 324}, 99, True, ["40 of the 40 strings that probes are fitted on are training strings too"]),
    ],
)
def test_what_is_not_as_the_sizes_say_is_told(changes, steps, compares, lines):
    told = module(**changes).warnings(steps, compares)
    assert len(told) == len(lines) and all(line.startswith(start) for line, start in zip(told, lines, strict=True)), told


# ---------------------------------------------------------------- rules of unequal frequency


@pytest.mark.parametrize("train_size", [50, [50, 7, 3000], 3000, None])
@pytest.mark.parametrize("zipf", [{"zipf": 0.2}, {"zipf": 1.0, "zipf_level": 1}, {"zipf": 3.0, "zipf_level": 3}])
def test_what_is_drawn_to_train_on_is_not_probed_nor_tested_with(zipf, train_size):
    large = {"batch_size": 250, "eval_batch_size": 1000}
    data = module(train_size=train_size, test_size=2000, probe_size=1000, seeds=[0, 1], **large, **zipf)
    assert data.stream_length > 2**60 and data.probes_trained_on == 0
    for r in range(data.replicas):
        train = set(seen(data, range(12), r))
        probe, test = evaluated(data, *data.probe_range, r), evaluated(data, *data.test_range, r)
        assert len(probe) == 1000 and len(test) == 2000
        assert not train & set(test) and not train & set(probe) and not set(probe) & set(test)
    assert module(test_size=60, **zipf).strings(torch.arange(9)).equals(module(test_size=40, **zipf).strings(torch.arange(9)))


def test_sizes_are_nested_and_their_draws_repeat_strings_by_their_frequency():
    data = module(train_size=[20, 50], **ZIPF)
    drawn = [Counter(seen(data, range(25), r)) for r in range(2)]  # ten epochs of 20 draws, four of 50
    assert set(drawn[0]) < set(drawn[1])
    assert {count // 10 for count in drawn[0].values()} >= {1, 2} and all(count % 10 == 0 for count in drawn[0].values())
    assert data.different(20) == [len(drawn[0])] and data.different(50) == [len(drawn[1])]
    assert data.warnings(100, False) == [
        f"of 50 training strings {len(drawn[1])} are different (the fewest of a replica): rules have unequal frequencies, "
        "and what is frequent is drawn again"
    ]


def test_rules_have_the_frequencies_of_zipf_at_the_level_that_is_named():
    assert module(**ZIPF).grammar.frequencies.keys() == {1, 2, 3} and not module().grammar.frequencies
    one = module(zipf=1, zipf_level=2)
    assert one.grammar.frequencies == {2: pytest.approx((0.8, 0.2))}
    assert one.origin == {"zipf": 1, "zipf_level": 2}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"zipf": -0.5}, "data.zipf: got -0.5, allowed: a number of at least 0"),
        ({"zipf": math.inf}, "data.zipf: got inf, allowed: a number of at least 0"),
        ({"zipf": True}, "data.zipf: got True, allowed: a number of at least 0"),
        (
            {"zipf": 1.0},
            "data.zipf: got 1.0 (frequencies: two strings that are the same with probability 0.022), allowed: at most",
        ),
        ({"zipf": 40.0}, "data.zipf: got 40.0 (frequencies of level 1: [0.99999"),
        ({"zipf": 1.0, "zipf_level": 0}, "data.zipf_level: got 0, allowed: a level from 1 to L=3"),
        ({"zipf": 1.0, "zipf_level": 4}, "data.zipf_level: got 4, allowed: a level from 1 to L=3"),
        ({"zipf_level": 1}, "data.zipf_level: got 1, allowed: null without data.zipf"),
    ],
)
def test_unequal_rules_that_cannot_be_are_refused(changes, line):
    with pytest.raises(InvalidInput) as caught:
        module(**changes)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


# ---------------------------------------------------------------- noise


@pytest.mark.parametrize("scheme", ["class", "synonyms", "class, endless", "class, zipf"])
def test_noise_is_in_all_that_is_shown_and_in_nothing_else(scheme):
    noise, many = 0.3, {"batch_size": 250, "train_size": 250, "seeds": [0, 1], "v": 6}
    many |= {"train_size": None} if "endless" in scheme else {}
    clean, noisy = with_scheme(scheme, **many), with_scheme(scheme, **many, noise=noise)

    def batches(data):
        return data.train_batch(0), data.eval_batch(0, *data.probe_range), data.eval_batch(1, *data.test_range)

    for without, having in zip(batches(clean), batches(noisy), strict=True):
        assert having.derivation.equals(without.derivation) and torch.equal(having.y_RB, without.y_RB)
        for ours, theirs in (having.x_RBD, without.x_RBD), (having.view_RBD, without.view_RBD):
            if theirs is None:
                continue
            share, tokens = float((ours != theirs).double().mean()), theirs.numel()
            mean = noise * (1 - 1 / 6)
            assert abs(share - mean) < 5 * (mean * (1 - mean) / tokens) ** 0.5
    assert torch.equal(clean.train_batch(0).x_RBD, with_scheme(scheme, **many, noise=0).train_batch(0).x_RBD)


@pytest.mark.parametrize("pairs", [None, ClassPairs])
def test_a_string_has_the_same_noise_whenever_it_is_shown(pairs):
    data, numbers, shown = module(train_size=20, noise=0.5, pairs=pairs and pairs()), torch.arange(20), {}
    clean, of_numbers = data.strings(numbers).x_RBD, data.shown(data.strings(numbers).x_RBD, numbers)
    for step in range(20):
        batch, number_B = data.train_batch(step), data.train_index(torch.arange(step * 8, step * 8 + 8))[0].tolist()
        for number, string in zip(number_B, strings(batch.x_RBD[0]), strict=True):
            assert shown.setdefault(number, string) == string
        assert pairs is None or {*strings(batch.view_RBD[0])} <= {*strings(of_numbers[0])}
    assert [shown[number] for number in range(20)] == strings(of_numbers[0]) != strings(clean[0])


@pytest.mark.parametrize("noise", [-0.1, 1.1, True, "0.1", math.nan])
def test_noise_is_a_probability(noise):
    with pytest.raises(InvalidInput, match=r"data.noise: got .*, allowed: a probability from 0 to 1, or null"):
        module(noise=noise)


def test_diagnostics_look_at_strings_with_noise_and_exchange_synonyms_of_those_without():
    clean, noisy = module(), module(noise=0.5)
    rule = Backprop(HierarchicalNetwork(width=8)).prepare(noisy)
    looked = RepresentationGeometry(strings=20).held_out(rule)
    assert torch.equal(looked[:, :16], noisy.eval_batch(0, *noisy.probe_range).x_RBD)
    of_noisy = SynonymicSensitivity().measure(None, rule)
    of_clean = SynonymicSensitivity().measure(None, Backprop(HierarchicalNetwork(width=8)).prepare(clean))
    assert all(torch.equal(of_noisy[key], of_clean[key]) for key in of_clean)


# ---------------------------------------------------------------- silent positions


def informative(symbols_RBD):
    """What stands in strings without their silence, as tuples, replica by replica; ``SMALL`` has four symbols."""
    return [[tuple(symbol for symbol in string if symbol != 4) for string in strings(of_BD)] for of_BD in symbols_RBD]


@pytest.mark.parametrize("scheme", ["none", "siblings", "class", "synonyms", "class, endless", "class, zipf", "synonyms, zipf"])
@pytest.mark.parametrize("silent", [1, 2])
def test_strings_and_partners_are_those_of_the_grammar_among_silent_positions(scheme, silent):
    own = {"seeds": [0, 1], "train_size": [20, 50]} if "endless" not in scheme else {"seeds": [0, 1]}
    sparse, plain = with_scheme(scheme, silent=silent, **own), with_scheme(scheme, **own)
    ranges = [(module.eval_batch, *of) for module in (sparse, plain) for of in (module.probe_range, module.test_range)]
    evaluated_too = [batch(1, *of) for batch, *of in ranges]
    pairs = [(sparse.train_batch(step), plain.train_batch(step)) for step in (0, 9)] + [
        *zip(evaluated_too[:2], evaluated_too[2:], strict=True)
    ]
    for ours, theirs in pairs:
        assert torch.equal(ours.y_RB, theirs.y_RB) and ours.x_RBD.shape[2] == (2 * (silent + 1)) ** 3
        assert sparse.grammar.parse(ours.x_RBD).equals(ours.derivation)
        for level in range(3):
            assert informative(ours.derivation.symbols[level]) == informative(theirs.derivation.symbols[level])
        assert (ours.view_RBD is None) == (theirs.view_RBD is None)
        if ours.view_RBD is not None:
            view = sparse.grammar.parse(ours.view_RBD)
            assert informative(view.x_RBD) == informative(theirs.view_RBD)
            kept = [torch.equal(a, b) for a, b in zip(view.symbols, ours.derivation.symbols, strict=True)]
            assert "synonyms" not in scheme or kept == [False, False, True, True]


def test_a_string_stands_where_it_stood_whenever_it_is_shown():
    data = module(silent=1, train_size=20, pairs=ClassPairs())
    batches = [data.train_batch(step) for step in range(20)]
    shown = {string for batch in batches for string in strings(batch.x_RBD[0])}
    partners = {string for batch in batches for string in strings(batch.view_RBD[0])}
    assert shown == set(strings(data.strings(torch.arange(20)).x_RBD[0])) and len(shown) == 20 and partners <= shown


@pytest.mark.parametrize("more", [{}, {"zipf": 0.2, "noise": 0.1, "pairs": SynonymPairs(2)}])
def test_none_silent_changes_nothing(more):
    with_none, without = module(silent=0, **more), module(**more)
    assert with_none.task == without.task and type(with_none.grammar) is RandomHierarchyModel
    assert with_none.origin == without.origin
    for step in (0, 9):
        assert_same(with_none.train_batch(step), without.train_batch(step))


def test_noise_replaces_silent_and_other_tokens_by_any_of_both():
    noise, many = 0.5, {"batch_size": 250, "train_size": 250, "seeds": [0, 1]}
    clean, noisy = module(silent=1, **many).train_batch(0), module(silent=1, noise=noise, **many).train_batch(0)
    assert noisy.derivation.equals(clean.derivation)
    for silent in (False, True):
        here = (clean.x_RBD == 4) == silent
        was, now = clean.x_RBD[here], noisy.x_RBD[here]
        share, mean = float((now != was).double().mean()), noise * 4 / 5
        assert abs(share - mean) < 5 * (mean * (1 - mean) / len(was)) ** 0.5
        assert_uniform(((now.long() - was) % 5 - 1)[now != was], 4)


def test_networks_are_built_for_strings_with_silence():
    rule = Backprop(HierarchicalNetwork(width=8, bottleneck="v")).prepare(module(silent=1))
    assert rule.network.positions == [16, 4, 1] and [layer.patch for layer in rule.network.layers] == [4, 4, 4]
    assert [layer.out_channels for layer in rule.network.layers] == [5, 5, 8] and rule.readout.weight_RFN.shape[2] == 3
    assert rule.network.layers[0].weight_RGFE.shape[2] == 4 * 5


def test_a_grammar_of_a_file_stands_among_silent_positions_too(file):
    sparse, plain = of_file(file, silent=1), of_file(file)
    assert informative(sparse.train_batch(0).x_RBD) == informative(plain.train_batch(0).x_RBD)
    assert sparse.task.given == TASK and sparse.origin == plain.origin | {"silent": 1}


@pytest.mark.parametrize(
    ("silent", "line"),
    [
        (0.5, "data.silent: got 0.5, allowed: an integer of at least 0"),
        (700, "data.silent: got 700, allowed: at most (s (silent + 1))**L = 2**31 tokens, they are 1402**3"),
    ],
)
def test_silent_positions_that_cannot_be_are_refused_by_the_settings_name(silent, line):
    with pytest.raises(InvalidInput) as caught:
        module(silent=silent)
    assert str(caught.value) == line


def test_training_among_silent_positions_goes_on_from_a_checkpoint(tmp_path):
    def trained(steps, checkpoint=None):
        rule, trainer = Backprop(HierarchicalNetwork(width=8)), quiet_trainer(max_steps=steps)
        trainer.fit(rule, module(silent=1, noise=0.1), ckpt_path=checkpoint)
        return rule, trainer

    whole, (_, trainer) = trained(6)[0].state_dict(), trained(3)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    parts = trained(6, tmp_path / "a.ckpt")[0].state_dict()
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    again = Backprop.load_from_checkpoint(tmp_path / "a.ckpt").data
    assert again.task == SparseTask(Task(4, 3, 2, 2, 3), 1)
    assert_same(again.train_batch(3), module(silent=1, noise=0.1).train_batch(3))


def test_a_run_says_how_much_is_silent_and_goes_on_with_no_other(tmp_path, capsys):
    run = ["-c", "rules/sibling_contrastive", *RUN, "--tables=false", f"--run_dir={tmp_path / 'a'}"]
    rhm("fit", *run, "--data.silent=1")
    found = results(tmp_path / "a")
    assert found["task"] == {"v": 4, "n": 4, "m": 2, "s": 2, "L": 3} and found["origin"] == {"silent": 1}
    assert found["network"]["handed_on"] == [5, 5, 8]
    (tmp_path / "a/results.json").unlink()
    capsys.readouterr()
    line = refused(capsys, "fit", *run, "--data.silent=2")
    assert "data.init_args.silent=2 in " in line and "which holds a run with data.init_args.silent=1" in line
    settings = tmp_path / "a/config.yaml"
    settings.write_text(settings.read_text(encoding="utf-8").replace("silent: 1", "silent: 2"), encoding="utf-8")
    with pytest.raises(SystemExit):
        rhm("fit", *run, "--data.silent=2")
    line = capsys.readouterr().err.splitlines()[-1]
    assert "step=6.ckpt of origin silent=1, allowed: one of origin silent=2" in line


@pytest.mark.parametrize("silent", ["-1", "true", "0.5", "null", "700"])
def test_silent_positions_that_cannot_be_are_refused_in_a_line(silent, tmp_path, capsys):
    run = f"--run_dir={tmp_path / 'a'}"
    line = refused(capsys, "fit", "-c", "rules/sibling_contrastive", *RUN, f"--data.silent={silent}", run)
    assert line.startswith("rhm: data.silent: got ") and not (tmp_path / "a").exists()


# ---------------------------------------------------------------- a grammar from a file

TASK = {key: SMALL[key] for key in ("v", "n", "m", "s", "L")}


@pytest.fixture
def file(tmp_path):
    """A grammar of another seed than those that are asked for."""
    path = tmp_path / "grammar.json"
    RandomHierarchyModel(**TASK, seeds=[77]).to_json(path)
    return path


def of_file(path, **changes):
    sizes = {key: value for key, value in SMALL.items() if key not in TASK}
    return RHMDataModule(**{**sizes, "train_size": 50, "batch_size": 8, "grammar": str(path), **changes})


def test_every_replica_has_the_grammar_of_the_file_and_an_order_of_its_own(file):
    data = of_file(file, seeds=[0, 1], train_size=None, probe_size=1)
    rules = rules_of(RandomHierarchyModel(**TASK, seeds=[77]))
    assert vars(data.task) == TASK
    everything = data.strings(torch.arange(384))
    for r in range(2):
        assert set(levels_of(everything, r)) == set(derivations(rules))
    first, second = (strings(everything.x_RBD[r]) for r in range(2))
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 10  # one is expected
    assert not set(seen(data, range(40))) & set(evaluated(data, *data.test_range))


def test_a_file_of_a_seeds_own_grammar_changes_nothing(file):
    ours, theirs = of_file(file, seeds=[77], pairs=SynonymPairs(2)), module(seeds=[77], pairs=SynonymPairs(2))
    for step in (0, 9):
        assert_same(ours.train_batch(step), theirs.train_batch(step))


def test_a_share_of_replicas_of_a_file_sees_what_all_of_them_see(file):
    together, share = (of_file(file, seeds=[0, 1, 2]) for _ in range(2))
    share.keep_share(1, 3)
    assert torch.equal(together.train_batch(3).x_RBD[1:2], share.train_batch(3).x_RBD)


@pytest.mark.parametrize("key", TASK)
def test_a_size_that_is_not_the_files_is_refused(file, key):
    with pytest.raises(InvalidInput) as caught:
        of_file(file, **{key: 11})
    assert str(caught.value) == f"data.{key}: got 11, allowed: {TASK[key]}, as in {file}"
    assert of_file(file, **TASK).task == of_file(file).task


def test_a_checkpoint_gives_its_grammar_back_while_the_file_is_the_same(file, tmp_path):
    data = of_file(file, train_size=[20, 30])
    rule, trainer = Backprop(HierarchicalNetwork(width=8)), quiet_trainer(max_steps=2)
    trainer.fit(rule, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = Backprop.load_from_checkpoint(tmp_path / "a.ckpt")
    assert_same(data.train_batch(3), again.data.train_batch(3))
    RandomHierarchyModel(**TASK, seeds=[78]).to_json(file)
    with pytest.raises(InvalidInput, match=r"data.grammar: got .*grammar.json with another grammar"):
        Backprop.load_from_checkpoint(tmp_path / "a.ckpt")


def test_a_file_may_have_frequencies_of_its_own(file, tmp_path):
    given = {1: (0.3, 0.7), 3: (0.6, 0.4)}
    RandomHierarchyModel(**TASK, seeds=[77], frequencies=given).to_json(file)
    data = of_file(file, seeds=[0, 1])
    assert data.grammar.frequencies == given and data.origin.keys() == {"grammar", "fingerprint"}
    assert not set(seen(data, range(40))) & set(evaluated(data, *data.test_range))
    rule, trainer = Backprop(HierarchicalNetwork(width=8)), quiet_trainer(max_steps=1)
    trainer.fit(rule, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert_same(data.train_batch(3), Backprop.load_from_checkpoint(tmp_path / "a.ckpt").data.train_batch(3))
    with pytest.raises(InvalidInput, match=r"data.zipf: got 1.0, allowed: null, as data.grammar has frequencies of its own"):
        of_file(file, zipf=1.0)
    file.write_text(file.read_text(encoding="utf-8").replace("0.6", "0.5"), encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"data.grammar: got .* with frequencies of level 3: 2 numbers that sum to 0.9"):
        of_file(file)


def test_a_checkpoint_of_unequal_rules_gives_its_strings_back(tmp_path):
    data = module(zipf=1.0, zipf_level=1, noise=0.2, train_size=[20, 30])
    rule, trainer = Backprop(HierarchicalNetwork(width=8)), quiet_trainer(max_steps=1)
    trainer.fit(rule, data)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert_same(data.train_batch(3), Backprop.load_from_checkpoint(tmp_path / "a.ckpt").data.train_batch(3))


def run_of_file(path, *args):
    sizes = [f"--data.{key}={SMALL[key]}" for key in ("test_size", "probe_size", "eval_batch_size")]
    more = ["--model.network.width=8", "--trainer.accelerator=cpu", "--trainer.val_check_interval=2", "--tables=false"]
    return ["-c", "rules/backprop", f"--data.grammar={path}", "--data.train_size=50", *sizes, *more, *args]


def test_a_run_says_its_grammar_and_goes_on_with_no_other(file, tmp_path, capsys):
    run = f"--run_dir={tmp_path / 'a'}"
    rhm("fit", *run_of_file(file, "--trainer.max_steps=4", run))
    found = results(tmp_path / "a")
    assert found["task"] == TASK and found["origin"]["grammar"] == str(file)
    settings = yaml.safe_load((tmp_path / "a/config.yaml").read_text(encoding="utf-8"))["data"]["init_args"]
    assert TASK.items() <= settings.items() and settings["grammar"] == str(file)
    capsys.readouterr()
    RandomHierarchyModel(**TASK, seeds=[78]).to_json(file)
    assert "step=4.ckpt of origin grammar=" in refused(capsys, "test", run)
    before = (tmp_path / "a/config.yaml").read_text(encoding="utf-8")
    with pytest.raises(SystemExit):
        rhm("fit", *run_of_file(file, "--trainer.max_steps=8", run))
    assert "step=4.ckpt of origin grammar=" in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "a/config.yaml").read_text(encoding="utf-8") == before


@pytest.mark.parametrize("typed", ["--data.v=8", "--data.init_args.v=8", "file"])
def test_a_size_on_the_command_line_that_is_not_the_files_is_refused_also_if_it_is_the_usual_one(file, typed, tmp_path, capsys):
    if typed == "file":
        typed = f"--config={tmp_path / 'own.yaml'}"
        (tmp_path / "own.yaml").write_text("data: {init_args: {v: 8}}", encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    line = refused(capsys, "fit", *run_of_file(file, typed, "--trainer.max_steps=4", f"--run_dir={tmp_path / 'a'}"))
    assert line == f"rhm: data.v: got 8, allowed: 4, as in {file}" and sorted(tmp_path.iterdir()) == before


def test_a_file_that_is_no_grammar_is_refused_before_anything_is_written(file, tmp_path, capsys):
    content = json.loads(file.read_text(encoding="utf-8"))
    owned = content["grammars"][0]["rules"]["level 1"]
    owned["3"][1] = owned["0"][0]
    file.write_text(json.dumps(content), encoding="utf-8")
    line = refused(capsys, "fit", *run_of_file(file, "--trainer.max_steps=4", f"--run_dir={tmp_path / 'a'}"))
    assert f"data.grammar: got {file} with level 1: {owned['0'][0]}, a tuple that is owned twice" in line
    assert list(tmp_path.iterdir()) == [file]

from collections import Counter, defaultdict
from itertools import combinations

import pytest
import torch
from oracles import FALSE_ALARM, choices, strings, tail

from datamodules import (
    ClassPairs,
    HalfPairs,
    MaskedPairs,
    PositionHalfPairs,
    RandomHalfPairs,
    RHMDataModule,
    SelfPairs,
    SiblingPairs,
    SynonymPairs,
)
from datamodules.pairs import Pairs, random_half
from rhm import InvalidInput
from rhm.hashing import fold

TASK = {"v": 4, "n": 3, "m": 2, "s": 2, "L": 3, "test_size": 60, "probe_size": 40}


def partners(data, steps, r=0):
    """String and partner, with the string's class, over some steps."""
    for step in range(steps):
        batch = data.train_batch(step)
        yield from zip(strings(batch.x_RBD[r]), strings(batch.view_RBD[r]), batch.y_RB[r].tolist(), strict=True)


def training_strings(data, r=0):
    """Class of each training string of a replica."""
    derivation = data.grammar.sample(torch.arange(data.replica_sizes[r]))
    return dict(zip(strings(derivation.x_RBD[r]), derivation.y_RB[r].tolist(), strict=True))


@pytest.mark.parametrize("train_size", [24, [24, 9, 40], [1, 2, 3, 4], 1])
def test_class_partner_is_another_training_string_of_the_class(train_size):
    data = RHMDataModule(**TASK, train_size=train_size, seeds=[0, 1, 2], pairs=ClassPairs(), batch_size=40)
    alone = 0
    for r in range(data.replicas):
        label = training_strings(data, r)
        size = Counter(label.values())
        for string, partner, y in partners(data, 10, r):
            assert label[string] == y == label[partner]
            assert (string == partner) == (size[y] == 1)
        alone += sum(count == 1 for count in size.values())
    if train_size in (1, [1, 2, 3, 4]):
        assert alone > 0


@pytest.mark.parametrize("train_size", [24, [24, 17]])
def test_class_partner_is_uniform_over_the_others(train_size):
    data = RHMDataModule(**TASK, train_size=train_size, pairs=ClassPairs(), batch_size=1000)
    for r in range(data.replicas):
        counts = defaultdict(Counter)
        for string, partner, _ in partners(data, 48, r):
            counts[string][partner] += 1
        label, statistic, freedom = training_strings(data, r), 0.0, 0
        for string, partner_count in counts.items():
            others = [other for other in label if label[other] == label[string] and other != string]
            expected = sum(partner_count.values()) / len(others)
            assert expected > 5
            statistic += sum((partner_count[other] - expected) ** 2 / expected for other in others)
            freedom += len(others) - 1
        assert len(counts) == len(label) and freedom > 50
        assert FALSE_ALARM < tail(statistic, freedom) < 1 - FALSE_ALARM


def test_class_partners_differ_between_epochs_and_seeds():
    data = RHMDataModule(**TASK, train_size=200, seeds=[0, 1], pairs=ClassPairs(), batch_size=200)
    first, second = (
        {string: partner for string, partner, _ in partners_of}
        for partners_of in (list(partners(data, 1)), list(partners(data, 2))[200:])
    )
    assert first.keys() == second.keys()
    assert sum(first[string] == second[string] for string in first) < 30  # three are expected


def test_class_partner_of_an_endless_stream_is_a_fresh_string_of_the_class():
    data = RHMDataModule(8, 8, 4, 2, 3, train_size=None, pairs=ClassPairs(), batch_size=500, seeds=[0, 1], test_size=100)
    batch = data.train_batch(3)
    view = data.grammar.parse(batch.view_RBD)
    assert torch.equal(view.y_RB, batch.y_RB)
    for r in range(2):
        own, other = strings(batch.x_RBD[r]), strings(batch.view_RBD[r])
        assert sum(a == b for a, b in zip(own, other, strict=True)) < 10  # fewer than one is expected
        assert len(set(other)) > 450
    old, new = choices(data.grammar, batch.derivation), choices(data.grammar, view)
    for a, b in zip(old, new, strict=True):
        assert 0.15 < (a == b).float().mean() < 0.35


@pytest.mark.parametrize("level", [1, 2, 3])
def test_synonym_partner_keeps_symbols_from_its_level_up(level):
    data = RHMDataModule(8, 8, 4, 2, 3, train_size=64, pairs=SynonymPairs(level), batch_size=500, seeds=[0, 1])
    batch = data.train_batch(1)
    view = data.grammar.parse(batch.view_RBD)
    for l, (own, other) in enumerate(zip(batch.derivation.symbols, view.symbols, strict=True)):
        assert torch.equal(own, other) == (l >= level)
    old, new = choices(data.grammar, batch.derivation), choices(data.grammar, view)
    for l in range(1, level + 1):
        agree = (old[l - 1] == new[l - 1]).double().mean(dim=(1, 2))
        sigma = (0.25 * 0.75 / old[l - 1][0].numel()) ** 0.5
        assert ((agree - 0.25).abs() < 6 * sigma).all()  # four rules, drawn again: a quarter stays


def test_a_string_gets_another_synonym_partner_each_time():
    data = RHMDataModule(8, 8, 4, 2, 3, train_size=1, pairs=SynonymPairs(3), batch_size=256)
    batches = [data.train_batch(step) for step in range(4)]
    partners = [string for batch in batches for string in strings(batch.view_RBD[0])]
    assert len(set(strings(batches[0].x_RBD[0]))) == 1
    assert len(set(partners)) > 900  # of 4**7 strings of the class 1024 draws give 993 different ones on average


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        (2, [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11)]),
        (3, [(0, 1), (1, 2), (2, 0), (3, 4), (4, 5), (5, 3)] + [(6, 7), (7, 8), (8, 6), (9, 10), (10, 11), (11, 9)]),
    ],
)
def test_siblings_are_neighbours_under_one_parent(patch, expected):
    position = torch.arange(12.0)
    channel, string, replica = 100 * torch.arange(3.0), 1000 * torch.arange(2.0), 10_000 * torch.arange(2.0)
    h_RBDC = replica.view(2, 1, 1, 1) + string.view(1, 2, 1, 1) + position.view(1, 1, 12, 1) + channel
    first, second = SiblingPairs().positives(h_RBDC, None, patch)
    assert first.shape == second.shape == (2, 2, len(expected), 3)
    for r in range(2):
        for b in range(2):
            for c in range(3):
                base = 10_000 * r + 1000 * b + 100 * c
                pairs = list(zip((first[r, b, :, c] - base).tolist(), (second[r, b, :, c] - base).tolist(), strict=True))
                assert pairs == expected


@pytest.mark.parametrize(
    ("patches", "layers"), [([2, 2, 2], 2), ([3, 3], 1), ([2], 0), ([8, 1, 1], 0), ([2, 2, 1, 2], 1), ([1, 2, 2], 2)]
)
def test_layers_have_siblings_up_to_the_last_merge(patches, layers):
    assert SiblingPairs().layers(patches) == layers
    everywhere = ClassPairs(), SynonymPairs(1), HalfPairs(), RandomHalfPairs(), MaskedPairs()
    assert [pairs.layers(patches) for pairs in everywhere] == [len(patches)] * 5


@pytest.mark.parametrize("task", [(3, 2, 2, 2, 1), (4, 2, 1, 1, 3)])
def test_tasks_without_siblings_are_refused(task):
    with pytest.raises(InvalidInput) as caught:
        RHMDataModule(*task, train_size=1, test_size=1, pairs=SiblingPairs())
    assert caught.value.key == "data.pairs"
    RHMDataModule(*task, train_size=1, test_size=1, pairs=ClassPairs())


def test_a_string_of_one_token_has_no_half():
    with pytest.raises(InvalidInput, match="data.pairs: got MaskedPairs at s=1, allowed: s >= 2"):
        RHMDataModule(4, 2, 1, 1, 3, train_size=1, test_size=1, pairs=MaskedPairs())


def test_halves_are_the_first_and_the_last_channels():
    h_RBDC = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    first, second = HalfPairs().positives(h_RBDC, None, 2)
    assert torch.equal(first, h_RBDC[..., :3]) and torch.equal(second, h_RBDC[..., 3:])
    assert HalfPairs().channels(6, 4) == 3 and SiblingPairs().channels(7, 4) == 7
    with pytest.raises(InvalidInput, match="7 channels"):
        HalfPairs().channels(7, 4)


@pytest.mark.parametrize("size", [2, 5, 6])
def test_every_half_is_drawn_alike(size):
    halves = random_half(fold(torch.arange(3000).view(3, 1000), "a half"), size)
    assert halves.shape == (3, 1000, size) and halves.dtype == torch.bool
    counts = Counter(tuple(half.nonzero().flatten().tolist()) for half in halves.flatten(0, 1))
    assert counts.keys() == {*combinations(range(size), size // 2)}
    expected = 3000 / len(counts)
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    assert FALSE_ALARM < tail(statistic, len(counts) - 1) < 1 - FALSE_ALARM


@pytest.mark.parametrize("channels", [6, 7])
def test_a_random_half_has_zeros_where_the_other_half_has_channels(channels):
    h_RBDC = 1.0 + torch.arange(3 * 4 * 2 * channels).view(3, 4, 2, channels)
    key_R = fold(torch.arange(3), "a layer")
    first, second = RandomHalfPairs().drawn(key_R).positives(h_RBDC, None, 2)
    halves = []
    for r in range(3):
        halves.append({c for c in range(channels) if first[r, 0, 0, c] > 0})
        assert len(halves[r]) == channels // 2
        for b in range(4):
            for d in range(2):
                for c, value in enumerate(h_RBDC[r, b, d].tolist()):
                    seen = [value, 0.0] if c in halves[r] else [0.0, value]
                    assert [first[r, b, d, c].item(), second[r, b, d, c].item()] == seen
    assert halves[0] != halves[1] or halves[1] != halves[2]
    assert RandomHalfPairs().channels(channels, 2) == channels
    with pytest.raises(InvalidInput, match="data.pairs: got RandomHalfPairs with 1 channels"):
        RandomHalfPairs().channels(1, 4)


@pytest.mark.parametrize("s", [2, 3])
def test_a_step_hides_one_half_in_one_copy_and_the_other_in_the_other(s):
    data = RHMDataModule(4, 3, 2, s, 2, train_size=12, test_size=8, seeds=[0, 1], pairs=MaskedPairs(), batch_size=8)
    drawn = [set(), set()]
    for step in range(40):
        batch = data.train_batch(step)
        assert batch.view_RBD is None and batch.half_RBD.shape == batch.x_RBD.shape
        for r in range(2):
            rows = {tuple(row) for row in batch.half_RBD[r].tolist()}
            assert len(rows) == 1, "of all strings the same"
            drawn[r] |= {(step, *rows)}
            assert sum(*rows) == s**2 // 2
    shown = [[row for _, row in sorted(of)] for of in drawn]
    assert shown[0] != shown[1] and len({*shown[0]}) > 4  # of six, or 126, halves in 40 steps
    assert data.eval_batch(0, *data.test_range).half_RBD is None


def test_a_position_with_itself_stands_on_both_sides():
    h_RBDC = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    first, second = SelfPairs().positives(h_RBDC, None, 2)
    assert torch.equal(first, h_RBDC) and torch.equal(second, h_RBDC)
    assert SelfPairs().channels(7, 4) == 7 and SelfPairs().layers([2, 2, 2]) == 3


def test_halves_by_position_are_the_first_and_the_last_positions():
    scheme, h_RBDC = PositionHalfPairs(), torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    first, second = scheme.positives(h_RBDC, None, 2)
    for r in range(2):
        for b in range(3):
            rows = h_RBDC[r, b].tolist()
            assert first[r, b].tolist() == [rows[0] + rows[1]] and second[r, b].tolist() == [rows[2] + rows[3]]
    assert scheme.channels(5, 4) == first.shape[3] == 10
    patches = [[2, 2, 2], [2, 2], [8, 1, 1], [2, 1, 4], [1, 2, 1], [4, 4]]
    assert [scheme.layers(of) for of in patches] == [2, 1, 0, 2, 1, 1]
    with pytest.raises(InvalidInput, match="data.pairs: got PositionHalfPairs at s=3"):
        RHMDataModule(v=4, n=4, m=2, s=3, L=2, train_size=1, test_size=1, pairs=PositionHalfPairs())


@pytest.mark.parametrize("positions", [8, 4, 2, 1])
@pytest.mark.parametrize(
    ("make", "shared"), [(ClassPairs, 1), (MaskedPairs, 1)] + [(lambda l=l: SynonymPairs(l), 2 ** (3 - l)) for l in (1, 2, 3)]
)
def test_a_side_of_two_views_is_all_that_stands_below_a_shared_symbol(make, shared, positions):
    scheme = make()
    RHMDataModule(**TASK, train_size=20, pairs=scheme)
    h_RBDC = torch.arange(2.0 * 3 * positions * 5).view(2, 3, positions, 5)
    first, second = scheme.positives(h_RBDC, h_RBDC + 0.5, 2)
    below = max(1, positions // shared)  # positions that make a side
    for r in range(2):
        for b in range(3):
            rows = h_RBDC[r, b].tolist()
            expected = [sum(rows[at : at + below], []) for at in range(0, positions, below)]
            assert first[r, b].tolist() == expected
            assert (second[r, b] - 0.5).tolist() == expected
    assert scheme.channels(5, positions) == first.shape[3]


def test_pairs_within_a_string_need_no_view():
    for scheme in (SiblingPairs(), SelfPairs(), HalfPairs(), RandomHalfPairs(), PositionHalfPairs()):
        batch = RHMDataModule(**TASK, train_size=20, pairs=scheme).train_batch(0)
        assert batch.view_RBD is None and batch.half_RBD is None


def test_schemes_say_what_they_know():
    blind = SiblingPairs, SelfPairs, HalfPairs, RandomHalfPairs, PositionHalfPairs, MaskedPairs
    knowledge = {scheme: scheme.knowledge for scheme in (*blind, ClassPairs, SynonymPairs)}
    assert knowledge == {**dict.fromkeys(blind, "none"), ClassPairs: "labels", SynonymPairs: "grammar"}
    assert all(issubclass(scheme, Pairs) for scheme in knowledge)


@pytest.mark.parametrize(
    "pairs",
    [SiblingPairs(), SelfPairs(), ClassPairs(), HalfPairs(), RandomHalfPairs(), PositionHalfPairs(), MaskedPairs()],
    ids=lambda p: type(p).__name__,
)
@pytest.mark.parametrize("patch", [2, 3])
def test_gradients_of_the_sides_go_back_to_where_the_sides_came_from(pairs, patch):
    generator = torch.Generator().manual_seed(0)
    h, view = torch.randn(2, 2, 5, 6, 4, generator=generator, dtype=torch.float64).requires_grad_()
    views, pairs = view if isinstance(pairs, ClassPairs | MaskedPairs) else None, pairs.drawn(fold(torch.arange(2), "a layer"))
    sides = pairs.positives(h, views, patch)
    signals = [torch.randn(side.shape, generator=generator, dtype=torch.float64) for side in sides]
    outs = [h] if views is None else [h, view]
    exact = torch.autograd.grad(sum((side * signal).sum() for side, signal in zip(sides, signals, strict=True)), outs)
    ours = [back for back in pairs.hand_back(*signals, patch) if back is not None]
    assert len(ours) == len(exact)
    for back, grad in zip(ours, exact, strict=True):
        torch.testing.assert_close(back.reshape(grad.shape), grad)

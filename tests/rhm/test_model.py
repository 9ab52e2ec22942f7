import json
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import assert_uniform, choices, derivations, is_derived, levels_of, parse_all, rules_of, strings

import rhm.model
from rhm import Derivation, InvalidInput, InvalidString, RandomHierarchyModel, Task, one_hot, whitened_one_hot
from rhm.hashing import fold, scramble, seed_keys
from rhm.model import DENSE_TUPLES, _distinct, split_digits, take_rows

SMALL = [
    (3, 2, 2, 2, 2),
    (4, 3, 2, 2, 2),
    (2, 2, 1, 2, 3),
    (3, 4, 2, 2, 1),
    (1, 1, 1, 2, 3),
    (5, 7, 3, 2, 2),
    (4, 3, 3, 3, 2),
    (2, 3, 2, 4, 2),
    (12, 10, 5, 2, 2),
    (300, 4, 3, 2, 2),
    (2, 2, 2, 2, 3),
    (3, 2, 3, 2, 3),
    (3, 1, 2, 2, 4),
    (2, 4, 2, 3, 2),
    (6, 3, 2, 1, 1),
    (6, 2, 1, 1, 3),
    (3, 1, 2, 3, 2),
]
"""Tasks whose strings can all be listed."""

LARGE = [
    (8, 8, 4, 2, 4),
    (6, 5, 3, 2, 4),
    (7, 6, 5, 3, 3),
    (2, 2, 2, 4, 3),
    (16, 16, 8, 2, 5),
    (4, 4, 2, 2, 10),
    (4, 5, 3, 2, 10),
    (3, 2, 3, 3, 4),
]
"""Tasks with millions of strings and more, of powers of two and others, the last four beyond 63 bits."""

VARIED = [
    (3, 2, 2, 2, 2),
    (4, 6, 3, 3, 3),
    (16, 16, 8, 2, 3),
    (16, 5, 3, 2, 4),
    (3, 4, 2, 2, 10),
    (300, 7, 2, 2, 3),
    (5, 5, 4, 4, 2),
]

SEEDS = st.integers(0, 2**63 - 1)
some = settings(max_examples=25)


def ids(task):
    return "-".join(map(str, task))


def numbers(model, count, seed=0):
    """String numbers spread over the whole range, with both ends, the same in all replicas."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, model.index_range, (count,), generator=generator)
    return torch.cat([drawn, torch.tensor([0, model.index_range - 1])])


# ---------------------------------------------------------------- full enumeration


@pytest.fixture(scope="module", params=SMALL, ids=ids)
def small(request):
    """A model of two grammars, of one if there are many strings, and the symbols of all its strings."""
    model = RandomHierarchyModel(*request.param, seeds=[0, 1] if Task(*request.param).P_max < 10_000 else [0])
    return model, model.sample(torch.arange(model.task.P_max))


def test_all_numbers_give_all_strings_of_the_grammar_once(small):
    model, everything = small
    for r in range(model.replicas):
        expected = derivations(rules_of(model, r))
        assert len({levels[0] for levels in expected}) == len(expected) == model.task.P_max
        assert set(levels_of(everything, r)) == set(expected)
        assert len(set(strings(everything.x_RBD[r]))) == model.task.P_max


def test_symbols_agree_with_a_parser_from_the_leaves(small):
    model, everything = small
    for r in range(model.replicas):
        assert is_derived(rules_of(model, r), levels_of(everything, r))


def test_classes_and_rule_choices_are_exactly_balanced(small):
    model, everything = small
    task = model.task
    for r in range(model.replicas):
        assert Counter(everything.y_RB[r].tolist()) == dict.fromkeys(range(task.n), task.P_max // task.n)
        chosen = [choice for _, choice in parse_all(rules_of(model, r), strings(everything.x_RBD[r]))]
        for level in range(task.L):
            for node in range(task.width(level + 1)):
                count = Counter(choice[level][node] for choice in chosen)
                assert count == dict.fromkeys(range(task.m), task.P_max // task.m)


def test_no_tuple_is_owned_twice_and_shapes_follow_the_task(small):
    model, _ = small
    task = model.task
    for level in range(1, task.L + 1):
        assert model.rules(level).shape == (model.replicas, task.n if level == task.L else task.v, task.m, task.s)
        for r in range(model.replicas):
            tuples = [t for owned in rules_of(model, r)[level] for t in owned]
            assert len(set(tuples)) == len(tuples) == task.symbols(level) * task.m
            assert all(0 <= symbol < task.v for t in tuples for symbol in t)


def test_number_undoes_sample_for_all_strings(small):
    model, everything = small
    assert torch.equal(model.number(everything), torch.arange(model.task.P_max).expand(model.replicas, -1))


def test_unlabelled_strings_are_uniform_exactly_without_signal(small):
    model, everything = small
    task = model.task
    assert task.unlabelled_signal == (len(set(strings(everything.x_RBD[0]))) < task.v**task.length)


@pytest.mark.parametrize("task", [(2, 2, 2, 2, 2), (3, 3, 3, 2, 2), (2, 2, 4, 3, 2), (2, 2, 2, 2, 3), (2, 1, 4, 2, 1)], ids=ids)
def test_strings_of_a_full_grammar_are_all_strings_once(task):
    model = RandomHierarchyModel(*task, seeds=[3])
    v, length = model.task.v, model.task.length
    assert not model.task.unlabelled_signal
    codes = (model.sample(torch.arange(model.task.P_max)).x_RBD[0].long() * v ** torch.arange(length)).sum(-1)
    assert codes.sort().values.tolist() == list(range(v**length))


# ---------------------------------------------------------------- grammars over many seeds


def test_rules_are_uniform_over_tuples_and_owners():
    model = RandomHierarchyModel(3, 2, 2, 2, 2, seeds=range(3000))
    codes = {level: (model.rules(level).long() * torch.tensor([3, 1])).sum(-1).flatten(1) for level in (1, 2)}
    for level, slots in ((1, 6), (2, 4)):
        for a in range(slots):
            assert_uniform(codes[level][:, a], 9)
            for b in range(a):
                first, second = codes[level][:, a], codes[level][:, b]
                ordered_pair = first * 8 + second - (second > first).long()
                assert_uniform(ordered_pair, 72)
    for a in range(6):
        for b in range(4):
            assert_uniform(codes[1][:, a] * 9 + codes[2][:, b], 81)


def test_neighbouring_seeds_give_unrelated_rules():
    model = RandomHierarchyModel(3, 2, 2, 2, 2, seeds=range(6000))
    first = (model.rules(1)[:, 0, 0].long() * torch.tensor([3, 1])).sum(-1)
    assert_uniform(first[::2] * 9 + first[1::2], 81)


@pytest.mark.parametrize(
    ("wanted", "size"),
    [
        (1, 1),
        (5, 5),
        (40, 64),
        (1000, 1001),
        (6, DENSE_TUPLES),
        (6, DENSE_TUPLES + 1),
        (300_000, 1_200_000),
        (300_000, 1_200_001),
    ]
    + [(2000, 2**40), (3, 3**39), (2000, 2**62 + 1)],
)
def test_drawn_tuples_are_distinct_and_in_range(wanted, size):
    for seed in range(2):
        codes = _distinct(seed_keys(torch.tensor([seed])), wanted, size)[0]
        assert len(codes.unique()) == wanted
        assert codes.min() >= 0 and codes.max() < size


@pytest.mark.parametrize("size", [12, 600, DENSE_TUPLES + 8, 3 * 2**40, 3 * 2**60, 3**39])
def test_drawn_tuples_are_uniform(size):
    codes = _distinct(seed_keys(torch.arange(600), "test"), 12, size)
    for slot in range(12):
        assert_uniform((codes[:, slot].double() / size * 12).long(), 12)
        assert_uniform(codes[:, slot] % 12, 12)
    if size > DENSE_TUPLES:  # all slots at once, which are as good as independent
        assert_uniform((codes.double() / size * 12).long(), 12)
        assert_uniform(codes % 12, 12)


def test_tuples_of_a_large_vocabulary_are_uniform_and_distinct():
    v = 1100
    assert v**2 > DENSE_TUPLES
    model = RandomHierarchyModel(v, 5, 4, 2, 1, seeds=range(600))
    tuples = model.rules(1).flatten(1, 2).long()
    codes = tuples[..., 0] * v + tuples[..., 1]
    assert all(len(row.unique()) == 20 for row in codes)
    for place in range(2):
        assert_uniform(tuples[..., place] // 11, 100)
    assert_uniform(tuples[..., 0] // 110 * 10 + tuples[..., 1] // 110, 100)
    for slot in range(20):
        assert_uniform(tuples[:, slot, 0] // 110, 10)


# ---------------------------------------------------------------- the first strings of large tasks


@pytest.fixture(scope="module", params=LARGE, ids=ids)
def large(request):
    """Some ten thousand strings of two grammars, and their rule choices."""
    model = RandomHierarchyModel(*request.param, seeds=[0, 1])
    count = 2000 if model.task.length > 500 else 40_000
    derivation = model.sample(torch.arange(count))
    return model, derivation, choices(model, derivation)


def test_first_strings_are_distinct_and_their_symbols_right(large):
    model, derivation, _ = large
    for r in range(2):
        assert len(set(strings(derivation.x_RBD[r]))) == derivation.x_RBD.shape[1]
        assert is_derived(rules_of(model, r), levels_of(derivation.map(lambda t: t[:, :100]), r))


def test_class_and_root_rule_are_uniform(large):
    model, derivation, chosen = large
    n, m = model.task.n, model.task.m
    for r in range(2):
        assert_uniform(derivation.y_RB[r].long() * m + chosen[-1][r, :, 0], n * m)


def test_rule_choices_are_uniform_at_every_node(large):
    model, _, chosen = large
    m = model.task.m
    for r in range(2):
        for of_level in chosen:
            nodes = of_level.shape[2]
            assert_uniform(of_level[r] + m * torch.arange(nodes), m, groups=nodes)


def test_rule_choices_are_independent_of_symbols_and_of_one_another(large):
    model, derivation, chosen = large
    m = model.task.m
    for r in range(2):
        for level, of_level in enumerate(chosen[:-1], 1):
            first, last, nodes = of_level[r, :, 0], of_level[r, :, -1], of_level.shape[2]
            assert_uniform(first * m + last, m * m)
            for node in {1, nodes // 2}:
                assert_uniform(first * m + of_level[r, :, node], m * m)
            assert_uniform(first * m + chosen[-1][r, :, 0], m * m)
            assert_uniform(last * m + chosen[level][r, :, -1], m * m)
            for higher in chosen[level:]:  # at the same place
                assert_uniform(of_level[r, :, higher.shape[2] - 1] * m + higher[r, :, -1], m * m)
            cells = model.task.n * m
            assert_uniform(derivation.y_RB[r].long() * m + last, cells)


def test_neighbouring_numbers_give_independent_strings(large):
    model, derivation, chosen = large
    n, m, count = model.task.n, model.task.m, derivation.x_RBD.shape[1]
    i = torch.arange(count)
    for lag in (1, 2, 256):
        first = i[(i // lag % 2 == 0) & (i + lag < count)]
        second = first + lag
        for r in range(2):
            y = derivation.y_RB[r].long()
            assert_uniform(y[first] * n + y[second], n * n)
            for of_level in chosen:
                for node in {0, of_level.shape[2] - 1}:
                    choice = of_level[r, :, node]
                    assert_uniform(choice[first] * m + choice[second], m * m)


def test_data_seed_changes_the_order_and_not_the_grammar():
    task = (3, 2, 2, 2, 3)
    model = RandomHierarchyModel(*task, seeds=[4, 4], data_seeds=[0, 1])
    everything = model.sample(torch.arange(model.task.P_max))
    assert torch.equal(model.rules(1)[0], model.rules(1)[1]) and torch.equal(model.rules(3)[0], model.rules(3)[1])
    first, second = (strings(everything.x_RBD[r]) for r in range(2))
    assert set(first) == set(second)
    assert first != second
    assert sum(a == b for a, b in zip(first, second, strict=True)) < 14  # one is expected


# ---------------------------------------------------------------- sampling, parsing, numbering


@pytest.mark.parametrize("task", VARIED, ids=ids)
@some
@given(seeds=st.lists(SEEDS, min_size=1, max_size=3), pick=st.integers(0, 2**31))
def test_parse_and_number_undo_sample(task, seeds, pick):
    model = RandomHierarchyModel(*task, seeds=seeds)
    i = numbers(model, 5, pick)
    derivation = model.sample(i)
    assert model.parse(derivation.x_RBD).equals(derivation)
    assert is_derived(rules_of(model, len(seeds) - 1), levels_of(derivation, len(seeds) - 1))
    if model.task.P_max < 2**63:
        assert model.index_range == model.task.P_max
        assert torch.equal(model.number(derivation), i.expand(len(seeds), -1))
    else:
        assert 2**40 < model.index_range < 2**63
        with pytest.raises(InvalidInput, match="P_max"):
            model.number(derivation)


@pytest.mark.parametrize("task", VARIED, ids=ids)
@some
@given(seeds=st.lists(st.tuples(SEEDS, SEEDS), min_size=2, max_size=4), data=st.data())
def test_a_replica_is_the_model_of_its_seed_alone(task, seeds, data):
    r = data.draw(st.integers(0, len(seeds) - 1))
    together = RandomHierarchyModel(*task, seeds=[a for a, _ in seeds], data_seeds=[b for _, b in seeds])
    alone = RandomHierarchyModel(*task, seeds=[seeds[r][0]], data_seeds=[seeds[r][1]])
    i = numbers(alone, 5)
    ours, derivation = together.sample(i), alone.sample(i)
    assert ours.map(lambda t: t[r : r + 1]).equals(derivation)
    for changed in (lambda m, d: m.exchange(d, task[-1], key=3), lambda m, d: m.resample(d, task[-1], key=3)):
        assert changed(together, ours).map(lambda t: t[r : r + 1]).equals(changed(alone, derivation))


@pytest.mark.parametrize("task", VARIED, ids=ids)
def test_numbers_may_be_shared_or_given_for_each_replica(task):
    model = RandomHierarchyModel(*task, seeds=[0, 1, 2])
    i_RB = torch.stack([numbers(model, 6, seed) for seed in range(3)])
    derivation = model.sample(i_RB)
    assert model.sample(i_RB[0]).equals(model.sample(i_RB[:1].expand(3, -1)))
    for r in range(3):
        assert torch.equal(model.sample(i_RB[r]).x_RBD[r], derivation.x_RBD[r])
    for level, symbols in enumerate(derivation.symbols):
        assert symbols.shape == (3, 8, model.task.width(level))


@pytest.mark.parametrize("task", VARIED, ids=ids)
def test_chunks_do_not_show(task, monkeypatch):
    model = RandomHierarchyModel(*task, seeds=[0, 1])
    i = numbers(model, 29)
    whole = model.sample(i)
    for chunk in (1, 7 * 2 * model.task.length):
        monkeypatch.setattr(rhm.model, "CHUNK", chunk)
        assert model.sample(i).equals(whole)


def test_strings_do_not_depend_on_how_many_are_asked_for():
    model = RandomHierarchyModel(4, 5, 3, 2, 10)
    whole = model.sample(torch.arange(50))
    for i in (0, 17, 49):
        assert model.sample(torch.tensor([i])).equals(whole.map(lambda t, i=i: t[:, i : i + 1]))


# Wide tuples: many subtrees of one layer are decided by the number, whose digits then exceed float64.
@pytest.mark.parametrize(
    "task", [(2, 2, 32, 12, 2), (2, 1, 4, 5, 3), (2, 2, 2, 58, 2), (3, 2, 4, 29, 2), (3, 2, 3, 30, 2)], ids=ids
)
def test_tasks_of_wide_tuples_can_be_sampled(task):
    model = RandomHierarchyModel(*task, seeds=[0, 1])
    i = numbers(model, 50)
    derivation = model.sample(i)
    assert len(set(strings(derivation.x_RBD[1]))) == len(i.unique())
    assert is_derived(rules_of(model, 1), levels_of(derivation, 1))


def test_smallest_type_that_holds_all_symbols():
    for v, dtype in ((256, torch.uint8), (257, torch.int16), (2**15 + 1, torch.int32)):
        model = RandomHierarchyModel(v, 2, 2, 2, 1)
        assert model.sample(torch.arange(4)).x_RBD.dtype == dtype
        largest = model.rules(1).max()
        assert model.sample(torch.arange(4)).x_RBD.max() == largest


@pytest.mark.parametrize("key", ["seeds", "data_seeds"])
@pytest.mark.parametrize("given_seeds", [[], [-1], [0, 2**63]])
def test_bad_seeds_are_refused(key, given_seeds):
    with pytest.raises(InvalidInput) as caught:
        RandomHierarchyModel(3, 2, 2, 2, 2, **{"seeds": [0], key: given_seeds})
    assert caught.value.key == key


def test_data_seeds_of_another_length_are_refused():
    with pytest.raises(InvalidInput) as caught:
        RandomHierarchyModel(3, 2, 2, 2, 2, seeds=[0, 1], data_seeds=[0])
    assert caught.value.key == "data_seeds"


# ---------------------------------------------------------------- exchange and resample


@pytest.mark.parametrize("task", VARIED, ids=ids)
@some
@given(seeds=st.lists(SEEDS, min_size=1, max_size=2), key=st.integers(0, 2**62), data=st.data())
def test_exchange_changes_all_rules_of_one_level_and_no_other(task, seeds, key, data):
    model = RandomHierarchyModel(*task, seeds=seeds)
    level = data.draw(st.integers(1, model.task.L))
    before = model.sample(numbers(model, 5, key % 1000))
    after = model.exchange(before, level, key)
    assert model.parse(after.x_RBD).equals(after)
    for l in range(level, model.task.L + 1):
        assert torch.equal(after.symbols[l], before.symbols[l])
    changed = (after.symbols[level - 1] != before.symbols[level - 1]).unflatten(-1, (-1, model.task.s)).any(-1)
    assert changed.all()
    for l, (old, new) in enumerate(zip(choices(model, before), choices(model, after), strict=True), 1):
        assert (old != new).all() if l == level else torch.equal(old, new)


@pytest.mark.parametrize("task", VARIED, ids=ids)
@some
@given(seeds=st.lists(SEEDS, min_size=1, max_size=2), key=st.integers(0, 2**62), data=st.data())
def test_resample_keeps_all_from_a_level_up(task, seeds, key, data):
    model = RandomHierarchyModel(*task, seeds=seeds)
    level = data.draw(st.integers(1, model.task.L))
    before = model.sample(numbers(model, 5, key % 1000))
    after = model.resample(before, level, key)
    assert model.parse(after.x_RBD).equals(after)
    for l in range(level, model.task.L + 1):
        assert torch.equal(after.symbols[l], before.symbols[l])
    for old, new in list(zip(choices(model, before), choices(model, after), strict=True))[level:]:
        assert torch.equal(old, new)


@pytest.mark.parametrize("task", [(16, 16, 4, 2, 3), (4, 6, 3, 3, 3)], ids=ids)
def test_exchanged_rules_are_uniform_over_the_others(task):
    model = RandomHierarchyModel(*task, seeds=[0, 1])
    m = model.task.m
    before = model.sample(torch.arange(5000))
    for level in range(1, model.task.L + 1):
        shifts = []
        for key in (0, 1):
            after = model.exchange(before, level, key)
            shifts.append((choices(model, after)[level - 1] - choices(model, before)[level - 1]) % m - 1)
            for r in range(2):
                nodes = model.task.width(level)
                assert_uniform(shifts[-1][r] + (m - 1) * torch.arange(nodes), m - 1, groups=nodes)
        for a, b in ((shifts[0][0], shifts[1][0]), (shifts[0][0], shifts[0][1]), (shifts[0][0, :2500], shifts[0][0, 2500:])):
            assert_uniform(a * (m - 1) + b, (m - 1) ** 2)


@pytest.mark.parametrize("task", [(16, 16, 4, 2, 3), (4, 6, 3, 3, 3)], ids=ids)
def test_resampled_rules_are_uniform_and_independent(task):
    model = RandomHierarchyModel(*task, seeds=[0, 1])
    m = model.task.m
    before = model.sample(torch.arange(5000))
    old = choices(model, before)
    for level in range(1, model.task.L + 1):
        first, second = (choices(model, model.resample(before, level, key)) for key in (0, 1))
        for l in range(level):
            nodes = model.task.width(l + 1)
            for r in range(2):
                assert_uniform(first[l][r] + m * torch.arange(nodes), m, groups=nodes)
            for a, b in ((first[l], old[l]), (first[l], second[l]), (first[l][0], first[l][1])):
                assert_uniform(a * m + b, m * m)
        if level > 1:
            assert_uniform(first[0][..., 0] * m + first[1][..., 0], m * m)


@pytest.mark.parametrize("key", [0, torch.arange(20_000).view(1, -1, 1)], ids=["one key", "a key for each string"])
def test_levels_are_exchanged_and_resampled_independently(key):
    model = RandomHierarchyModel(16, 16, 4, 2, 3)
    before = model.sample(torch.arange(20_000))
    old, resampled = choices(model, before), choices(model, model.resample(before, 3, key))
    shift = [(choices(model, model.exchange(before, l, key))[l - 1] - old[l - 1]) % 4 - 1 for l in (1, 2, 3)]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        for drawn, cells in ((shift, 3), (resampled, 4)):
            low, high = drawn[a][0], drawn[b][0]
            count = high.numel()  # the same node of a string, and the same place in the batch
            assert_uniform(low[:, : high.shape[1]] * cells + high, cells**2)
            assert_uniform(low.flatten()[:count] * cells + high.flatten(), cells**2)


@pytest.mark.parametrize("shape", [(), (1, 1, 1), (2, 1, 1)])
def test_nodes_and_strings_draw_independently_under_one_key(shape):
    model = RandomHierarchyModel(16, 16, 4, 2, 3, seeds=[0, 1])
    before = model.sample(torch.arange(20_000))
    drawn = choices(model, model.resample(before, 3, torch.full(shape, 7) if shape else 7))[0]
    for r in range(2):
        assert_uniform(drawn[r, ::2] * 4 + drawn[r, 1::2], 16)
        assert_uniform(drawn[r, :, 0] * 4 + drawn[r, :, 1], 16)


def test_a_key_for_each_replica_or_string_makes_its_own_draw():
    model = RandomHierarchyModel(4, 6, 3, 3, 3, seeds=[0, 1])
    before = model.sample(torch.arange(40))
    keys = torch.tensor([5, 6])[:, None, None]
    together = model.resample(before, 3, keys)
    for r, key in enumerate((5, 6)):
        assert torch.equal(model.resample(before, 3, key).x_RBD[r], together.x_RBD[r])
    each = model.resample(before, 3, torch.arange(80).view(2, 40, 1))
    assert not torch.equal(each.x_RBD, model.resample(before, 3, torch.arange(80).view(2, 40, 1) + 1).x_RBD)


@pytest.mark.parametrize("level", [0, -1, 3])
def test_levels_that_are_not_there_are_refused(level):
    model = RandomHierarchyModel(3, 2, 2, 2, 2)
    derivation = model.sample(torch.arange(2))
    for key, change in (("level", model.exchange), ("below_level", model.resample)):
        with pytest.raises(InvalidInput) as caught:
            change(derivation, level)
        assert caught.value.key == key


@pytest.mark.parametrize("number", [0, 1, -3, 2**62])
def test_one_key_is_the_same_for_python_numpy_and_tensors(number):
    model = RandomHierarchyModel(6, 6, 3, 2, 3, seeds=[0, 1])
    d = model.sample(numbers(model, 5, 0))
    for draw in model.exchange, model.resample:
        wanted = draw(d, 2, number)
        others = [np.int64(number), np.asarray(number), torch.tensor(number)]
        assert all(draw(d, 2, key).equals(wanted) for key in others)
    assert model.exchange(d, np.int64(2), 1).equals(model.exchange(d, 2, 1))


def test_exchange_without_synonyms_is_refused():
    model = RandomHierarchyModel(3, 2, 1, 2, 2)
    with pytest.raises(InvalidInput) as caught:
        model.exchange(model.sample(torch.arange(2)), 1)
    assert caught.value.key == "m"


# ---------------------------------------------------------------- digits and rows


@settings(max_examples=300)
@given(
    base=st.integers(1, 40) | st.sampled_from([2**k for k in range(1, 26)]) | st.integers(2, 2**31 - 1),
    times=st.integers(1, 2**62),
    data=st.data(),
)
def test_digits_are_those_of_python(base, times, data):
    count = data.draw(st.integers(1, max(k for k in range(1, 63) if base**k <= 2**62)))
    bound = base**count * min(times, 2**62 // base**count)
    x = [0, bound - 1, *data.draw(st.lists(st.integers(0, bound - 1), max_size=20))]
    digits, rest = split_digits(torch.tensor(x), base, count, bound)
    assert digits.dtype == torch.int32 and rest.dtype == torch.int64
    assert digits.tolist() == [[value // base**k % base for k in range(count)] for value in x]
    assert rest.tolist() == [value // base**count for value in x]


@pytest.mark.parametrize(
    ("base", "count"), [(2, 50), (2, 62), (4, 25), (4, 31), (32, 10), (32, 12), (1024, 5), (2**25, 2), (3, 31), (3, 39)]
)
def test_digits_around_the_bits_that_a_float_holds(base, count):
    x = [0, 1, base - 1, base, base**count // 3, base**count - 1]
    digits, rest = split_digits(torch.tensor(x), base, count, base**count)
    assert digits.tolist() == [[value // base**k % base for k in range(count)] for value in x]
    assert rest.tolist() == [0] * len(x)


@pytest.mark.parametrize("base", [2, 3, 7, 10, 16, 128, 1000, 8191])
def test_digits_are_exact_next_to_every_power(base):
    count = 1
    while base ** (count + 2) < 2**50:
        count += 1
    x = sorted({min(max(base**k * j + d, 0), 2**50 - 2) for k in range(count + 2) for j in (1, base - 1) for d in (-1, 0, 1)})
    x += [2**50 - 2 - d for d in range(50)]
    digits, rest = split_digits(torch.tensor(x), base, count, 2**50 - 1)
    assert digits.tolist() == [[value // base**k % base for k in range(count)] for value in x]
    assert rest.tolist() == [value // base**count for value in x]


@settings(max_examples=60)
@given(
    dtype=st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]),
    width=st.integers(1, 9),
    R=st.integers(1, 3),
    rows=st.integers(1, 20),
    data=st.data(),
)
def test_rows_are_those_of_python(dtype, width, R, rows, data):
    cell = st.integers(0, torch.iinfo(dtype).max)
    table = data.draw(st.lists(st.lists(cell, min_size=width, max_size=width), min_size=R * rows, max_size=R * rows))
    B, D = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    row = data.draw(st.lists(st.integers(0, rows - 1), min_size=R * B * D, max_size=R * B * D))
    row_RBD = torch.tensor(row, dtype=torch.int32).view(R, B, D)
    out = take_rows(torch.tensor(table, dtype=dtype), row_RBD, rows)
    expected = [
        [sum((table[r * rows + at] for at in of_string), []) for of_string in of_replica]
        for r, of_replica in enumerate(row_RBD.tolist())
    ]
    assert out.dtype == dtype and out.tolist() == expected
    assert row_RBD.flatten().tolist() == row


# ---------------------------------------------------------------- strings that are not the grammar's


@pytest.mark.parametrize("token", [5, 200, -1])
def test_parse_names_a_wrong_token(token):
    model = RandomHierarchyModel(5, 3, 2, 2, 3, seeds=[0, 1, 2])
    x_RBD = model.sample(torch.arange(7)).x_RBD.long()
    x_RBD[2, 4, 6] = token
    with pytest.raises(InvalidString) as caught:
        model.parse(x_RBD)
    message = str(caught.value)
    assert "string 4 of replica 2" in message
    assert f"token {token} at position 6" in message
    assert "\n" not in message


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("s", [2, 3])
def test_parse_names_a_tuple_that_nobody_owns(level, s):
    model = RandomHierarchyModel(5, 3, 2, s, 3, seeds=[0, 1])
    derivation, rules = model.sample(torch.arange(4)), rules_of(model, 1)
    owned = {t for tuples in rules[level] for t in tuples}
    free = next(t for t in [(a, b, 0)[:s] for a in range(5) for b in range(5)] if t not in owned)
    node = s ** (3 - level) - 1
    symbols = derivation.symbols[level - 1][1, 2].tolist()
    symbols[node * s : (node + 1) * s] = free
    for below in range(level - 1, 0, -1):
        symbols = [child for symbol in symbols for child in rules[below][symbol][0]]
    x_RBD = derivation.x_RBD.clone()
    x_RBD[1, 2] = torch.tensor(symbols)
    with pytest.raises(InvalidString) as caught:
        model.parse(x_RBD)
    message = str(caught.value)
    assert "string 2 of replica 1" in message
    assert f"tokens {node * s**level} to {(node + 1) * s**level - 1}" in message
    assert f"tuple {free} of level {level - 1}" in message
    assert f"symbol of level {level} owns" in message


@pytest.mark.parametrize("shape", [(2, 8), (2, 3, 7), (2, 3, 9), (1, 3, 8), (3, 3, 8), (2, 3, 8, 1)])
def test_parse_refuses_other_shapes(shape):
    model = RandomHierarchyModel(5, 3, 2, 2, 3, seeds=[0, 1])
    with pytest.raises(InvalidInput, match=r"x_RBD"):
        model.parse(torch.zeros(shape, dtype=torch.long))


def test_parse_takes_any_integer_type_and_an_empty_batch():
    model = RandomHierarchyModel(5, 3, 2, 2, 3, seeds=[0, 1])
    derivation = model.sample(torch.arange(9))
    for dtype in (torch.uint8, torch.int8, torch.int32, torch.int64):
        assert model.parse(derivation.x_RBD.to(dtype)).equals(derivation)
    assert model.parse(derivation.x_RBD[:, :0]).y_RB.shape == (2, 0)


# ---------------------------------------------------------------- to keep and to read


@pytest.mark.parametrize("task", VARIED, ids=ids)
def test_state_dict_brings_the_grammar_and_the_order_along(task):
    model = RandomHierarchyModel(*task, seeds=[1, 2], data_seeds=[3, 4])
    other = RandomHierarchyModel(*task, seeds=[5, 6])
    i = numbers(model, 20)
    derivation = model.sample(i)
    assert not other.sample(i).equals(derivation)
    other.load_state_dict(model.state_dict())
    assert other.sample(i).equals(derivation)
    assert other.parse(derivation.x_RBD).equals(derivation)
    assert other.resample(derivation, 1, 9).equals(model.resample(derivation, 1, 9))
    assert RandomHierarchyModel(*task, seeds=[1, 2], data_seeds=[3, 4]).sample(i).equals(derivation)


def test_state_dict_reaches_a_model_inside_another_module():
    model = RandomHierarchyModel(4, 3, 2, 2, 3, seeds=[1])
    outer = torch.nn.ModuleDict({"grammar": RandomHierarchyModel(4, 3, 2, 2, 3, seeds=[2])})
    outer.load_state_dict({f"grammar.{key}": value for key, value in model.state_dict().items()})
    i = torch.arange(20)
    assert outer["grammar"].sample(i).equals(model.sample(i))


@pytest.mark.parametrize("task", VARIED, ids=ids)
def test_json_round_trip(task, tmp_path):
    model = RandomHierarchyModel(*task, seeds=[1, 2], data_seeds=[3, 4])
    path = tmp_path / "grammar.json"
    document = model.to_json(path)
    assert path.read_text().strip() == document
    copy = RandomHierarchyModel.from_json(path.read_text())
    i = numbers(model, 20)
    assert copy.task == model.task and copy.to_json() == document
    assert copy.sample(i).equals(model.sample(i))


def edited(change):
    content = json.loads(RandomHierarchyModel(12, 12, 2, 2, 2, seeds=[1, 2]).to_json())
    change(content)
    return json.dumps(content)


def test_json_with_rules_of_a_persons_own_is_taken_as_it_stands():
    def swap(content):
        rules = content["grammars"][1]["rules"]["level 1"]
        rules["0"], rules["1"] = rules["1"], rules["0"]

    model, original = RandomHierarchyModel.from_json(edited(swap)), RandomHierarchyModel.from_json(edited(lambda content: None))
    assert rules_of(model, 0) == rules_of(original, 0)
    assert rules_of(model, 1)[1][:2] == rules_of(original, 1)[1][1::-1]
    derivation = model.sample(torch.arange(96))
    assert is_derived(rules_of(model, 1), levels_of(derivation, 1))


def test_json_with_sorted_keys_is_the_same_grammar():
    document = edited(lambda content: None)
    model, resorted = (
        RandomHierarchyModel.from_json(text) for text in (document, json.dumps(json.loads(document), sort_keys=True))
    )
    assert rules_of(resorted) == rules_of(model)


@pytest.mark.parametrize(
    "fault", ["twice", "twice by one symbol", "outside", "negative", "no symbol", "no rule", "ragged", "long tuple"]
)
@pytest.mark.parametrize("level", [1, 2])
def test_json_with_broken_rules_is_refused(fault, level):
    def change(content):
        rules = content["grammars"][1]["rules"][f"level {level}"]
        if fault == "twice":
            rules["3"][1] = rules["4"][0]
        elif fault == "twice by one symbol":
            rules["3"][1] = rules["3"][0]
        elif fault == "outside":
            rules["3"][1][0] = 12
        elif fault == "negative":
            rules["3"][1][0] = -1
        elif fault == "no symbol":
            for grammar in content["grammars"]:
                del grammar["rules"][f"level {level}"]["11"]
        elif fault == "no rule":
            for grammar in content["grammars"]:
                for tuples in grammar["rules"][f"level {level}"].values():
                    tuples.pop()
        elif fault == "ragged":
            rules["3"].pop()
        elif fault == "long tuple":
            rules["3"][1].append(0)

    with pytest.raises(InvalidInput) as caught:
        RandomHierarchyModel.from_json(edited(change))
    assert f"level {level}" in str(caught.value)


# ---------------------------------------------------------------- tasks


@pytest.mark.parametrize("key", ["v", "n", "m", "s", "L"])
@pytest.mark.parametrize("value", [0, -3, 2.0, "2", True, None])
def test_a_size_that_is_no_positive_integer_is_refused(key, value):
    with pytest.raises(InvalidInput) as caught:
        Task(**{"v": 4, "n": 4, "m": 2, "s": 2, "L": 2, key: value})
    assert caught.value.key == key
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("task", "key", "limit"),
    [
        ((4, 4, 5, 2, 2), "m", "m <= 4"),
        ((2, 1, 3, 2, 2), "m", "m <= 2"),
        ((3, 3, 10, 3, 3), "m", "m <= 9"),
        ((4, 9, 2, 2, 2), "n", "n <= 8"),
        ((3, 4, 3, 2, 1), "n", "n <= 3"),
        ((2, 2, 2, 1, 2), "m", "m <= 1"),
        ((1, 2, 1, 2, 2), "n", "n <= 1"),
        ((2, 2, 2, 63, 1), "v, s", "2**63"),
        ((2**21, 2, 1, 3, 1), "v, s", "2**63"),
        ((2, 2, 2, 2, 32), "L", "2**31"),
    ],
)
def test_impossible_tasks_are_refused(task, key, limit):
    with pytest.raises(InvalidInput) as caught:
        Task(*task)
    assert caught.value.key == key
    assert limit in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "task",
    [
        (4, 4, 4, 2, 2),
        (4, 8, 2, 2, 2),
        (3, 3, 9, 3, 3),
        (3, 9, 1, 2, 1),
        (3, 1, 9, 2, 1),
        (2, 2, 2, 62, 1),
        (2**21 - 1, 2, 1, 3, 1),
    ]
    + [(2, 2, 2, 2, 31), (1, 1, 1, 1, 1), (2, 2, 1, 1, 5), (2**20, 2, 2, 2, 1)],
    ids=ids,
)
def test_tasks_on_the_boundary_are_allowed(task):
    assert Task(*task).v == task[0]


def test_sizes_of_tasks_by_hand():
    small = Task(3, 4, 2, 2, 3)
    assert [small.width(level) for level in range(4)] == [8, 4, 2, 1]
    assert [small.symbols(level) for level in range(4)] == [3, 3, 3, 4]
    assert (small.length, small.nodes, small.P_max, small.chance) == (8, 7, 512, 0.25)
    wide = Task(16, 10, 8, 3, 4)
    assert (wide.length, wide.nodes) == (81, 40)
    assert wide.P_max == 10 * 2**120 == 13292279957849158729038070602803445760
    deep = Task(4, 4, 2, 2, 10)
    assert (deep.nodes, deep.P_max) == (1023, 2**1025)
    prx = Task(8, 8, 4, 2, 4)
    assert prx.P_max == 8 * 4**15 == 8589934592
    assert prx.supervised_complexity == 2048
    assert prx.self_supervised_complexity == 512
    assert prx.coverage_floor == pytest.approx(73.68272297580947, rel=1e-14)
    odd = Task(5, 3, 2, 3, 2)
    assert (odd.supervised_complexity, odd.self_supervised_complexity, odd.nodes, odd.P_max) == (12, 40, 4, 48)
    line = Task(6, 2, 1, 1, 3)
    assert (line.length, line.nodes, line.P_max) == (1, 3, 2)


@pytest.mark.parametrize(
    ("task", "signal"),
    [
        ((8, 8, 8, 2, 3), False),
        ((8, 8, 4, 2, 3), True),
        ((8, 7, 8, 2, 3), True),
        ((8, 16, 4, 2, 3), True),
        ((3, 3, 9, 3, 2), False),
        ((4, 8, 2, 2, 1), False),
        ((4, 7, 2, 2, 1), True),
    ],
)
def test_unlabelled_signal_is_there_unless_all_tuples_are_used(task, signal):
    assert Task(*task).unlabelled_signal is signal


# ---------------------------------------------------------------- derivations and encodings


def test_derivations_are_compared_by_all_symbols():
    model = RandomHierarchyModel(3, 2, 2, 2, 2)
    derivation = model.sample(torch.arange(8))
    assert derivation.depth == 2 and derivation.y_RB.shape == (1, 8)
    assert torch.equal(derivation.y_RB, derivation.symbols[2][:, :, 0])
    assert derivation.equals(Derivation(tuple(t.clone() for t in derivation.symbols)))
    assert not derivation.equals(Derivation(derivation.symbols[:-1]))
    for level in range(3):
        changed = [t.clone() for t in derivation.symbols]
        changed[level][0, 3, 0] += 1
        assert not derivation.equals(Derivation(tuple(changed)))


@pytest.mark.parametrize("v", [1, 2, 5, 300])
def test_one_hot_marks_the_token(v):
    x = scramble(torch.arange(24)).remainder(v).view(2, 3, 4).to(torch.uint8 if v < 256 else torch.int16)
    code = one_hot(x, v)
    assert code.dtype == torch.float32
    assert code.tolist() == [[[[float(c == token) for c in range(v)] for token in s] for s in r] for r in x.tolist()]
    assert one_hot(x, v, torch.float64).dtype == torch.float64


@pytest.mark.parametrize("v", [2, 3, 8, 300])
def test_whitened_code_has_zero_mean_and_unit_variance(v):
    code = whitened_one_hot(torch.arange(v).repeat(5), v, torch.float64)
    torch.testing.assert_close(code.mean(0), torch.zeros(v, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(code.var(0, correction=0), torch.ones(v, dtype=torch.float64), rtol=1e-13, atol=0)
    assert torch.equal(code.argmax(-1), torch.arange(v).repeat(5))


def test_whitened_code_of_one_symbol_is_zero():
    assert torch.equal(whitened_one_hot(torch.zeros(2, 3, dtype=torch.uint8), 1), torch.zeros(2, 3, 1))


def test_fold_in_grammar_keys_differs_by_level():
    model = RandomHierarchyModel(4, 4, 2, 2, 3, seeds=range(200))
    same = [(model.rules(1)[r] == model.rules(2)[r]).all() for r in range(200)]
    assert not any(same)  # one of 16 * 15 * ... * 9 > 5e8 grammars would agree by chance
    assert len(fold(seed_keys(torch.arange(200), "grammar"), 1).unique()) == 200

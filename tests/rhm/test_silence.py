"""The Sparse Random Hierarchy Model, against a reader and a writer of single strings in plain Python.

Shape suffixes: R replica, B batch, D position.
"""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from oracles import assert_uniform, derivations, levels_of, parse_all, rules_of, strings

import rhm.silence
from rhm import InvalidInput, InvalidString, RandomHierarchyModel, SparseHierarchyModel, SparseTask, Task
from rhm.frequencies import TESTS, zipf

TINY = (3, 2, 2, 2, 2)
"""16 strings."""
CASES = {
    "tiny": (TINY, 1),
    "two silent": (TINY, 2),
    "more classes than symbols": ((3, 4, 2, 2, 2), 1),
    "three levels": ((4, 3, 2, 2, 3), 1),
    "three children": ((3, 3, 2, 3, 2), 1),
    "one child": ((4, 2, 1, 1, 3), 2),
    "one level": ((3, 4, 2, 2, 1), 3),
}


def made(task, silent: int, seeds=(0, 1), **own) -> SparseHierarchyModel:
    return SparseHierarchyModel(RandomHierarchyModel(*task, seeds=seeds, **own), silent)


@pytest.fixture(params=CASES)
def model(request) -> SparseHierarchyModel:
    return made(*CASES[request.param])


# -------------------------------------------------------------------- the reader and the writer


def read(levels, task: Task, silent: int):
    """A string with its symbols among silent ones, from the class down: its informative symbols and their places, each by level.

    Fails where a sub-patch of an informative symbol has not one informative symbol, or something stands below a silent one.
    """
    found, places = [[] for _ in levels], [[] for _ in levels[:-1]]

    def go(level: int, position: int) -> None:
        symbol = levels[level][position]
        found[level].append(symbol)
        assert 0 <= symbol < task.symbols(level)
        for child in range(task.s if level else 0):
            first = (position * task.s + child) * (silent + 1)
            there = [e for e in range(silent + 1) if levels[level - 1][first + e] != task.v]
            assert len(there) == 1
            places[level - 1].append(there[0])
            go(level - 1, first + there[0])

    go(len(levels) - 1, 0)
    for own, level in zip(levels[:-1], found, strict=False):
        assert sum(symbol != task.v for symbol in own) == len(level)  # nothing stands elsewhere
    return tuple(map(tuple, found)), tuple(map(tuple, places))


def written(levels, places, task: Task, silent: int):
    """The inverse: symbols at all positions of each level, depth first."""
    patch, found = task.s * (silent + 1), [[] for _ in levels]

    def go(level: int, number: int | None) -> None:
        found[level].append(task.v if number is None else levels[level][number])
        for position in range(patch if level else 0):
            child = None if number is None else number * task.s + position // (silent + 1)
            stands = child is not None and places[level - 1][child] == position % (silent + 1)
            go(level - 1, child if stands else None)

    go(len(levels) - 1, 0)
    return tuple(map(tuple, found))


def read_all(derivation, model: SparseHierarchyModel, r: int = 0):
    return [read(levels, model.grammar.task, model.task.silent) for levels in levels_of(derivation, r)]


def places_of(derivation, model: SparseHierarchyModel, r: int = 0) -> torch.Tensor:
    """Places of all symbols, those of the tokens first, ``[strings, nodes]``."""
    return torch.tensor([sum(places, ()) for _, places in read_all(derivation, model, r)])


def all_numbers(model: SparseHierarchyModel, most: int = 400) -> torch.Tensor:
    return torch.arange(min(most, model.index_range))


# -------------------------------------------------------------------- strings


def test_every_string_is_one_of_the_grammars_with_its_symbols_among_silent_ones(model):
    i, task, silent = all_numbers(model), model.grammar.task, model.task.silent
    sparse, plain = model.sample(i), model.grammar.sample(i)
    for r in range(2):
        own = levels_of(plain, r)
        for levels, informative, (found, places) in zip(levels_of(sparse, r), own, read_all(sparse, model, r), strict=True):
            assert found == informative
            assert levels == written(informative, places, task, silent)
        if len(i) == model.index_range:
            assert sorted(own) == sorted(derivations(rules_of(model.grammar, r)))


def test_sizes_are_those_of_the_strings(model):
    task, (given, silent) = model.grammar.task, (model.task.informative, model.task.silent)
    assert given == task and model.task.v == task.v + 1 and model.task.s == task.s * (silent + 1)
    assert (model.task.n, model.task.m, model.task.L, model.task.chance) == (task.n, task.m, task.L, task.chance)
    symbols = model.sample(torch.arange(2)).symbols
    for level, own in enumerate(symbols):
        assert own.shape == (2, 2, model.task.width(level)) == (2, 2, (task.s * (silent + 1)) ** (task.L - level))
        assert int(own.max()) < model.task.symbols(level)
        assert model.task.unasked(level) == model.task.symbols(level) - task.symbols(level)
    assert model.task.length == symbols[0].shape[2] and model.task.given == vars(task)


def test_nothing_silent_is_the_grammar_itself():
    model = made((4, 3, 2, 2, 3), 0)
    assert model.sample(torch.arange(384)).equals(model.grammar.sample(torch.arange(384)))


def test_places_are_uniform_and_independent_between_nodes_replicas_and_strings():
    count, silent = 4000, 2
    model = made((8, 8, 4, 2, 3), silent, seeds=(0, 1, 0), data_seeds=(0, 1, 2))
    drawn = model.sample(torch.arange(count))
    places = [places_of(drawn, model, r) for r in range(3)]
    nodes = places[0].shape[1]
    assert nodes == 8 + 4 + 2
    for own in places:
        for node in range(nodes):
            assert_uniform(own[:, node], silent + 1)
            assert_uniform(own[1:, node] * 3 + own[:-1, node], 9)
            assert_uniform(drawn.y_RB[0].long() * 3 + own[:, node], 24)
        for one, two in combinations(range(nodes), 2):
            assert_uniform(own[:, one] * 3 + own[:, two], 9)
    for one, two in combinations(places, 2):
        for node in range(nodes):
            assert_uniform(one[:, node] * 3 + two[:, node], 9)


@pytest.mark.parametrize("unequal", [False, True])
def test_a_string_depends_on_its_seeds_and_number_alone(unequal, monkeypatch):
    task = (4, 4, 3, 2, 3)
    frequencies = {1: zipf(3, 0.1)} if unequal else {}

    def of(seeds, data_seeds):
        return made(task, 1, seeds, data_seeds=data_seeds, frequencies=frequencies)

    model, i = of([5, 6, 6], [1, 1, 2]), torch.arange(40) + (TESTS if unequal else 0)
    whole = model.sample(i)
    for r, (seed, data_seed) in enumerate([(5, 1), (6, 1), (6, 2)]):
        assert of([seed], [data_seed]).sample(i).equals(whole.map(lambda t, r=r: t[r : r + 1]))
    i_RB = torch.stack([i, i.flip(0), i.roll(1)])
    assert torch.equal(model.sample(i_RB).x_RBD[1], whole.x_RBD[1].flip(0))
    assert model.sample(i[7:8]).equals(whole.map(lambda t: t[:, 7:8]))
    assert model.sample(i[:0]).x_RBD.shape == (3, 0, 64)
    monkeypatch.setattr(rhm.silence, "CHUNK", 1)
    assert model.sample(i).equals(whole)


@pytest.mark.parametrize(("v", "dtype"), [(255, torch.uint8), (256, torch.int16)])
def test_silence_has_a_symbol_of_its_own_whatever_the_vocabulary(v, dtype):
    model = made((v, 5, 5, 2, 2), 1)
    drawn = model.sample(torch.arange(300))
    assert {symbols.dtype for symbols in drawn.symbols} == {dtype}
    assert [found for found, _ in read_all(drawn, model)] == levels_of(model.grammar.sample(torch.arange(300)))
    assert model.parse(drawn.x_RBD).equals(drawn)
    assert model.unsilenced(drawn)[0].equals(model.grammar.sample(torch.arange(300)))


# -------------------------------------------------------------------- the way back


def test_parsing_gives_all_levels_back(model):
    drawn = model.sample(all_numbers(model))
    assert model.parse(drawn.x_RBD).equals(drawn)
    assert model.unsilenced(drawn)[0].equals(model.grammar.sample(all_numbers(model)))
    assert model.silenced(*model.unsilenced(drawn)).equals(drawn)


S = 3
"""Silence in the strings of the task below."""


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({5: 4}, "string 1 of replica 0: got token 4 at position 5, allowed: tokens in [0, 4), the last for silence"),
        ({5: -1}, "string 1 of replica 0: got token -1 at position 5"),
        ({0: 0, 1: 0}, "string 1 of replica 0: got 2 informative symbols of level 0 at tokens 0 to 1, allowed: one in each"),
        ({0: S, 1: S}, "string 1 of replica 0: got no informative symbols of level 0 at tokens 0 to 1"),
        (dict.fromkeys(range(4), S), "string 1 of replica 0: got no informative symbols of level 1 at tokens 0 to 7"),
        (dict.fromkeys(range(16), S), "string 1 of replica 0: got no informative symbols of level 1 at tokens 0 to 7"),
        ({4: 0, 6: 0}, "string 1 of replica 0: got 2 informative symbols of level 1 at tokens 0 to 7"),
        ({4: 0}, "string 1 of replica 0: got no informative symbols of level 0 at tokens 6 to 7"),
    ],
)
def test_what_is_no_string_is_refused_with_its_place(change, line):
    model = made(TINY, 1, seeds=(0,))
    x_RBD = strings_with_the_first_patch_informative(model).long()
    for position, token in change.items():
        x_RBD[0, 1, position] = token
    with pytest.raises(InvalidString) as caught:
        model.parse(x_RBD)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def strings_with_the_first_patch_informative(model):
    x_RBD = model.sample(torch.arange(16)).x_RBD
    return x_RBD[:, (x_RBD[0, :, :4] != S).any(1)]


def test_informative_tokens_that_the_grammar_does_not_have_are_refused():
    model = made(TINY, 1, seeds=(0,))
    x_RBD, rules = model.sample(torch.arange(16)).x_RBD.long(), rules_of(model.grammar)
    owned = {t for tuples in rules[1] for t in tuples}
    foreign = next((a, b) for a in range(3) for b in range(3) if (a, b) not in owned)
    first, second = (x_RBD[0, 4] != S).nonzero()[:2, 0].tolist()
    x_RBD[0, 4, first], x_RBD[0, 4, second] = foreign
    with pytest.raises(InvalidString) as caught:
        model.parse(x_RBD)
    assert str(caught.value) == (
        f"string 4 of replica 0: got the tuple {foreign} of level 0 at tokens 0 to 1, of the informative ones, "
        "allowed: tuples that a symbol of level 1 owns"
    )
    with pytest.raises(InvalidInput, match=r"x_RBD: got shape \[1, 16, 15\], allowed: \[R=1, B, \(s \(S0 \+ 1\)\)\*\*L=16\]"):
        model.parse(x_RBD[:, :, 1:])


# -------------------------------------------------------------------- other strings with the same symbols, or places

WIDE = ((8, 8, 4, 2, 3), 1)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_an_exchange_of_synonyms_moves_nothing(level):
    model = made(*WIDE)
    key, i = torch.arange(60)[None, :, None], torch.arange(60)
    before = model.sample(i)
    after = model.exchange(before, level, key)
    own, other = read_all(before, model), read_all(after, model)
    assert [places for _, places in own] == [places for _, places in other]
    exchanged = levels_of(model.grammar.exchange(model.grammar.sample(i), level, key))
    assert [found for found, _ in other] == exchanged
    assert model.parse(after.x_RBD).equals(after)
    rules = rules_of(model.grammar)
    for (levels, _), (others, _) in zip(own, other, strict=True):
        assert levels[level:] == others[level:]
        chosen, instead = (parse_all(rules, [found[0]])[0][1] for found in (levels, others))
        assert all((a == b) == (l != level) for l in (1, 2, 3) for a, b in zip(chosen[l - 1], instead[l - 1], strict=True))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_what_is_drawn_again_below_a_level_stands_anywhere_and_what_stays_does_not_move(level):
    model, count = made(*WIDE), 3000
    before = model.sample(torch.arange(count))
    after = model.resample(before, level, torch.arange(count)[None, :, None])
    assert model.parse(after.x_RBD).equals(after)
    for l in range(4):
        assert torch.equal(before.symbols[l], after.symbols[l]) == (l >= level)
    old, new = places_of(before, model), places_of(after, model)
    below = sum(2 ** (3 - l) for l in range(level))
    assert torch.equal(old[:, below:], new[:, below:])
    for node in range(below):
        assert_uniform(old[:, node] * 2 + new[:, node], 4)
        assert_uniform(new[:, node] * 2 + new[:, node - 1], 4)
    fresh = model.grammar.resample(model.grammar.sample(torch.arange(count)), level, torch.arange(count)[None, :, None])
    assert [found for found, _ in read_all(after, model)] == levels_of(fresh)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_symbols_that_move_are_the_same_and_of_one_level_alone(level):
    model, count = made(*WIDE), 3000
    before = model.sample(torch.arange(count))
    after = model.move(before, level, torch.arange(count)[None, :, None])
    own, other = read_all(before, model), read_all(after, model)
    assert [found for found, _ in own] == [found for found, _ in other]
    old, new = places_of(before, model), places_of(after, model)
    first = sum(2 ** (3 - l) for l in range(level - 1))
    moved = range(first, first + 2 ** (4 - level))
    for node in range(old.shape[1]):
        if node in moved:
            assert_uniform(old[:, node] * 2 + new[:, node], 4)
            assert node == first or assert_uniform(new[:, node] * 2 + new[:, node - 1], 4) is None
        else:
            assert torch.equal(old[:, node], new[:, node])
    alone = model.move(before.map(lambda t: t[:, 7:8]), level, torch.tensor([[[7]]]))
    assert alone.equals(after.map(lambda t: t[:, 7:8]))


@pytest.mark.parametrize("level", [0, 4])
def test_a_level_without_children_is_refused(level):
    model = made(*WIDE)
    with pytest.raises(InvalidInput, match=f"level: got {level}, allowed: a level from 1 to L=3"):
        model.move(model.sample(torch.arange(2)), level)


# -------------------------------------------------------------------- sizes that cannot be


@pytest.mark.parametrize(
    ("silent", "line"),
    [
        (-1, "silent: got -1, allowed: an integer of at least 0"),
        (True, "silent: got True, allowed: an integer of at least 0"),
        (1.0, "silent: got 1.0, allowed: an integer of at least 0"),
        (None, "silent: got None, allowed: an integer of at least 0"),
        (645, "silent: got 645, allowed: at most (s (silent + 1))**L = 2**31 tokens, they are 1292**3"),
    ],
)
def test_silent_positions_that_cannot_be_are_refused(silent, line):
    with pytest.raises(InvalidInput) as caught:
        SparseTask(Task(4, 3, 2, 2, 3), silent)
    assert str(caught.value) == line
    assert SparseTask(Task(4, 3, 2, 2, 3), 644).length == 1290**3 < 2**31 < 1292**3


def test_strings_in_a_row_are_strings():
    """The reader sees what is wrong: a symbol below silence, none in a sub-patch, two in one."""
    model = made(TINY, 1, seeds=(0,))
    good = levels_of(model.sample(torch.arange(1)))[0]
    assert strings(model.sample(torch.arange(1)).x_RBD[0])[0] == good[0]
    for position in range(16):
        tokens = list(good[0])
        tokens[position] = 0 if tokens[position] == 3 else 3
        with pytest.raises(AssertionError):
            read((tuple(tokens), *good[1:]), model.grammar.task, 1)

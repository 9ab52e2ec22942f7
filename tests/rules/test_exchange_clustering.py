"""Exchange clustering: gains, counts, turns, what it finds and what it refuses.

Shape suffixes: R replica, S codebooks, Y contexts, T cells, N cells that decide, K codes.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import astuple

import numpy as np
import pytest
import torch
from equations.ask import build
from equations.check import check, wanted
from equations.exchange import Belief, belief, drive, exchange, objective
from rule_helpers import compute, copied, from_settings, make_data, train

from datamodules import SiblingPairs
from networks import CodeNetwork
from rhm import InvalidInput
from rules import checking
from rules.dfa import DirectFeedbackAlignment
from rules.exchange_clustering import ExchangeClustering
from rules.maths.exchange import LARGEST_TABLE, Prior, drives, emission, expected, gains, redecide

A, K = 0.3, 3
LABEL = ("--model.label_context=true",)
ALL = torch.ones(1, 1, 1, dtype=torch.bool)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_counts(R: int = 2, S: int = 2, Y: int = 2, T: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Few counts, so that some cells stand beside themselves and some are never seen; codes of each codebook."""
    generator = torch.Generator().manual_seed(0)
    counts_RYTT = torch.poisson(torch.full((R, Y, T, T), 0.6, dtype=torch.float64), generator=generator)
    counts_RYTT[:, :, 5], counts_RYTT[:, :, :, 5] = 0, 0
    return counts_RYTT, torch.randint(K, (R, S, T), generator=generator)


def prior(counts_RYTT, codes_RST, codes: int = K, spare: bool = False) -> Prior:
    return Prior(counts_RYTT, codes_RST, codes, 1000, spare)


def beliefs(counts_RYTT, codes_RST, codes: int = K, spare: bool = False) -> list[list[Belief]]:
    """Of each codebook, by trying all."""
    R, S, _ = codes_RST.shape
    return [[belief(counts_RYTT[r].numpy(), codes_RST[r, s].numpy(), codes, spare) for s in range(S)] for r in range(R)]


def enumerated(counts_RYTT, codes_RST, under=None, codes: int = K, spare: bool = False) -> np.ndarray:
    """The objective of each codebook, by going through all pairs of cells."""
    R, S, _ = codes_RST.shape
    under = under or [[None] * S] * R
    every = list(np.ndindex(R, S))
    values = [objective(counts_RYTT[r].numpy(), codes_RST[r, s].numpy(), codes, under[r][s], spare) for r, s in every]
    return np.array(values).reshape(R, S)


def test_the_objective_is_that_of_a_loop_over_pairs_of_cells_and_the_prior_the_best_of_all():
    counts_RYTT, codes_RST = random_counts()
    counts_RYTT[1] *= torch.arange(7) % 3 * 4  # so that the two replicas want others
    ours, wanted_RS = prior(counts_RYTT, codes_RST), beliefs(counts_RYTT, codes_RST)
    np.testing.assert_allclose(ours.value_RS, enumerated(counts_RYTT, codes_RST), rtol=1e-12)
    for r, s in np.ndindex(ours.value_RS.shape):
        assert (ours.share_RS[r, s], ours.shape_RS[r, s], ours.even_RS[r, s]) == astuple(wanted_RS[r][s])[:3]
    assert len({one for of_replica in wanted_RS for one in of_replica}) > 2


def test_without_counts_nothing_is_believed_and_nothing_breaks():
    codes_RST = random_counts()[1]
    nothing = torch.zeros(2, 2, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(prior(nothing, codes_RST).value_RS, torch.zeros(2, 2), rtol=0, atol=1e-12)
    assert not gains(nothing, codes_RST, torch.arange(7).expand(2, 2, 7), K, prior(nothing, codes_RST)).any()


def test_codes_with_the_same_right_siblings_are_told_apart_by_how_often_they_are_right_siblings_themselves():
    """Codes 0 and 1, of cells 0 to 3, stand left of the same cells, and code 1 alone stands right of another, which seldom happens.

    A flat prior over a code's cells for either side by itself would hardly mind if they were one code.
    """
    counts_RYTT = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    counts_RYTT[..., :4, 4:] = 8
    counts_RYTT[..., 6:, 2:4] = 3
    apart, together = torch.tensor([[[0, 0, 1, 1, 2, 2, 3, 3]]]), torch.tensor([[[0, 0, 0, 0, 2, 2, 3, 3]]])
    larger, smaller = (prior(counts_RYTT, codes_RST, 8).value_RS.item() for codes_RST in (apart, together))
    assert larger > smaller + 1


@pytest.mark.parametrize("m", [2, 4, 6])
def test_what_is_believed_of_the_true_codes_is_what_the_grammar_is(m):
    """``m / v`` of the pairs of symbols occur; a symbol's rules are equally frequent, and with ``zipf`` they are not."""
    seeds = list(range(12))
    for frequencies, even in ({}, True), ({"zipf": 1.0}, False):
        data = make_data(SiblingPairs(), v=8, n=8, m=m, L=3, seeds=seeds, **frequencies)
        symbols = [level_RBD.long() for level_RBD in data.strings(torch.arange(1000)).symbols]
        cells_RBD = symbols[0][..., ::2] * 8 + symbols[0][..., 1::2]
        counts_RT = torch.zeros(len(seeds), 64 * 64, dtype=torch.float64)
        pair_RP = (cells_RBD[..., ::2] * 64 + cells_RBD[..., 1::2]).flatten(1)
        counts_RYTT = counts_RT.scatter_add_(1, pair_RP, torch.ones(pair_RP.shape)).view(-1, 1, 64, 64)
        codes_RT = torch.zeros(len(seeds), 64, dtype=torch.long).scatter_(1, cells_RBD.flatten(1), symbols[1].flatten(1))
        found = Prior(counts_RYTT, codes_RT[:, None], 8, 4000)
        assert ((found.share_RS / (m / 8)).log2().abs() <= 1 / 4 + 1e-9).double().mean() > (0.9 if even else 0.5), (
            found.share_RS
        )
        assert (found.even_RS >= 32).all() if even else (found.even_RS <= 8).all(), found.even_RS


def test_what_is_looked_up_is_what_is_computed():
    counts_RYTT, codes_RST = random_counts()
    cells_RSN = torch.arange(7).expand(2, 2, 7)
    priors = [Prior(counts_RYTT, codes_RST, K, largest) for largest in (100, LARGEST_TABLE)]
    looked_up, computed = ([one.value_RS, gains(counts_RYTT, codes_RST, cells_RSN, K, one)] for one in priors)
    torch.testing.assert_close(looked_up, computed, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("codes", "spare"), [(K, False), (K, True), (6, True)])
def test_gains_are_differences_of_the_enumerated_objective(codes, spare):
    """Of every cell and code, whether cells stand beside themselves, in their own code or not; under the prior of the codes before.

    With six codes three are spare, and a cell that takes one makes more pairs possible.
    """
    counts_RYTT, codes_RST = random_counts()
    R, S, T = codes_RST.shape
    assert counts_RYTT.diagonal(dim1=2, dim2=3).any()
    cells_RSN = torch.arange(T).flip(0).expand(R, S, T)
    found = gains(counts_RYTT, codes_RST, cells_RSN, codes, prior(counts_RYTT, codes_RST, codes, spare)).numpy()
    under = beliefs(counts_RYTT, codes_RST, codes, spare)
    for n, cell in enumerate(reversed(range(T))):
        values = []
        for k in range(codes):
            other = codes_RST.clone()
            other[:, :, cell] = k
            values.append(enumerated(counts_RYTT, other, under, codes, spare))
        change = np.stack(values, -1)
        ours = found[:, :, n]
        np.testing.assert_allclose(ours - ours[..., :1], change - change[..., :1], rtol=1e-9, atol=1e-9)


def test_without_noise_the_objective_never_falls_where_one_cell_decides_at_a_time():
    """Neither by a cell's decision nor by what is then believed."""
    counts_RYTT, codes_RST = random_counts()
    R, S, T = codes_RST.shape
    values, moves = [enumerated(counts_RYTT, codes_RST)], 0
    for turn in range(6 * T):
        before = codes_RST
        cells_RSN = torch.full((R, S, 1), turn % T)
        value_RSNK = gains(counts_RYTT, codes_RST, cells_RSN, K, prior(counts_RYTT, codes_RST))
        codes_RST = redecide(counts_RYTT, codes_RST, cells_RSN, ALL, value_RSNK)
        values.append(enumerated(counts_RYTT, codes_RST))
        changed = (codes_RST != before).any(-1).numpy()
        assert (codes_RST != before).sum(-1).max() <= 1
        assert (values[-1] - values[-2] > 1e-9)[changed].all()
        moves += int(changed.sum())
    assert moves > 8
    last, under = values[-1], beliefs(counts_RYTT, codes_RST)
    for cell in range(T):  # no single move is better
        for k in range(K):
            other = codes_RST.clone()
            other[:, :, cell] = k
            assert (enumerated(counts_RYTT, other, under) <= last + 1e-9).all()


@pytest.mark.parametrize("own_share", [False, True])
def test_drives_are_sums_over_siblings_of_the_logarithms_of_what_stands_beside_a_code(own_share):
    """Pair by pair: each sibling of a cell says how often its code stood beside a code, of all that stood there."""
    counts_RYTT, codes_RST = random_counts()
    R, S, T = codes_RST.shape
    cells_RSN = torch.arange(T).flip(0).expand(R, S, T)
    found = drives(counts_RYTT, codes_RST, cells_RSN, K, A, own_share).numpy()
    for r, s, n in np.ndindex(R, S, T):
        cell, counts_YTT = T - 1 - n, counts_RYTT[r].numpy().copy()
        all_YTT = counts_YTT.copy()
        if not own_share:
            counts_YTT[:, cell], counts_YTT[:, :, cell] = 0, 0
        for k in range(K):
            np.testing.assert_allclose(found[r, s, n, k], drive(counts_YTT, all_YTT, codes_RST[r, s].numpy(), cell, k, K, A))


class Flat:
    """A prior under which all pairs of codes occur, and a code's cells have any probabilities."""

    def of_pairs(self, count: torch.Tensor) -> torch.Tensor:
        return torch.lgamma(count + A) - math.lgamma(A)

    def of_cells(self, cells: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        return emission(cells, count)

    def of_codes(self, others: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(others)


def test_drives_are_gains_to_first_order_of_a_cells_counts():
    """Of a cell that was seen once on either side: but for ``ln n / (n + c)`` of a code's ``n`` cells and ``c`` counts."""
    generator = torch.Generator().manual_seed(0)
    rate = 60.0 * 10 ** torch.rand(1, 1, 12, 12, generator=generator)  # so that codes differ in what stands beside them
    counts_RYTT = torch.poisson(rate.double(), generator=generator)
    counts_RYTT[:, :, 0], counts_RYTT[:, :, :, 0] = 0, 0
    counts_RYTT[0, 0, 0, 3], counts_RYTT[0, 0, 4, 0] = 1, 1
    codes_RST = torch.arange(12)[None, None] % K
    cells_RSN = torch.zeros(1, 1, 1, dtype=torch.long)
    ours = drives(counts_RYTT, codes_RST, cells_RSN, K, A, False)
    exact = gains(counts_RYTT, codes_RST, cells_RSN, K, Flat())
    without_YTT = counts_RYTT[0].clone()
    without_YTT[:, 0], without_YTT[:, :, 0] = 0, 0
    member_TK = torch.nn.functional.one_hot(codes_RST[0, 0], K).double()
    cells_K = member_TK[1:].sum(0)
    count_K = (without_YTT.sum((0, 2)) + without_YTT.sum((0, 1))) @ member_TK
    ours = ours + (cells_K / (cells_K + count_K)).log()
    assert (exact - exact[..., :1]).abs().max() > 0.05
    torch.testing.assert_close(ours - ours[..., :1], exact - exact[..., :1], rtol=0, atol=0.01)


def test_a_cell_that_was_never_seen_keeps_its_code():
    counts_RYTT, codes_RST = random_counts()
    value_RSNK = torch.tensor([0.0, 0.0, 1.0]).expand(2, 2, 1, 3)
    after = redecide(counts_RYTT, codes_RST, torch.full((2, 2, 1), 5), ALL, value_RSNK)
    assert torch.equal(after, codes_RST) and not (codes_RST[:, :, 5] == 2).all()


@pytest.mark.parametrize("name", ["exchange_clustering", "exchange_clustering_label"])
@pytest.mark.parametrize("steps", [1, 4, 5])
def test_later_steps_are_the_equations_too(name, steps):
    """With a turn of 4 steps of 6 strings: the second epoch of 10 strings is no longer counted, then the second layer's turn begins."""
    args = ("--data.train_size=10", "--model.turn=4", "--model.temperature=0.3", "--model.fraction=1.0")
    rule = build(name, *args)
    train(rule, steps=steps)
    check(rule, wanted(exchange(steps, sizes=(10, 6)), rule, name, args))


RETURNS = ("--data.train_size=10", "--model.turn=4", "--model.temperature=0.3", "--model.falling=1.0", "--model.returns=2")


@pytest.mark.parametrize("steps", [4, 8, 9, 12, 17, 24])
def test_further_turns_are_the_equations_too(steps):
    """Layers 1 and 2, and twice again: the first one's pairs are counted by the code that their parent is expected to have."""
    rule = build("exchange_clustering_label", *RETURNS)
    train(rule, steps=steps)
    check(rule, wanted(exchange(steps, sizes=(10, 6)), rule, "exchange_clustering_label", RETURNS))


def test_what_is_expected_of_a_sibling_is_what_stands_beside_the_other_one():
    """Three contexts of four codes, of which some pairs are equally frequent and some have never been seen."""
    generator = torch.Generator().manual_seed(1)
    joint_RYKK = torch.randint(4, (2, 3, 4, 4), generator=generator).double() * torch.randint(
        2, (2, 3, 4, 4), generator=generator
    )
    y_RB1, codes_RBD = torch.randint(3, (2, 9, 1), generator=generator), torch.randint(4, (2, 9, 6), generator=generator)
    found_RBD, known_RBD = expected(joint_RYKK, y_RB1, codes_RBD)
    assert 0.2 < known_RBD.double().mean() < 0.8
    for r, b, d in np.ndindex(2, 9, 6):
        joint_KK, codes_D = joint_RYKK[r, y_RB1[r, b, 0]], codes_RBD[r, b]
        beside_K = joint_KK[codes_D[d - 1]] if d % 2 else joint_KK[:, codes_D[d + 1]]
        best, second = sorted(beside_K.tolist(), reverse=True)[:2]
        assert known_RBD[r, b, d] == (best >= max(1, 2 * second))
        if known_RBD[r, b, d]:
            assert found_RBD[r, b, d] == beside_K.argmax()


def returning(seeds, **more) -> ExchangeClustering:
    """A rule with four turns of one step, of which half are further turns."""
    settings = {"network": CodeNetwork(width=12, bottleneck="v"), "label_context": True, "turn": 1, "returns": 1}
    return ExchangeClustering(**settings).prepare(make_data(SiblingPairs(), seeds=seeds, **more))


def test_further_turns_of_replicas_are_those_of_each_alone_and_resume_exactly():
    assert not checking.replicas(returning)
    assert not checking.resume(returning)
    assert not checking.copies(returning(checking.SEEDS))


@torch.no_grad()
def test_in_a_further_turn_the_layer_above_is_seen_and_else_it_is_not():
    """Other codes of layer 2 change what is counted of layer 1 in its further turn alone."""
    args = ("--model.turn=4", "--model.returns=1", "--data.train_size=64")
    for steps, seen in (2, False), (9, True):
        rule = from_settings("exchange_clustering_label", *args)
        train(rule, steps=steps)
        other = copied(rule)
        other.table(2).codes_RST.copy_((other.table(2).codes_RST.flip(-1) + 1) % 4)
        one, two = (r.layer_updates(compute(r)).estimates["network.layers.0.code.counts_RYTT"] for r in (rule, other))
        assert torch.equal(one, two) != seen
        assert rule.locality.other_layers and not from_settings("exchange_clustering_label").locality.other_layers


@pytest.mark.chaos
def test_further_turns_find_codes_that_the_first_ones_miss():
    """Five synonyms of six symbols at 340 strings, too few for layer 1 by its siblings alone."""
    task = ("--data.v=6", "--data.n=6", "--data.m=5", "--data.train_size=340", "--data.batch_size=170", "--model.turn=40")
    found = []
    for returns in 0, 2:
        rule = from_settings("exchange_clustering_label", *task, f"--model.returns={returns}", seeds=range(8))
        train(rule, steps=40 * (2 + 2 * returns))
        found.append(purity(rule))
    assert found[1].mean() > found[0].mean() + 0.05, found


def counted(rule: ExchangeClustering, steps: int) -> list[torch.Tensor]:
    """The counts of each layer after some steps."""
    train(rule, steps=steps)
    return [rule.table(k).get_buffer("counts_RYTT") for k in range(1, rule.trained_layers + 1)]


def pairs_of(rule: ExchangeClustering, symbols) -> Counter:
    """Pairs of the first layer's cells in strings ``[P, D]`` of tokens."""
    v = rule.data.task.v
    cells = [[v * int(a) + int(b) for a, b in zip(string[::2], string[1::2], strict=True)] for string in symbols]
    return Counter((left, right) for string in cells for left, right in zip(string[::2], string[1::2], strict=True))


@pytest.mark.parametrize("size", [5, 16, 37, 64])
def test_each_string_is_counted_once_however_often_it_is_shown(size):
    """In every layer's turn, wherever in an epoch it starts; with 64, an epoch ends with the second turn."""
    rule = from_settings("exchange_clustering", f"--data.train_size={size}", "--model.turn=6", seeds=(0, 1))
    first, second = counted(rule, 12)
    assert first.sum((1, 2, 3)).tolist() == [2 * size] * 2 and second.sum((1, 2, 3)).tolist() == [size] * 2
    strings = rule.data.grammar.sample(torch.arange(size)).x_RBD
    for r in range(2):
        found = {(int(a), int(b)): int(first[r, 0, a, b]) for a, b in first[r, 0].nonzero()}
        assert found == pairs_of(rule, strings[r])
    state = rule.network(strings)[1]
    active = rule.network.layers[1].by_position(state.units_RGME, state).argmax(-1)
    for r in range(2):
        found = {(int(a), int(b)): int(second[r, 0, a, b]) for a, b in second[r, 0].nonzero()}
        assert found == Counter((int(left), int(right)) for left, right in active[r])


def test_replicas_with_other_sizes_and_an_endless_stream_count_what_they_are_shown():
    rule = from_settings("exchange_clustering", "--data.train_size=[8,60]", "--model.turn=3", seeds=(0,))
    assert counted(rule, 3)[0].sum((1, 2, 3)).tolist() == [16, 96]  # 48 strings are shown
    rule = from_settings("exchange_clustering", "--data.train_size=null", "--model.turn=3", seeds=(0,))
    assert [int(counts.sum()) for counts in counted(rule, 6)] == [96, 48]


def test_the_class_is_the_context_of_the_top_layer_alone():
    """At the top layer, each class has the counts of its strings."""
    rule = from_settings("exchange_clustering_label", "--model.turn=6", "--data.train_size=40", seeds=(0, 1))
    first, second = counted(rule, 12)
    assert first.shape[1] == 1 and second.shape[1] == rule.data.task.n
    y_RB = rule.data.grammar.sample(torch.arange(40)).y_RB
    for r in range(2):
        assert second[r].sum((1, 2)).tolist() == torch.bincount(y_RB[r].long(), minlength=4).tolist()


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_layers_learn_one_after_another(steps):
    """With turns of 2 steps: 0 and 1 are the first layer's, 2 and 3 the second's; the layer above and the readout always learn."""
    states = []
    for n in (steps - 1, steps):
        rule = from_settings("exchange_clustering", "--model.turn=2")
        states.append({key: value.clone() for key, value in (train(rule, steps=n) if n else rule.state_dict()).items()})
    moved = {key for key in states[0] if not torch.equal(states[0][key], states[1][key]) and not key.startswith("accuracy")}
    turn = (steps - 1) // 2
    assert {key for key in moved if ".code." in key} == {key for key in states[0] if f"layers.{turn}.code." in key}
    assert moved >= {"readout.weight_RFN", "network.layers.2.weight_RGFE"}
    assert not any("layers.0.weight" in key or "layers.1.weight" in key for key in moved)


@pytest.mark.parametrize(
    ("args", "key", "allowed"),
    [
        (("--model.turn=0",), "model.turn", "at least 1"),
        (("--model.fraction=0",), "model.fraction", "above 0"),
        (("--model.falling=1.5",), "model.falling", "at most 1"),
        (("--model.temperature=-1",), "model.temperature", "at least 0"),
        (("--model.pseudo_counts=0",), "model.pseudo_counts", "above 0"),
        (("--model.drive=loss",), "model.drive", "one of gain, weights, own_weights"),
        (("--model.drive=weights", "--model.spare_codes=true"), "model.spare_codes", "false with model.drive=weights"),
        (("--model.returns=-1",), "model.returns", "at least 0"),
        (("--model.returns=1",), "model.returns", "0 without model.label_context"),
        ((*LABEL, "--model.returns=1", "--model.one_by_one=false"), "model.returns", "without model.one_by_one"),
        ((*LABEL, "--model.returns=1", "--model.network.depth=2"), "model.returns", "0 for 1 layer with siblings"),
        ((*LABEL, "--model.returns=1", "--data.s=3", "--data.m=3"), "model.returns", "0 for tuples of 3"),
        (("--model.network.bottleneck=1",), "model.network.bottleneck", "at least 2 codes"),
        (("--model.network.codebooks=0",), "model.network.codebooks", "at least 1"),
        (("--model.network.most_cells=0",), "model.network.most_cells", "at least 1"),
        (("--model.network.bottleneck=40",), "model.network.most_cells", "at least the 40**2 = 1600 cells of layer 2"),
        (
            ("--model.network.most_cells=15",),
            "model.network.most_cells",
            "at least the 4**2 = 16 cells of layer 1, or a smaller data.v",
        ),
        (("--data.pairs=ClassPairs",), "data.pairs", "SiblingPairs"),
        (("--model.network.depth=1",), "data.pairs", "layers with siblings"),
    ],
)
def test_refusals(args, key, allowed):
    with pytest.raises(Exception) as error:
        from_settings("exchange_clustering", *args)
    assert key in str(error.value) and allowed in str(error.value)


def test_a_class_as_context_needs_labels():
    with pytest.raises(InvalidInput, match="data.labels: got False, allowed: true for ExchangeClustering"):
        from_settings("exchange_clustering_label", "--data.labels=false")
    with pytest.raises(InvalidInput, match="data.label_size"):
        from_settings("exchange_clustering_label", "--data.label_size=16")
    assert from_settings("exchange_clustering", "--data.labels=false").supervision == "none"


def test_codes_go_only_where_they_can_be_handed_on():
    with pytest.raises(InvalidInput, match="model.network: got HierarchicalNetwork, allowed: CodeNetwork"):
        ExchangeClustering()
    with pytest.raises(InvalidInput, match="model.network: got CodeNetwork, allowed: a network without codes for DirectFeed"):
        DirectFeedbackAlignment(CodeNetwork()).prepare(make_data())
    rule = from_settings("exchange_clustering")
    state = compute(rule).states[0]
    with pytest.raises(InvalidInput, match="model.network: got CodeNetwork, allowed: a network without codes"):
        rule.network.layers[0].backward(state, torch.ones_like(state.out_RBDC))
    assert CodeNetwork(bottleneck="2v").handed_on(from_settings("exchange_clustering").data.task) == 8


def test_the_codebook_with_the_largest_objective_is_handed_on():
    """Not the same one in all replicas and layers."""
    rule = from_settings("exchange_clustering", "--model.turn=6")
    train(rule, steps=12)
    chosen = set()
    for k in (1, 2):
        table = rule.table(k)
        for value_S, codes_ST, handed_on_T in zip(table.objective_RS, table.codes_RST, table.handed_on_RT, strict=True):
            best = int(value_S.argmax())
            assert torch.equal(handed_on_T, codes_ST[best])
            chosen.add(best)
    assert len(chosen) > 1


def test_a_layer_finds_the_symbols_of_its_tuples():
    """Four symbols with two synonyms each: the codes of the first layer are the symbols, but for names."""
    task = ("--data.train_size=256", "--data.batch_size=64", "--data.L=4", "--model.turn=30")
    rule = from_settings("exchange_clustering", *task, seeds=(0, 1, 2, 3))
    before = purity(rule)
    train(rule, steps=30)
    assert (purity(rule) == 1).all() and (before < 0.9).all(), (before, purity(rule))


@torch.no_grad()
def purity(rule, level: int = 1) -> torch.Tensor:
    """The share of a level's symbols that is right if each code stands for its commonest symbol, ``[R]``."""
    batch, v = rule.data.train_batch(0), rule.data.task.v
    codes = rule.network(batch.x_RBD)[level - 1].out_RBDC.argmax(-1)
    table = torch.zeros(len(codes), v, v)
    for r, (code, symbol) in enumerate(zip(codes, batch.derivation.symbols[level], strict=True)):
        table[r].index_put_((code.flatten(), symbol.flatten().long()), torch.tensor(1.0), accumulate=True)
    return table.amax(-1).sum(-1) / table.sum((-1, -2))


def test_a_run_that_is_too_short_says_so():
    with pytest.warns(UserWarning, match="leaves layers untrained: 2 turns of 3 steps need 6"):
        train(from_settings("exchange_clustering", "--model.turn=3"), steps=2)
    with pytest.warns(UserWarning, match=r"shows a layer 48 strings, fewer than the 64 of data.train_size"):
        train(from_settings("exchange_clustering", "--model.turn=3"), steps=6)


def test_codes_start_uniform_and_differ_between_replicas_layers_and_codebooks():
    rule = from_settings("exchange_clustering", "--data.v=8", "--data.n=8", "--model.network.bottleneck=8", seeds=range(8))
    tables = torch.stack([rule.table(k).codes_RST for k in (1, 2)])
    share = torch.bincount(tables.flatten()) / tables.numel()
    assert len(share) == 8 and ((share - 1 / 8).abs() < 5 * math.sqrt(7 / 64 / tables.numel())).all()
    assert len(tables.flatten(0, 2).unique(dim=0)) == 2 * 8 * 4


def test_the_active_cell_is_that_of_the_tuple():
    """Exactly one unit answers, 1, in every layer, in float32 too; the others are silent."""
    torch.set_default_dtype(torch.float32)
    rule = from_settings("exchange_clustering", "--model.network.bottleneck=5", "--data.s=3", "--data.m=3")
    batch = rule.data.train_batch(0)
    v = rule.data.task.v
    first = rule.network(batch.x_RBD)[0]
    units = rule.network.layers[0].by_position(first.units_RGME, first)
    tuples = batch.x_RBD.long().unflatten(2, (-1, 3))
    wanted_units = torch.nn.functional.one_hot((tuples[..., 0] * v + tuples[..., 1]) * v + tuples[..., 2], v**3)
    torch.testing.assert_close(units, wanted_units.float(), rtol=0, atol=1e-5)
    for state in rule.network(batch.x_RBD)[:2]:
        assert ((state.units_RGME > 0.5).sum(-1) == 1).all() and ((state.units_RGME > 1e-4).sum(-1) == 1).all()

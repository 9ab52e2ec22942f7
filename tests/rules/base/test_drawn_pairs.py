"""Pairs that are drawn anew in each step: random halves of a layer, and two masked copies of each string.

Shape suffixes: R replica, B batch, D position, C channel, F feature.
"""

from __future__ import annotations

import pytest
import torch
from rule_helpers import compute, from_settings, make_data, said, same, train, updates

from datamodules import MaskedPairs, RandomHalfPairs
from networks import HierarchicalNetwork, VectorNetwork
from rhm import InvalidInput
from rules import checking
from rules.base.block import Block
from rules.base.perturbed import scrambled, shake
from rules.clapp import CLAPP
from rules.contrastive import LayerwiseContrastive
from rules.vicreg import VICReg

DRAWN = ["--data.pairs=RandomHalfPairs", "--data.pairs=MaskedPairs"]


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# -------------------------------------------------------------------- what a layer sees


@pytest.mark.parametrize("pairs", DRAWN)
@pytest.mark.parametrize("name", ["clapp", "sibling_contrastive", "barlow_twins", "byol"])
def test_an_update_depends_on_what_the_rules_locality_allows_and_on_nothing_else(name, pairs):
    rule = from_settings(name, pairs)
    shake(rule)
    assert not [finding for finding in checking.locality(rule) if not finding.ok]


@pytest.mark.parametrize("name", ["clapp", "sibling_contrastive", "barlow_twins"])
def test_the_partner_is_the_other_copy(name):
    rule = from_settings(name, "--data.pairs=MaskedPairs")
    shake(rule)
    assert checking.partners(rule).ok


@torch.no_grad()
def test_masked_pairs_show_hidden_layers_the_copies_alone_and_the_readout_the_string_alone():
    rule = from_settings("clapp", "--data.pairs=MaskedPairs")
    shake(rule)
    step = compute(rule)
    out_RBDC = rule.network(step.batch.x_RBD)[-1].out_RBDC
    torch.testing.assert_close(step.readout.features_RBF, out_RBDC.flatten(2))
    own = rule.updates(step).layers
    whole = step._replace(states=[scrambled(state) for state in step.states])
    assert all(same(rule.layer_updates(whole).layers, own[:-1]))
    copies = [[scrambled(state) for state in states] for states in (step.first_states, step.view_states)]
    other = rule.updates(step._replace(first_states=copies[0], view_states=copies[1])).layers
    assert not any(same(other[:-1], own[:-1])) and all(same(other[-1:], own[-1:]))


@torch.no_grad()
@pytest.mark.parametrize("network", [HierarchicalNetwork(width=12, bottleneck=4), VectorNetwork(width=6)])
def test_a_copy_says_nothing_of_what_it_hides(network):
    rule = CLAPP(network).prepare(make_data(MaskedPairs()))
    step = compute(rule)
    x_RBD, half_RBD = step.batch.x_RBD, step.batch.half_RBD
    for hidden_RBD, copy, other in (~half_RBD, "first_states", "view_states"), (half_RBD, "view_states", "first_states"):
        exchanged = step.batch._replace(x_RBD=torch.where(hidden_RBD, x_RBD.roll(1, 1), x_RBD))
        after = rule.compute(exchanged)
        outs = [[states.out_RBDC for states in getattr(of, copy)] for of in (step, after)]
        assert all(torch.equal(a, b) for a, b in zip(*outs, strict=True))
        assert not torch.equal(getattr(step, other)[0].out_RBDC, getattr(after, other)[0].out_RBDC)


@torch.no_grad()
def test_each_layer_step_and_replica_has_a_half_of_its_own():
    rule = CLAPP(HierarchicalNetwork(width=12)).prepare(make_data(RandomHalfPairs()))
    halves = set()
    for number in range(3):
        step = compute(rule, number)
        for k in range(1, 4):
            first, second = (sides.abs().sum((1, 2)) > 0 for sides in rule.positives(step, [torch.ones(3, 16, 2, 12)], k))
            assert torch.equal(first, ~second) and first.sum(1).tolist() == [6] * 3
            halves |= {tuple(row) for row in first.tolist()}
    assert len(halves) > 24  # of 27, where one of 924 each is drawn


# -------------------------------------------------------------------- a function of replica and step


@pytest.mark.parametrize("pairs", DRAWN)
def test_replicas_train_as_they_would_alone_and_a_run_goes_on_exactly(pairs):
    for name in "clapp", "vicreg":
        assert not checking.replicas(lambda seeds, name=name: from_settings(name, pairs, seeds=seeds))
        assert not checking.resume(lambda seeds, name=name: from_settings(name, pairs, seeds=seeds))


@pytest.mark.parametrize("pairs", DRAWN)
def test_several_steps_a_call_are_steps_one_by_one(pairs):
    found = []
    for each in 1, 3:
        rule = from_settings("clapp", pairs)
        rule.steps_per_call = each
        found.append({key: value.clone() for key, value in train(rule).items()})
    assert all(torch.equal(value, found[1][key]) for key, value in found[0].items())


@pytest.mark.parametrize("pairs", DRAWN)
def test_pairs_are_drawn_anew_in_each_step_for_the_same_strings(pairs):
    rule = from_settings("clapp", pairs, "--data.train_size=16")  # an epoch a step
    first, second = (compute(rule, step) for step in (0, 1))
    again = rule.compute(first.batch)
    assert all(same(updates(rule, first), updates(rule, again)))
    moved = rule.compute(first.batch._replace(key_RB=second.batch.key_RB, half_RBD=second.batch.half_RBD))
    assert not any(same(updates(rule, first), updates(rule, moved)))


# -------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda: VICReg(HierarchicalNetwork(12)), "RandomHalfPairs for VICReg, whose loss takes the sides channel by channel"),
        (lambda: LayerwiseContrastive(HierarchicalNetwork(12), score="cosine"), "RandomHalfPairs for LayerwiseContrastive"),
        (lambda: CLAPP(HierarchicalNetwork(12, bottleneck=1)), "RandomHalfPairs with 1 channels"),
    ],
)
def test_random_halves_that_a_loss_could_not_compare_are_refused_in_a_line(make, got):
    with pytest.raises(InvalidInput) as error:
        make().prepare(make_data(RandomHalfPairs()))
    assert error.value.key == "data.pairs" and str(error.value).startswith(f"data.pairs: got {got}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [VICReg, LayerwiseContrastive])
def test_with_a_head_they_are_learned_from(kind):
    score = {"score": "cosine"} if kind is LayerwiseContrastive else {}
    rule = kind(HierarchicalNetwork(12), block=Block(head=5), **score).prepare(make_data(RandomHalfPairs()))
    assert all(grad.isfinite().all() and grad.any() for layer in said(rule, compute(rule)).layers for grad in layer.values())

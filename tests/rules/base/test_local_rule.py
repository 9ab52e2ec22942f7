"""The contract of the rules, each against something that does not use the rule's own code.

Shape suffixes: R replica, B batch, D position, C channel, N classes.
"""

from __future__ import annotations

import pytest
import torch
from rule_helpers import compute, make_data, same, train, updates
from torch import Tensor

from datamodules import ClassPairs, HalfPairs, SiblingPairs, SynonymPairs
from networks import DenseNetwork, HierarchicalNetwork
from rhm import InvalidInput
from rules import LocalRule, Step
from rules.backprop import Backprop
from rules.base.block import Block
from rules.base.local_rule import clip_by_replica
from rules.contrastive import LayerwiseContrastive
from rules.dfa import DirectFeedbackAlignment

CASES = {
    "backprop": (Backprop, None),
    "dfa": (DirectFeedbackAlignment, None),
    "siblings": (LayerwiseContrastive, SiblingPairs()),
    "class pairs": (LayerwiseContrastive, ClassPairs()),
    "synonym pairs": (LayerwiseContrastive, SynonymPairs(2)),
    "half pairs": (LayerwiseContrastive, HalfPairs()),
}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_rule(case: str, network=None, seeds=(0, 1, 2), data=None, **kwargs) -> LocalRule:
    kind, pairs = CASES[case]
    network = network or HierarchicalNetwork(width=12, bottleneck=6)
    return kind(network=network, **kwargs).prepare(data or make_data(pairs, seeds))


# -------------------------------------------------------------------- locality beyond what holds for every rule


@torch.no_grad()
def with_other_labels(rule: LocalRule, step: Step) -> Step:
    return rule.compute(step.batch._replace(y_RB=(step.batch.y_RB + 1) % rule.data.task.n))


def test_a_layerwise_rule_trains_a_layer_alike_whatever_stands_above():
    deep, shallow = (make_rule("siblings", HierarchicalNetwork(12, depth=depth, bottleneck=6)) for depth in (3, 2))
    ours, theirs = updates(deep, compute(deep))[0], updates(shallow, compute(shallow))[0]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_labels_reach_the_readout_but_no_hidden_layer_of_a_layerwise_rule():
    rule = make_rule("siblings")
    step = compute(rule)
    with torch.no_grad():
        before, after = rule.updates(step).layers, rule.updates(with_other_labels(rule, step)).layers
    assert same(before, after) == [True, True, False, False]  # layers 1 and 2; the readout's block; the readout


@pytest.mark.parametrize("expansion", ["backprop", "random", "local"])
def test_only_backprop_inside_a_layer_takes_the_units_signal_through_the_projection(expansion):
    rule = make_rule("siblings", block=Block(expansion=expansion))
    step = compute(rule)
    before = updates(rule, step)
    with torch.no_grad():
        rule.network.layers[0].projection_RGEC.mul_(-0.5).add_(0.1)
    after = updates(rule, step)
    if expansion == "random":
        assert "weight_RGFE" not in before[0] and not any(
            rule.updates(step).layers[2]
        )  # nor does the layer above the last pair
    else:
        assert torch.equal(before[0]["weight_RGFE"], after[0]["weight_RGFE"]) == (expansion == "local")
    assert torch.equal(before[0]["projection_RGEC"], after[0]["projection_RGEC"])


# -------------------------------------------------------------------- training


def test_replicas_of_unequal_training_size_train_as_they_would_alone():
    together = train(make_rule("backprop", data=make_data(seeds=(0, 1), train_size=[20, 64])))
    for r, (seed, size) in enumerate([(0, 20), (0, 64), (1, 20), (1, 64)]):
        alone = train(make_rule("backprop", data=make_data(seeds=(seed,), train_size=size)))
        for name, value in alone.items():
            torch.testing.assert_close(together[name][r : r + 1] if name[0] != "a" else value, value, rtol=1e-8, atol=1e-10)


@torch.no_grad()
def rule_losses(rule: LocalRule) -> dict[str, Tensor]:
    """Of the first batch, with the weights as they are."""
    return rule.updates(compute(rule)).losses


@pytest.mark.parametrize("case", CASES)
def test_training_lowers_the_rules_own_loss_and_all_its_layers_move(case):
    rule = make_rule(case, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
    before = {name: value.clone() for name, value in rule.state_dict().items()}
    first = rule_losses(rule)
    train(rule, 1)
    for name, parameter in rule.named_parameters():
        trained = not (name.endswith("projection_RGEC") and parameter is None)
        assert torch.equal(parameter, before[name]) != trained, name
    rule = make_rule(case, optimizer=lambda p: torch.optim.Adam(p, lr=3e-3))
    train(rule, 100)
    for name, value in rule_losses(rule).items():
        assert value.mean() < first[name].mean(), name


def test_clipping_bounds_each_layer_of_each_replica_by_itself():
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(3, 1, 4, 5, generator=generator), torch.randn(3, 1, 5, generator=generator)]
    exact[0][0] *= 100
    exact[0][2], exact[1][2] = exact[0][2] * 1e-4, exact[1][2] * 1e-4
    clipped = [grad.clone() for grad in exact]
    clip_by_replica(clipped, 1e-2)
    norm_R = torch.cat([grad.flatten(1) for grad in clipped], 1).norm(dim=1)
    torch.testing.assert_close(norm_R, torch.tensor([1e-2, 1e-2, norm_R[2]]))
    assert norm_R[2] < 1e-2 and torch.equal(clipped[0][2], exact[0][2])
    torch.testing.assert_close(clipped[0][0] / clipped[1][0].norm(), exact[0][0] / exact[1][0].norm())


def test_one_parameter_group_a_layer():
    groups = make_rule("siblings").configure_optimizers().param_groups
    assert [group["name"] for group in groups] == ["layer1", "layer2", "layer3", "readout"]
    assert len(groups[0]["params"]) == 4  # weight, bias, projection, predictor


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: make_rule("siblings", data=make_data(None)), "data.pairs"),
        (lambda: make_rule("siblings", DenseNetwork(12)), "data.pairs"),
        (lambda: make_rule("siblings", HierarchicalNetwork(12, depth=1)), "data.pairs"),
        (lambda: make_rule("half pairs", HierarchicalNetwork(13)), "data.pairs"),
        (lambda: make_rule("backprop", HierarchicalNetwork(12, depth=4)), "model.network.depth"),
        (lambda: make_rule("backprop", HierarchicalNetwork(12, patch=3)), "model.network.patch"),
        (lambda: make_rule("backprop", clip=0.0), "model.clip"),
        (lambda: make_rule("dfa", feedback_scale=0.0), "model.feedback_scale"),
        (lambda: make_rule("siblings", temperature=0.0), "model.temperature"),
        (lambda: Block(head=0).check(), "model.block.head"),
        (lambda: Block(separate_heads=True).check(), "model.block.separate_heads"),
        (lambda: Block(expansion="none").check(), "model.block.expansion"),
        (lambda: Block(expansion="random", end_to_end=True).check(), "model.block.expansion"),
        (lambda: Block(all_losses=True).check(), "model.block.all_losses"),
        (lambda: make_rule("siblings", score="dot"), "model.score"),
    ],
)
def test_what_a_rule_cannot_have_is_refused_by_name(build, key):
    with pytest.raises(InvalidInput) as error:
        build()
    assert error.value.key == key

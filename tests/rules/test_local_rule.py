"""The contract of the rules, each against something that does not use the rule's own code.

Shape suffixes: R replica, B batch, D position, C channel, N classes.
"""

from __future__ import annotations

import copy
import math

import pytest
import pytorch_lightning as pl
import torch
from rule_helpers import NETWORKS, compute, make_data, same, train, updates
from torch import Tensor
from torch.nn import functional

from callbacks.cosine_decay import CosineDecay
from datamodules import ClassPairs, HalfPairs, SiblingPairs, SynonymPairs
from networks import DenseNetwork, HierarchicalNetwork
from rhm import InvalidInput
from rules import LocalRule, Step
from rules.backprop import Backprop
from rules.base.block import Block
from rules.base.local_rule import clip_by_replica
from rules.contrastive import LayerwiseContrastive
from rules.dfa import DirectFeedbackAlignment
from rules.maths.losses import bilinear_scores, cosine_scores, info_nce

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


# -------------------------------------------------------------------- an independent network, for autograd


def plain_forward(rule: LocalRule, x_RBD: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and the outputs of all layers, written with einsum from the rule's parameters; differentiable."""
    h = (functional.one_hot(x_RBD.long(), rule.data.task.v).double() - 1 / rule.data.task.v) / math.sqrt(
        (1 / rule.data.task.v) * (1 - 1 / rule.data.task.v)
    )
    outs = []
    for layer in rule.network.layers:
        patches = h.reshape(*h.shape[:2], -1, layer.patch * h.shape[-1])  # R B D F
        shared = layer.weight_RGFE.shape[1] == 1
        weight = layer.weight_RGFE.expand(-1, patches.shape[2], -1, -1) if shared else layer.weight_RGFE
        bias = layer.bias_RG1E[:, :, 0].expand(-1, patches.shape[2], -1) if shared else layer.bias_RG1E[:, :, 0]
        a = torch.einsum("rbdf,rdfe->rbde", patches, weight) + bias[:, None]
        h = torch.tanh(a) if rule.network_config.activation == "tanh" else torch.relu(a)
        if layer.projection_RGEC is not None:
            projection = layer.projection_RGEC.expand(-1, h.shape[2], -1, -1) if shared else layer.projection_RGEC
            z = torch.einsum("rbde,rdec->rbdc", h, projection)
            h = z / z.square().mean(-1, keepdim=True).sqrt()
        outs.append(h)
    logits = torch.einsum("rbf,rfn->rbn", h.flatten(2), rule.readout.weight_RFN) + rule.readout.bias_R1N
    return logits, outs


def assert_equal_updates(ours: list[dict[str, Tensor]], modules, loss: Tensor) -> None:
    for update, module in zip(ours, modules, strict=True):
        parameters = dict(module.named_parameters())
        assert update.keys() == parameters.keys()
        for name, grad in zip(parameters, torch.autograd.grad(loss, parameters.values(), retain_graph=True), strict=True):
            torch.testing.assert_close(update[name], grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_backprop_is_autograd_of_the_cross_entropy(network):
    rule = make_rule("backprop", network)
    step = compute(rule)
    logits, _ = plain_forward(rule, step.batch.x_RBD)
    losses = functional.cross_entropy(logits.flatten(0, 1), step.batch.y_RB.long().flatten(), reduction="none")
    loss_R = losses.view(step.batch.y_RB.shape).mean(1)
    torch.testing.assert_close(step.readout.loss_R, loss_R)
    with torch.no_grad():
        ours = rule.updates(step).layers
    assert_equal_updates(ours, rule.parts, loss_R.sum())


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_dfa_with_the_readouts_weights_and_one_hidden_layer_is_backprop(network):
    network = copy.copy(network)
    network.depth = 1
    dfa, bp = make_rule("dfa", network), make_rule("backprop", network)
    dfa.get_buffer("feedback_1").copy_(dfa.readout.weight_RFN.transpose(1, 2))
    step = compute(dfa)
    for ours, exact in zip(updates(dfa, step)[0].values(), updates(bp, step)[0].values(), strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-10, atol=1e-14)


def test_feedback_matrices_differ_between_layers_and_replicas_and_do_not_learn():
    rule = make_rule("dfa", HierarchicalNetwork(width=12))
    first, second, third = (rule.get_buffer(f"feedback_{k}") for k in (1, 2, 3))
    assert first.shape == (3, 4, 4 * 12) and second.shape == (3, 4, 2 * 12)
    assert not torch.allclose(first[:, :, :24], second) and not torch.allclose(second[:, :, :12], third)
    assert not torch.allclose(first[0], first[1])
    assert 0.8 < float(first.var() * 4) < 1.2  # 576 numbers: a standard error of .06
    assert "feedback_1" in rule.state_dict() and "feedback_1" not in dict(rule.named_parameters())


# -------------------------------------------------------------------- layerwise losses


@pytest.mark.parametrize("score", ["bilinear", "cosine"])
@pytest.mark.parametrize("case", ["siblings", "class pairs", "synonym pairs", "half pairs"])
def test_layerwise_update_is_autograd_of_the_layers_own_loss(case, score):
    rule = make_rule(case, score=score, temperature=0.7)
    step = compute(rule)
    ours = updates(rule, step)
    assert len(ours) == (2 if case == "siblings" else 3)
    for k in range(len(ours)):
        layer = rule.network.layers[k]
        _, outs = plain_forward(rule, step.batch.x_RBD)
        _, views = plain_forward(rule, step.batch.x_RBD if step.batch.view_RBD is None else step.batch.view_RBD)
        total = torch.zeros(())
        for r in range(3):
            h, h2 = outs[k][r], views[k][r]  # B D C
            if case == "siblings":
                sides = [(h[:, 2 * d], h[:, 2 * d + 1]) for d in range(h.shape[1] // 2)]
            elif case == "half pairs":
                half = h.shape[2] // 2
                sides = [(h[:, d, :half], h[:, d, half:]) for d in range(h.shape[1])]
            else:
                shared = 1 if case == "class pairs" else 2
                groups = min(shared, h.shape[1])
                sides = [(a.flatten(1), b.flatten(1)) for a, b in zip(h.chunk(groups, 1), h2.chunk(groups, 1), strict=True)]
            for one, two in sides:
                if score == "cosine":
                    u = functional.cosine_similarity(one[:, None], two[None], dim=-1) / 0.7
                else:
                    u = one @ layer.get_parameter("head.predictor_RCC")[r] @ two.T / 0.7
                target = torch.arange(16)
                both = functional.cross_entropy(u, target) + functional.cross_entropy(u.T, target)
                total = total + both / 2 / len(sides)
        assert_equal_updates([ours[k]], [layer], total)


def test_info_nce_has_the_value_of_its_formula_and_log_b_for_equal_scores():
    u = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(2)
    for r in range(2):
        for d in range(3):
            for b in range(5):
                others = [c for c in range(5) if c != b]
                for matrix in (u[r, d], u[r, d].T):
                    negatives = sum(math.exp(matrix[b, c]) for c in others)
                    expected[r] -= math.log(math.exp(u[r, d, b, b]) / (math.exp(u[r, d, b, b]) + negatives)) / 30
    torch.testing.assert_close(info_nce(u), expected)
    torch.testing.assert_close(info_nce(torch.full((1, 2, 7, 7), 3.0)), torch.tensor([math.log(7)]))


@pytest.mark.parametrize("score", [cosine_scores, lambda a, b: bilinear_scores(a, torch.ones(2, 4, 4), b)])
def test_losses_have_the_gradient_of_finite_differences(score):
    z1, z2 = torch.randn(2, 2, 5, 3, 4, generator=torch.Generator().manual_seed(1)).requires_grad_().unbind(0)
    assert torch.autograd.gradcheck(
        lambda a, b: info_nce(score(a, b)), (z1.detach().requires_grad_(), z2.detach().requires_grad_())
    )


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


def test_units_learn_by_autograd_of_the_loss_on_themselves_with_a_local_expansion():
    rule = make_rule("siblings", block=Block(expansion="local"))
    step = compute(rule)
    ours = updates(rule, step)
    h = rule.network.encode(step.batch.x_RBD)
    for k, layer in enumerate(rule.network.layers[:2]):
        patches = h.reshape(*h.shape[:2], -1, 2 * h.shape[-1])
        units = torch.relu(torch.einsum("rbdf,rfe->rbde", patches, layer.weight_RGFE[:, 0]) + layer.bias_RG1E)
        total = torch.zeros(())
        for r in range(3):
            for d in range(0, units.shape[2], 2):
                u = units[r, :, d] @ layer.get_parameter("units_head.predictor_RCC")[r] @ units[r, :, d + 1].T
                both = functional.cross_entropy(u, torch.arange(16)) + functional.cross_entropy(u.T, torch.arange(16))
                total = total + both / units.shape[2]
        for name in "weight_RGFE", "bias_RG1E", "units_head.predictor_RCC":
            exact = torch.autograd.grad(total, layer.get_parameter(name), retain_graph=True)[0]
            torch.testing.assert_close(ours[k][name], exact, rtol=1e-9, atol=1e-12)
        h = step.states[k].out_RBDC


def test_end_to_end_is_autograd_of_the_top_layers_loss():
    rule = make_rule("siblings", block=Block(end_to_end=True))
    step = compute(rule)
    _, outs = plain_forward(rule, step.batch.x_RBD)
    total = torch.zeros(())
    for r in range(3):
        u = outs[1][r, :, 0] @ rule.network.layers[1].get_parameter("head.predictor_RCC")[r] @ outs[1][r, :, 1].T
        total = total + (functional.cross_entropy(u, torch.arange(16)) + functional.cross_entropy(u.T, torch.arange(16))) / 2
    assert_equal_updates(updates(rule, step), rule.network.layers[:2], total)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("case", ["siblings", "class pairs"])
def test_a_head_learns_by_autograd_and_hands_its_gradient_on(case, separate):
    rule = make_rule(case, score="cosine", block=Block(head=5, separate_heads=separate))
    step = compute(rule)
    ours = updates(rule, step)[0]
    layer = rule.network.layers[0]
    _, outs = plain_forward(rule, step.batch.x_RBD)
    u1 = layer.get_parameter("head.head_RCE")
    u2 = layer.get_parameter("head.second_head_RCE") if separate else u1
    if case == "siblings":
        z1, z2 = outs[0][:, :, ::2] @ u1[:, None], outs[0][:, :, 1::2] @ u2[:, None]
    else:
        _, views = plain_forward(rule, step.batch.view_RBD)
        z1, z2 = (outs[0].flatten(2) @ u1)[:, :, None], (views[0].flatten(2) @ u2)[:, :, None]
    loss = info_nce(cosine_scores(z1, z2)).sum()
    assert_equal_updates([ours], [layer], loss)


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
        (lambda: make_rule("siblings", score="dot"), "model.score"),
    ],
)
def test_what_a_rule_cannot_have_is_refused_by_name(build, key):
    with pytest.raises(InvalidInput) as error:
        build()
    assert error.value.key == key


def test_cosine_decay_takes_the_rate_from_its_start_to_its_floor_and_goes_on_after_a_resume(tmp_path):
    """Against the formula; SGD without momentum, whose steps are proportional to the rate."""
    rates = []

    class Record(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            rates.append(pl_module.optimizers().param_groups[0]["lr"])
            trainer.should_stop = trainer.global_step == 4

    for resumed in (None, tmp_path / "at4.ckpt"):
        rule = Backprop(HierarchicalNetwork(width=4), optimizer=lambda p: torch.optim.SGD(p, lr=0.5))
        trainer = pl.Trainer(
            max_steps=8, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, limit_val_batches=0, callbacks=[CosineDecay(floor=0.1), Record()],
        )  # fmt: skip
        trainer.fit(rule, make_data(seeds=(0,)), ckpt_path=resumed)
        trainer.save_checkpoint(tmp_path / f"at{trainer.global_step}.ckpt")
    assert rates == pytest.approx([0.5 * (0.1 + 0.9 * (1 + math.cos(math.pi * t / 8)) / 2) for t in range(8)])

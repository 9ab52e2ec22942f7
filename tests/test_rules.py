"""The contract of the rules, each against something that does not use the rule's own code.

Shape suffixes: R replica, B batch, D position, C channel, N classes.
"""

from __future__ import annotations

import copy
import math

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional

from datamodules import ClassPairs, HalfPairs, RHMDataModule, SiblingPairs, SynonymPairs
from networks import DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork
from rhm import InvalidInput
from rules import LocalRule, Step
from rules.backprop import Backprop
from rules.contrastive import LayerwiseContrastive
from rules.dfa import DirectFeedbackAlignment
from rules.losses import bilinear_scores, cosine_scores, info_nce

TASK = {"v": 4, "n": 4, "m": 2, "s": 2, "L": 3}

CASES = {
    "backprop": (Backprop, None),
    "dfa": (DirectFeedbackAlignment, None),
    "siblings": (LayerwiseContrastive, SiblingPairs()),
    "class pairs": (LayerwiseContrastive, ClassPairs()),
    "synonym pairs": (LayerwiseContrastive, SynonymPairs(2)),
    "half pairs": (LayerwiseContrastive, HalfPairs()),
}
NETWORKS = {
    "shared": HierarchicalNetwork(width=12),
    "shared, bottleneck": HierarchicalNetwork(width=12, bottleneck=6),
    "local": LocallyConnectedNetwork(width=12),
    "dense": DenseNetwork(width=12),
    "dense, bottleneck": DenseNetwork(width=12, bottleneck=6),
    "tanh": HierarchicalNetwork(width=12, activation="tanh"),
}


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make_data(pairs=None, seeds=(0, 1, 2), **kwargs) -> RHMDataModule:
    arguments = {**TASK, "train_size": 64, "batch_size": 16, "test_size": 32, "probe_size": 32, **kwargs}
    return RHMDataModule(seeds=list(seeds), pairs=copy.deepcopy(pairs), **arguments)


def make_rule(case: str, network=None, seeds=(0, 1, 2), data=None, **kwargs) -> LocalRule:
    kind, pairs = CASES[case]
    network = network or HierarchicalNetwork(width=12, bottleneck=6)
    return kind(network=network, **kwargs).prepare(data or make_data(pairs, seeds))


@torch.no_grad()
def compute(rule: LocalRule, step: int = 0) -> Step:
    return rule.compute(rule.data.train_batch(step))


@torch.no_grad()
def updates(rule: LocalRule, step: Step) -> list[dict[str, Tensor]]:
    return rule.layer_updates(step)


def same(a: list[dict[str, Tensor]], b: list[dict[str, Tensor]]) -> list[bool]:
    return [x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x) for x, y in zip(a, b, strict=True)]


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
        ours = rule.updates(step)
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


def test_dfa_is_its_equation_written_as_loops():
    rule = make_rule("dfa", HierarchicalNetwork(width=5), seeds=(3,))
    step = compute(rule)
    ours, batch = updates(rule, step), step.batch
    h = [rule.network.encode(batch.x_RBD)] + [state.out_RBDC for state in step.states]
    for k, layer in enumerate(rule.network.layers, 1):
        feedback = rule.get_buffer(f"feedback_{k}")[0]
        weight = torch.zeros_like(layer.weight_RGFE[0, 0])
        bias = torch.zeros(5)
        for b in range(16):
            o = step.readout.logits_RBN[0, b]
            e = torch.exp(o) / torch.exp(o).sum()
            e[batch.y_RB[0, b].long()] -= 1
            for d in range(h[k].shape[2]):
                patch = torch.cat([h[k - 1][0, b, 2 * d], h[k - 1][0, b, 2 * d + 1]])
                a = layer.weight_RGFE[0, 0].T @ patch + layer.bias_RG1E[0, 0, 0]
                for i in range(5):
                    delta = (feedback[:, d * 5 + i] @ e) * float(a[i] > 0) / 16
                    weight[:, i] += delta * patch
                    bias[i] += delta
        torch.testing.assert_close(ours[k - 1]["weight_RGFE"][0, 0], weight)
        torch.testing.assert_close(ours[k - 1]["bias_RG1E"][0, 0, 0], bias)


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


# -------------------------------------------------------------------- locality


def with_other_labels(rule: LocalRule, step: Step) -> Step:
    y = (step.batch.y_RB + 1) % rule.data.task.n
    with torch.no_grad():
        return step._replace(batch=step.batch._replace(y_RB=y), readout=rule.readout(step.states[-1].out_RBDC, y))


def with_other_error(rule: LocalRule, step: Step) -> Step:
    return step._replace(readout=step.readout._replace(error_RBN=step.readout.error_RBN.flip(-1)))


def scrambled(state):
    return type(state)(*(None if t is None else t.flip(-1) * 1.5 + 0.1 for t in state))


def with_other_layers(rule: LocalRule, step: Step, keep: int) -> Step:
    """All states, weights and heads but those of one layer changed."""

    def change(states):
        return None if states is None else [s if j == keep else scrambled(s) for j, s in enumerate(states)]

    with torch.no_grad():
        for j, module in enumerate(rule.parts):
            if j != keep:
                for parameter in module.parameters():
                    parameter.mul_(-0.5).add_(0.1)
    return step._replace(states=change(step.states), view_states=change(step.view_states))


@pytest.mark.parametrize("network", ["shared, bottleneck", "local", "shared"])
@pytest.mark.parametrize("case", CASES)
def test_an_update_depends_on_what_its_locality_allows_and_on_nothing_else(case, network):
    rule = make_rule(case, NETWORKS[network])
    step, locality = compute(rule), rule.locality
    before = updates(rule, step)
    assert same(before, updates(rule, step)) == [True] * len(before)
    seen = locality.label or locality.output_error
    assert same(before, updates(rule, with_other_labels(rule, step))) == [not seen] * len(before)
    assert same(before, updates(rule, with_other_error(rule, step))) == [not locality.output_error] * len(before)
    for k in range(len(before)):
        other = copy.deepcopy(rule)
        other.__dict__["data"] = rule.data
        unmoved = same(before, updates(other, with_other_layers(other, step, keep=k)))[k]
        # the top layer of backprop has no layers above, but the readout's weights are another layer's too
        assert unmoved == (not locality.other_layers)


@pytest.mark.parametrize("case", CASES)
def test_without_pairs_strings_add_up_and_with_pairs_they_do_not(case):
    rule = make_rule(case)
    batch = rule.data.train_batch(0)

    def part(start, stop):
        cut = [None if t is None else t[:, start:stop] for t in batch[:3]]
        with torch.no_grad():
            return updates(rule, rule.compute(batch._replace(x_RBD=cut[0], y_RB=cut[1], view_RBD=cut[2])))

    whole, halves = part(0, 16), (part(0, 8), part(8, 16))
    for k, update in enumerate(whole):
        mean = (halves[0][k]["weight_RGFE"] + halves[1][k]["weight_RGFE"]) / 2
        assert torch.allclose(update["weight_RGFE"], mean, rtol=1e-9, atol=1e-12) == (not rule.locality.pair)


def test_a_layerwise_rule_trains_a_layer_alike_whatever_stands_above():
    deep, shallow = (make_rule("siblings", HierarchicalNetwork(12, depth=depth, bottleneck=6)) for depth in (3, 2))
    ours, theirs = updates(deep, compute(deep))[0], updates(shallow, compute(shallow))[0]
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_labels_reach_the_readout_but_no_hidden_layer_of_a_layerwise_rule():
    rule = make_rule("siblings")
    step = compute(rule)
    with torch.no_grad():
        before, after = rule.updates(step), rule.updates(with_other_labels(rule, step))
    assert same(before, after) == [True, True, False, False]  # layers 1 and 2; the readout's block; the readout


# -------------------------------------------------------------------- replicas, precision, training


def train(rule: LocalRule, steps: int = 6, precision="64-true", **kwargs) -> dict[str, Tensor]:
    trainer = pl.Trainer(
        max_steps=steps,
        max_epochs=-1,
        precision=precision,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        **kwargs,
    )
    trainer.fit(rule, rule.data)
    assert trainer.global_step == steps
    return rule.state_dict()


@pytest.mark.parametrize("clip", [None, 1e-3])
@pytest.mark.parametrize("case", CASES)
def test_a_replica_of_three_trains_as_it_would_alone(case, clip):
    together = train(make_rule(case, clip=clip, data=make_data(CASES[case][1], seeds=(5, 0, 9))))
    for r, seed in enumerate((5, 0, 9)):
        alone = train(make_rule(case, clip=clip, data=make_data(CASES[case][1], seeds=(seed,))))
        for name, value in alone.items():
            if not name.startswith("accuracy"):
                torch.testing.assert_close(together[name][r : r + 1], value, rtol=1e-8, atol=1e-10)


def test_replicas_of_unequal_training_size_train_as_they_would_alone():
    together = train(make_rule("backprop", data=make_data(seeds=(0, 1), train_size=[20, 64])))
    for r, (seed, size) in enumerate([(0, 20), (0, 64), (1, 20), (1, 64)]):
        alone = train(make_rule("backprop", data=make_data(seeds=(seed,), train_size=size)))
        for name, value in alone.items():
            torch.testing.assert_close(together[name][r : r + 1] if name[0] != "a" else value, value, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("case", CASES)
def test_training_lowers_the_rules_own_loss_and_all_its_layers_move(case):
    rule = make_rule(case, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
    before = {name: value.clone() for name, value in rule.state_dict().items()}
    train(rule, 1)
    first = {name: value.clone() for name, value in rule.step_metrics.items()}
    for name, parameter in rule.named_parameters():
        trained = not (name.endswith("projection_RGEC") and parameter is None)
        assert torch.equal(parameter, before[name]) != trained, name
    rule = make_rule(case, optimizer=lambda p: torch.optim.Adam(p, lr=3e-3))
    train(rule, 100)
    for name, value in rule.step_metrics.items():
        assert value.mean() < first[name].mean(), name


@pytest.mark.parametrize("network", ["shared", "shared, bottleneck"])
@pytest.mark.parametrize("case", CASES)
def test_bf16_mixed_follows_float32(case, network):
    torch.set_default_dtype(torch.float32)
    single = train(make_rule(case, NETWORKS[network]), steps=1, precision="32-true")
    mixed = train(make_rule(case, NETWORKS[network]), steps=1, precision="bf16-mixed")
    for name, value in single.items():
        assert mixed[name].dtype == value.dtype
        assert torch.isfinite(mixed[name]).all()
    # Adam's first step is the gradient's sign: nearly all signs agree
    start = make_rule(case, NETWORKS[network]).state_dict()
    agree = torch.cat(
        [((single[n] - start[n]).sign() == (mixed[n] - start[n]).sign()).flatten() for n in start if "weight" in n]
    )
    assert agree.float().mean() > 0.9


def test_clipping_bounds_each_layer_of_each_replica_by_itself():
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(3, 1, 4, 5, generator=generator), torch.randn(3, 1, 5, generator=generator)]
    exact[0][0] *= 100
    exact[0][2], exact[1][2] = exact[0][2] * 1e-4, exact[1][2] * 1e-4
    clipped = [grad.clone() for grad in exact]
    LocalRule._clip(clipped, 1e-2)
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
        (lambda: make_rule("siblings", score="dot"), "model.score"),
    ],
)
def test_what_a_rule_cannot_have_is_refused_by_name(build, key):
    with pytest.raises(InvalidInput) as error:
        build()
    assert error.value.key == key

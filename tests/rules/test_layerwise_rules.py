"""Layerwise self-supervised losses and rules, each against loops in numpy, finite differences, or its own other form.

Shape suffixes: R replica, B batch, D pair of a string, C channel.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rule_helpers import compute, copied, from_settings, make_data, updates
from torch import Tensor

from datamodules import ClassPairs, SiblingPairs
from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules import losses
from rules.barlow_twins import BarlowTwins
from rules.base.block import Block
from rules.base.layerwise import LayerwiseRule
from rules.base.pair import Pair
from rules.byol import BYOL
from rules.clapp import CLAPP
from rules.clapp_pp import CLAPPPlusPlus
from rules.lpl import LatentPredictiveLearning
from rules.sfa import SlowFeatureAnalysis
from rules.simsiam import SimSiam
from rules.vicreg import VICReg


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def sides(r: int = 2, b: int = 6, d: int = 2, c: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    z1 = torch.randn(r, b, d, c, generator=generator) * 0.7 + 0.3
    return z1, 0.6 * z1 + torch.randn(r, b, d, c, generator=generator) * 0.5


def prepared(kind: type[LayerwiseRule], pairs=None, bottleneck: int | None = 6, **kwargs) -> LayerwiseRule:
    rule = kind(network=HierarchicalNetwork(width=12, bottleneck=bottleneck), **kwargs)
    rule.prepare(make_data(pairs or SiblingPairs()))
    return rule


def pair_of(rule: LayerwiseRule, k: int = 1) -> Pair:
    """The sides of a layer's pairs, without a head."""
    step = compute(rule)
    patch = rule.network.layers[k].patch
    outs = [state.out_RBDC for state in rule._states(step, k)]
    z1, z2 = rule.pairs.positives(outs[0], outs[1] if len(outs) > 1 else None, patch)
    return Pair(z1, z2, rule.network.layers[k - 1].get_submodule("head"), k, step.batch, {}, step)


# -------------------------------------------------------------------- losses against loops


def rows_of(z: Tensor, r: int) -> np.ndarray:
    return z[r].reshape(-1, z.shape[-1]).numpy()


def covariance_by_loops(x: np.ndarray) -> np.ndarray:
    mean = [sum(x[a, i] for a in range(len(x))) / len(x) for i in range(x.shape[1])]
    return np.array(
        [
            [sum((x[a, i] - mean[i]) * (x[a, j] - mean[j]) for a in range(len(x))) / (len(x) - 1) for j in range(x.shape[1])]
            for i in range(x.shape[1])
        ]
    )


def lpl_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    total = float(np.mean((x - y) ** 2))
    for side in (x, y):
        c, m = covariance_by_loops(side), side.shape[1]
        total -= 0.5 * 0.8 * np.mean([np.log(c[i, i] + 1e-4) for i in range(m)])
        total += 0.5 * 7 * sum(c[i, j] ** 2 for i in range(m) for j in range(m) if i != j) / (m * m - m)
    return total


def vicreg_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    total = 5 * float(np.mean((x - y) ** 2))
    for side in (x, y):
        c, m = covariance_by_loops(side), side.shape[1]
        total += 0.5 * 3 * np.mean([max(0.0, 1 - np.sqrt(c[i, i] + 1e-4)) for i in range(m)])
        total += 2 * sum(c[i, j] ** 2 for i in range(m) for j in range(m) if i != j) / m
    return total


def barlow_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    x, y = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (x, y))
    total = 0.0
    for i in range(x.shape[1]):
        for j in range(x.shape[1]):
            c = sum(x[a, i] * y[a, j] for a in range(len(x))) / len(x)
            total += (1 - c) ** 2 if i == j else 0.3 * c**2
    return total


def slowness_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    """``tr(C^-1 Delta) / channels``, to which the loss comes at a ridge of 0 but for means and N - 1."""
    both = np.concatenate([x, y])
    c = (both - both.mean(0)).T @ (both - both.mean(0)) / len(both)
    delta = sum(np.outer(a - b, a - b) for a, b in zip(x, y, strict=True)) / (2 * len(x))
    return float(np.trace(np.linalg.inv(c) @ delta)) / x.shape[1]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda a, b: losses.lpl(a, b, 0.8, 7.0), lpl_by_loops),
        (lambda a, b: losses.vicreg(a, b, 5.0, 3.0, 2.0), vicreg_by_loops),
        (lambda a, b: losses.barlow_twins(a, b, 0.3), barlow_by_loops),
    ],
    ids=["lpl", "vicreg", "barlow"],
)
def test_losses_without_negatives_are_their_formula(ours, theirs):
    z1, z2 = sides()
    expected = [theirs(rows_of(z1, r), rows_of(z2, r)) for r in range(2)]
    torch.testing.assert_close(ours(z1, z2), torch.tensor(expected))


def test_slowness_is_that_of_whitened_channels_and_does_not_reward_collapse():
    z1, z2 = sides(b=50)
    n = 100 * 2
    expected = torch.tensor([slowness_by_loops(rows_of(z1, r), rows_of(z2, r)) for r in range(2)])
    ours = losses.slowness(z1, z2, 1e-12)
    torch.testing.assert_close(1 - ours, (1 - expected) * (n - 1) / n, rtol=1e-8, atol=1e-10)
    mixed = torch.randn(4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(losses.slowness(z1 @ mixed, z2 @ mixed, 1e-12), ours, rtol=1e-6, atol=1e-6)
    collapsed = z1.clone(), z2.clone()
    for z in collapsed:
        z[..., 2:] *= 1e-6
    assert (losses.slowness(*collapsed, 0.01) > losses.slowness(z1, z2, 0.01)).all()


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b: losses.vicreg(a, b, 5.0, 3.0, 2.0),
        lambda a, b: losses.barlow_twins(a, b, 0.3),
        lambda a, b: losses.slowness(a, b, 0.1),
        losses.negative_cosine,
        lambda a, b: losses.phyll(
            losses.pair_scores(a, b), losses.pair_scores(a, losses.other_strings(b, torch.tensor([1, 2])))
        ),
        lambda a, b: losses.hinge(losses.pair_scores(a, b), 1).sum((1, 2)),
        lambda a, b: losses.info_nce_of_targets(losses.bilinear_scores(a, torch.ones(2, 4, 4), b)),
    ],
)
def test_losses_have_the_gradient_of_finite_differences(loss):
    z1, z2 = (z.requires_grad_() for z in sides())
    assert torch.autograd.gradcheck(loss, (z1, z2))


def test_lpl_has_the_gradient_of_finite_differences_with_its_means_held():
    z1, z2 = sides()
    means = [z.flatten(1, 2).mean(1) for z in (z1, z2)]

    def held(a: Tensor, b: Tensor) -> Tensor:
        total = (a - b).square().mean((1, 2, 3))
        for z, mean in zip((a, b), means, strict=True):
            x = z.flatten(1, 2) - mean[:, None]
            c = x.transpose(1, 2) @ x / (x.shape[1] - 1)
            diagonal = c.diagonal(dim1=1, dim2=2)
            total = total - 0.4 * (diagonal + 1e-4).log().mean(1)
            total = total + 3.5 * (c.square().sum((1, 2)) - diagonal.square().sum(1)) / 12
        return total

    inputs = [z.clone().requires_grad_() for z in (z1, z2)]
    assert torch.autograd.gradcheck(held, inputs)
    exact = torch.autograd.grad(held(*inputs).sum(), inputs)
    ours = torch.autograd.grad(losses.lpl(*inputs, 0.8, 7.0).sum(), inputs)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b)


# -------------------------------------------------------------------- negatives


def test_a_strings_negative_is_another_string_and_the_adjoint_goes_back():
    z = torch.arange(5.0)[None, :, None, None].expand(4, 5, 2, 3)
    shift_R = torch.tensor([1, 2, 3, 4])
    negative = losses.other_strings(z, shift_R)
    assert not (negative == z).any()
    assert [int(x) for x in negative[1, :, 0, 0]] == [2, 3, 4, 0, 1]
    torch.testing.assert_close(losses.scatter_strings(negative, shift_R), z)


def test_no_draw_makes_a_string_its_own_negative_and_all_others_occur():
    """Of CLAPP, CLAPP++, PhyLL and SCFF, which all draw by ``Pair.shift_R``."""
    rule = prepared(CLAPP)
    seen = set()
    for i in range(60):
        step = compute(rule, i)
        shift_R = Pair(*sides(3, 16), torch.nn.Module(), 1, step.batch, {}, step).shift_R()
        assert ((shift_R >= 1) & (shift_R < 16)).all()
        seen |= set(shift_R.tolist())
    assert len(seen) == 15


# -------------------------------------------------------------------- explicit plasticity


@pytest.mark.parametrize("pairs", [SiblingPairs(), ClassPairs()], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (CLAPP, {}),
        (CLAPP, {"retrodiction": True}),
        (CLAPP, {"both_terms": False}),
        (CLAPP, {"retrodiction": True, "both_terms": False}),
        (CLAPP, {"block": Block(head=5, separate_heads=True)}),
        (LatentPredictiveLearning, {}),
        (LatentPredictiveLearning, {"hebbian": 0.3, "decorrelation": 2.0, "block": Block(expansion="local")}),
    ],
)
def test_explicit_and_autograd_form_give_the_same_update(kind, arguments, pairs):
    explicit, autograd = (prepared(kind, pairs, form=form, **arguments) for form in ("explicit", "autograd"))
    for rule in explicit, autograd:
        with torch.no_grad():
            for layer in rule.network.layers:
                for name, parameter in layer.named_parameters():
                    if "prediction" in name or "retrodiction" in name:
                        parameter.mul_(8)  # so that some hinges are closed
    step = compute(explicit)
    for ours, theirs in zip(updates(explicit, step), updates(autograd, step), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("retrodiction", [False, True])
def test_clapp_is_its_equation_written_as_loops(retrodiction):
    rule = prepared(CLAPP, bottleneck=None, retrodiction=retrodiction)
    step = compute(rule)
    with torch.no_grad():
        for layer in rule.network.layers:
            for name, parameter in layer.named_parameters():
                if name.startswith("head."):
                    parameter.mul_(3)
    ours, layer, state, r = updates(rule, step)[0], rule.network.layers[0], step.states[0], 1
    pair = pair_of(rule)
    shift = int(pair.shift_R()[r])
    h, x = state.out_RBDC[r], state.input_RGNF[r, 0].unflatten(0, (16, -1))
    w_pred = layer.get_parameter("head.prediction_RCC")[r]  # [context, predicted]
    w_retro = layer.get_parameter("head.retrodiction_RCC")[r] if retrodiction else w_pred.T
    weight, prediction = torch.zeros_like(layer.weight_RGFE[r, 0]), torch.zeros_like(w_pred)
    closed = 0
    for b in range(16):
        for d in range(h.shape[1] // 2):
            for y, other in ((1, b), (-1, (b + shift) % 16)):
                c, z = h[b, 2 * d], h[other, 2 * d + 1]
                u = sum(z[j] * (w_pred.T @ c)[j] for j in range(12))
                gamma = y if y * u < 1 else 0
                closed += gamma == 0
                for place, where, signal in ((z, (other, 2 * d + 1), w_pred.T @ c), (c, (b, 2 * d), w_retro.T @ z)):
                    for j in range(12):
                        slope = 1.0 if place[j] > 0 else 0.0
                        weight[:, j] -= gamma * signal[j] * slope * x[where] / (16 * (h.shape[1] // 2))
                prediction -= gamma * torch.outer(c, z) / (16 * (h.shape[1] // 2))
    assert closed > 0
    torch.testing.assert_close(ours["weight_RGFE"][r, 0], weight)
    torch.testing.assert_close(ours["head.prediction_RCC"][r], prediction)


@pytest.mark.parametrize(("kind", "arguments"), [(CLAPP, {}), (CLAPP, {"retrodiction": True}), (LatentPredictiveLearning, {})])
def test_explicit_form_builds_no_graph(kind, arguments, monkeypatch):
    rule = prepared(kind, **arguments)

    def forbidden(*args, **kwargs):
        raise AssertionError("autograd was asked")

    monkeypatch.setattr(torch.autograd, "grad", forbidden)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t), lambda t: t), torch.inference_mode():
        step = rule.compute(rule.data.train_batch(0))
        for update in rule.layer_updates(step):
            assert all(grad.grad_fn is None and grad.isfinite().all() for grad in update.values())
    assert not saved
    with pytest.raises((AssertionError, RuntimeError)):
        prepared(kind, form="autograd", **arguments).layer_updates(compute(rule))


def test_one_coin_a_string_has_the_mean_of_both_terms():
    both, coin = prepared(CLAPP), prepared(CLAPP, both_terms=False)
    step = compute(both)
    pair = pair_of(both)._replace(step=step)
    weights = [coin.weights(pair._replace(step=compute(coin, i))) for i in range(300)]
    for k in (0, 1):
        drawn = torch.stack([w[k] for w in weights])
        assert set(drawn.unique().tolist()) == {0.0, 2 * float(both.weights(pair)[k].flatten()[0])}
        torch.testing.assert_close(drawn.mean(), both.weights(pair)[k].mean(), rtol=0.05, atol=0)  # 14,400 fair coins: .8 %
    assert all(((w[0] == 0) != (w[1] == 0)).all() for w in weights)


# -------------------------------------------------------------------- targets and contexts


@pytest.mark.parametrize("kind", [SimSiam, BYOL])
def test_no_gradient_reaches_the_target(kind):
    rule = prepared(kind)
    pair = pair_of(rule)
    z1 = pair.z1_RBDC.clone().requires_grad_()
    target, _ = rule.targets(pair._replace(z1_RBDC=z1))
    assert not target.requires_grad
    torch.testing.assert_close(target, pair.z1_RBDC)  # BYOL's copy starts as the layer


def test_byols_targets_end_to_end_come_from_a_slow_copy_of_the_whole_network():
    rule = prepared(BYOL, block=Block(end_to_end=True))
    for name, buffer in rule.named_buffers():
        if name.startswith("target_"):
            buffer.add_(0.3 * torch.randn(buffer.shape, generator=torch.Generator().manual_seed(len(name))))
    step, top = compute(rule), rule.trained_layers
    slow = copied(rule)
    with torch.no_grad():
        for k, name, parameter in slow._own():
            parameter.copy_(slow.get_buffer(f"target_{k}_{name}"))
        states = slow.compute(step.batch)
    own = states.states[top - 1].out_RBDC, None if states.view_states is None else states.view_states[top - 1].out_RBDC
    pair = Pair(*sides(3, 16), rule.network.layers[top - 1].head, top, step.batch, {}, step)
    expected = rule._behind_head(*rule.pairs.positives(*own, rule.network.layers[top].patch), pair.head)
    for target, right in zip(rule.targets(pair), expected, strict=True):
        torch.testing.assert_close(target, right)


def test_byols_copy_follows_the_layer_with_its_momentum():
    from rule_helpers import train

    rule = prepared(BYOL, momentum=0.75)
    layer, name = rule.network.layers[0], "target_1_weight_RGFE"
    start = rule.get_buffer(name).clone()
    train(rule, 1)
    torch.testing.assert_close(rule.get_buffer(name), start)  # the copy meets the weights as they were at the step
    weight = layer.weight_RGFE.detach().clone()
    train(rule, 1)
    torch.testing.assert_close(rule.get_buffer(name), 0.75 * start + 0.25 * weight)


@pytest.mark.parametrize("context", ["own", "top", "both"])
def test_clapp_plus_plus_looks_where_its_context_says_and_knows_positions(context):
    rule = prepared(CLAPPPlusPlus, context=context)
    assert rule.locality.other_layers == (context != "own")
    names = {name for name, _ in rule.network.layers[0].named_parameters() if name.startswith("head.")}
    own, top = {"head.prediction_RDCC"}, {"head.top_first_RDEC", "head.top_second_RDEC"}
    assert names == {"own": own, "top": top, "both": own | top}[context]
    step = compute(rule)
    before = updates(rule, step)
    changed = list(step.states)
    changed[1] = changed[1]._replace(out_RBDC=changed[1].out_RBDC.flip(1))
    after = updates(rule, step._replace(states=changed))
    assert torch.equal(before[0]["weight_RGFE"], after[0]["weight_RGFE"]) == (context == "own")
    for name in names:
        matrix = rule.network.layers[0].get_parameter(name)
        assert matrix.shape[1] == 2  # two pairs of siblings in layer 1
        grad = before[0][name]
        assert not torch.allclose(grad[:, 0], grad[:, 1])


def test_every_kind_of_head_is_named_in_the_layers_update():
    for name in ("clapp", "lpl", "simsiam", "byol", "clapp_pp"):
        rule = from_settings(name)
        update = updates(rule, compute(rule))[0]
        assert update.keys() == dict(rule.network.layers[0].named_parameters()).keys(), name


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: VICReg(similarity=-1.0), "model.similarity"),
        (lambda: BarlowTwins(redundancy=-1.0), "model.redundancy"),
        (lambda: SlowFeatureAnalysis(ridge=0.0), "model.ridge"),
        (lambda: LatentPredictiveLearning(decorrelation=-1.0), "model.decorrelation"),
        (lambda: LatentPredictiveLearning(form="loops"), "model.form"),
        (lambda: CLAPP(form="loops"), "model.form"),
        (lambda: CLAPPPlusPlus(context="below"), "model.context"),
        (lambda: SimSiam(hidden=0), "model.hidden"),
        (lambda: BYOL(momentum=1.0), "model.momentum"),
        (lambda: BYOL(block=Block(expansion="local")), "model.block.expansion"),
    ],
)
def test_what_a_rule_cannot_have_is_refused_by_name(build, key):
    with pytest.raises(InvalidInput) as error:
        build()
    assert error.value.key == key

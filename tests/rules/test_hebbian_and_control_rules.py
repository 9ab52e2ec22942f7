"""Supervised layerwise controls, Forward-Forward, SoftHebb and GEVB, each against something that does not use the rule's own code.

Shape suffixes: R replica, B batch, D position, C channel, N classes; F inputs, E units, K components of a vector unit.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from rule_helpers import NETWORKS, RULES, compute, from_settings, make_data, train, updates
from torch import Tensor
from torch.nn import functional

from callbacks.linear_probe import LayerwiseLinearProbe
from datamodules import ClassPairs, SiblingPairs
from networks import DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork
from networks.vector import VectorNetwork
from rhm import InvalidInput
from rules import LocalRule
from rules.backprop import Backprop
from rules.dfa import DirectFeedbackAlignment
from rules.feedback_alignment import FeedbackAlignment
from rules.forward_forward import ForwardForward
from rules.frozen import FrozenFeatures
from rules.gevb import GlobalErrorVectorBroadcast
from rules.local_cross_entropy import LocalCrossEntropy
from rules.maths.goodness import goodness_signal
from rules.maths.losses import cross_entropy, similarity_matrix, supervised_contrastive
from rules.maths.plasticity import autograd_backward
from rules.scff import SelfContrastiveForwardForward
from rules.similarity_matching import SimilarityMatching
from rules.softhebb import SoftHebb
from rules.supervised_contrastive import SupervisedContrastive

B = 16


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def prepared(kind, network=None, pairs=None, seeds=(0, 1), data=None, **kwargs) -> LocalRule:
    """A rule whose biases, which start at 0, are random: so that a test sees them."""
    network = network or HierarchicalNetwork(width=12)
    rule = kind(network=network, **kwargs).prepare(data or make_data(pairs, seeds))
    generator = torch.Generator().manual_seed(0)
    for layer in rule.network.layers:
        layer.bias_RG1E.data.normal_(0, 0.3, generator=generator)
    return rule


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whitened(x, v: int) -> np.ndarray:
    p = 1 / v
    return (np.eye(v)[np.asarray(x).astype(int)] - p) / math.sqrt(p * (1 - p))


def numpy_of(t: Tensor) -> np.ndarray:
    return t.detach().numpy()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# -------------------------------------------------------------------- losses as functions


def test_cross_entropy_is_minus_the_log_of_the_right_share():
    logits, y = random(2, 5, 3), torch.tensor([[0, 1, 2, 2, 1], [1, 1, 0, 2, 0]])
    share = logits.exp() / logits.exp().sum(-1, keepdim=True)
    expected = [-sum(math.log(share[r, b, y[r, b]]) for b in range(5)) / 5 for r in range(2)]
    torch.testing.assert_close(cross_entropy(logits, y), torch.tensor(expected))
    torch.testing.assert_close(cross_entropy(torch.full((1, 5, 3), 7.0), y[:1]), torch.tensor([math.log(3)]))


def test_similarity_is_the_correlation_of_two_strings():
    h = random(2, 6, 9)
    for r in range(2):
        np.testing.assert_allclose(numpy_of(similarity_matrix(h)[r]), np.corrcoef(numpy_of(h[r])), atol=1e-12)
    one_hot = functional.one_hot(torch.tensor([[0, 1, 1]]), 5).double()
    torch.testing.assert_close(similarity_matrix(one_hot)[0, :, 1], torch.tensor([-1 / 4, 1.0, 1.0]))


def test_supervised_contrastive_is_its_formula_and_skips_a_string_that_is_alone():
    u, y = random(2, 6, 6), torch.tensor([[0, 0, 1, 0, 2, 2], [3, 1, 1, 1, 1, 1]])
    expected = []
    for r in range(2):
        losses = []
        for b in range(6):
            others = [a for a in range(6) if a != b]
            positives = [a for a in others if y[r, a] == y[r, b]]
            if positives:
                total = sum(math.exp(u[r, b, a]) for a in others)
                losses.append(-sum(math.log(math.exp(u[r, b, p]) / total) for p in positives) / len(positives))
        assert len(losses) == 5
        expected.append(sum(losses) / 5)
    torch.testing.assert_close(supervised_contrastive(u, y), torch.tensor(expected))
    nobody = supervised_contrastive(u.requires_grad_(), torch.arange(6).expand(2, -1))
    assert torch.equal(nobody, torch.zeros(2))
    assert torch.equal(torch.autograd.grad(nobody.sum(), u)[0], torch.zeros(2, 6, 6))


def test_supervised_contrastive_never_looks_at_a_strings_score_with_itself():
    u, y = random(1, 6, 6), torch.tensor([[0, 0, 1, 0, 1, 1]])
    torch.testing.assert_close(supervised_contrastive(u + 5 * torch.eye(6), y), supervised_contrastive(u, y))


@pytest.mark.parametrize(
    "loss",
    [
        lambda h, y: cross_entropy(h[..., :4], y),
        lambda h, y: (similarity_matrix(h) * random(6, 6, seed=3)).sum((1, 2)),
        lambda h, y: supervised_contrastive(h, y),
    ],
    ids=["cross-entropy", "similarity", "supervised contrastive"],
)
def test_losses_have_the_gradient_of_finite_differences(loss):
    y = torch.tensor([[0, 0, 1, 0, 2, 2], [3, 1, 1, 1, 1, 1]])
    assert torch.autograd.gradcheck(lambda h: loss(h, y), random(2, 6, 6, seed=1).requires_grad_())


# -------------------------------------------------------------------- a loss at every layer, with labels


def plain_outs(rule: LocalRule, x_RBD: Tensor) -> list[Tensor]:
    """The outputs of all layers from the rule's parameters, with einsum; differentiable. The input of a layer is detached."""
    v = rule.data.task.v
    h, outs = torch.as_tensor(whitened(x_RBD, v)), []
    for layer in rule.network.layers:
        patches = h.detach().reshape(*h.shape[:2], -1, layer.patch * h.shape[-1])
        own = [layer.weight_RGFE, layer.bias_RG1E, layer.projection_RGEC]
        weight, bias, projection = (None if p is None else p.expand(-1, patches.shape[2], -1, -1) for p in own)
        h = torch.relu(torch.einsum("rbdf,rdfe->rbde", patches, weight) + bias[:, None, :, 0])
        if projection is not None:
            z = torch.einsum("rbde,rdec->rbdc", h, projection)
            h = z / z.square().mean(-1, keepdim=True).sqrt()
        outs.append(h)
    return outs


def plain_loss(kind, h_BF: Tensor, z_BE: Tensor, y_B: Tensor) -> Tensor:
    """A layer's loss in one replica, from torch's own losses, for its output and the head's."""
    if kind is SupervisedContrastive:
        z = z_BE / z_BE.norm(dim=1, keepdim=True)
        log_p = torch.log_softmax((z @ z.T / 0.3).fill_diagonal_(-1e30), 1)
        alike = (y_B[:, None] == y_B).fill_diagonal_(False)
        return torch.stack([-log_p[b, alike[b]].mean() for b in range(len(y_B)) if alike[b].any()]).mean()
    prediction = functional.cross_entropy(z_BE, y_B)
    if kind is LocalCrossEntropy:
        return prediction
    target = torch.corrcoef(functional.one_hot(y_B, 4).double())
    return 0.2 * prediction + 0.8 * functional.mse_loss(torch.corrcoef(h_BF), target)


CONTROLS = {
    LocalCrossEntropy: {},
    SimilarityMatching: {"similarity": 0.8},
    SupervisedContrastive: {"head": 5, "temperature": 0.3},
}


@pytest.mark.parametrize("network", ["shared", "shared, bottleneck", "local", "dense, bottleneck"])
@pytest.mark.parametrize("kind", CONTROLS, ids=lambda k: k.__name__)
def test_a_controls_update_is_autograd_of_the_layers_own_loss(kind, network):
    rule = prepared(kind, NETWORKS[network], **CONTROLS[kind])
    step = compute(rule)
    ours, outs = updates(rule, step), plain_outs(rule, step.batch.x_RBD)
    for k, layer in enumerate(rule.network.layers):
        total, head = torch.zeros(()), layer.get_parameter("label_head_RFE")
        for r in range(2):
            h = outs[k][r].flatten(1)
            loss = plain_loss(kind, h, h @ head[r], step.batch.y_RB[r].long())
            torch.testing.assert_close(rule.step_metrics[f"loss/layer{k + 1}"][r], loss.detach())
            total = total + loss
        parameters = dict(layer.named_parameters())
        assert ours[k].keys() == parameters.keys()
        for name, grad in zip(parameters, torch.autograd.grad(total, parameters.values()), strict=True):
            torch.testing.assert_close(ours[k][name], grad, rtol=1e-9, atol=1e-12)


# -------------------------------------------------------------------- Forward-Forward


def loop_layers(rule: LocalRule, r: int, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Patches ``[D, F]`` and pre-activations ``[D, E]`` of every layer for one string's input ``[D, C]``, layer by layer."""
    found = []
    for layer in rule.network.layers:
        patches = np.stack([np.concatenate(list(rows[d : d + layer.patch])) for d in range(0, len(rows), layer.patch)])
        group = [0 if layer.groups == 1 else d for d in range(len(patches))]
        weight, bias = numpy_of(layer.weight_RGFE)[r], numpy_of(layer.bias_RG1E)[r]
        a = np.stack([patch @ weight[g] + bias[g, 0] for patch, g in zip(patches, group, strict=True)])
        found.append((patches, a))
        rows = np.maximum(a, 0)
        if layer.normalise:
            rows = np.stack([u * math.sqrt(len(u)) / max(math.sqrt(sum(u**2)), 1e-6) for u in rows])
    return found


def wrong_labels(rule: LocalRule, step) -> Tensor:
    """The class that the rule's second half of views shows, read from the first layer's label slot."""
    v, n = rule.data.task.v, rule.data.task.n
    state = rule.network.layers[0].split(step.view_states[0], B)[1]
    return rule.network.layers[0].unfold(state.input_RGNF, B)[..., 0, v : v + n].argmax(-1)


FORWARD = {
    "shared": HierarchicalNetwork(width=6, label_slot=True, normalise=True),
    "local": LocallyConnectedNetwork(width=6, label_slot=True, normalise=True),
    "dense": DenseNetwork(width=6, label_slot=True, normalise=True),
}


@pytest.mark.parametrize("network", FORWARD)
def test_forward_forward_is_its_equation_written_as_loops(network):
    rule = prepared(ForwardForward, FORWARD[network], threshold=0.7)
    step = compute(rule)
    ours, wrong, batch = updates(rule, step), wrong_labels(rule, step), step.batch
    for r in range(2):
        total = [[np.zeros(p.shape[1:]) for p in (layer.weight_RGFE, layer.bias_RG1E)] for layer in rule.network.layers]
        losses = np.zeros(3)
        for b in range(B):
            for label, sign in ((batch.y_RB[r, b], 1), (wrong[r, b], -1)):
                tokens = whitened(batch.x_RBD[r, b], 4)
                shown = np.concatenate([tokens, np.tile(whitened(label, 4), (len(tokens), 1))], 1)
                for k, (patches, a) in enumerate(loop_layers(rule, r, shown)):
                    for d, (x, a_d) in enumerate(zip(patches, a, strict=True)):
                        u = np.maximum(a_d, 0)
                        excess = np.mean(u**2) - 0.7
                        losses[k] += math.log(1 + math.exp(-sign * excess)) / B / len(a)
                        slope = -sign * sigmoid(-sign * excess) / B / len(a)
                        delta = slope * 2 * u / len(u) * (a_d > 0)
                        g = 0 if rule.network.layers[k].groups == 1 else d
                        total[k][0][g] += np.outer(x, delta)
                        total[k][1][g, 0] += delta
        for k, (weight, bias) in enumerate(total):
            np.testing.assert_allclose(numpy_of(ours[k]["weight_RGFE"][r]), weight, rtol=1e-9, atol=1e-13)
            np.testing.assert_allclose(numpy_of(ours[k]["bias_RG1E"][r]), bias, rtol=1e-9, atol=1e-13)
            assert math.isclose(rule.step_metrics[f"loss/layer{k + 1}"][r], losses[k], rel_tol=1e-9)


def test_the_negative_class_is_every_class_but_the_strings_own():
    data = make_data(None, (0,), train_size=None, batch_size=1024, L=3)
    rule = ForwardForward(network=FORWARD["shared"]).prepare(data)
    step = compute(rule)
    state = rule.network.layers[0].split(step.view_states[0], 1024)[1]
    wrong = rule.network.layers[0].unfold(state.input_RGNF, 1024)[..., 0, 4:].argmax(-1)
    count = torch.bincount((wrong - step.batch.y_RB.long()).flatten() % 4, minlength=4)
    assert count[0] == 0 and (count[1:] - 1024 / 3).abs().max() < 5 * math.sqrt(1024 * 2 / 9)
    assert not torch.equal(wrong, wrong_again(rule, 1))


def wrong_again(rule: LocalRule, number: int) -> Tensor:
    step = compute(rule, number)
    state = rule.network.layers[0].split(step.view_states[0], 1024)[1]
    return rule.network.layers[0].unfold(state.input_RGNF, 1024)[..., 0, 4:].argmax(-1)


def test_readout_and_probes_see_the_string_without_a_class():
    rule = prepared(ForwardForward, FORWARD["shared"])
    step = compute(rule)
    other = rule.compute(step.batch._replace(y_RB=(step.batch.y_RB + 1) % 4))
    with torch.no_grad():
        neutral = rule.network(step.batch.x_RBD)
    for a, b, c in zip(step.states, other.states, neutral, strict=True):
        torch.testing.assert_close(a.out_RBDC, c.out_RBDC)
        assert torch.equal(a.out_RBDC, b.out_RBDC)
    assert torch.equal(step.readout.logits_RBN, other.readout.logits_RBN)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_goodness_signal_is_the_gradient_of_its_loss(sign):
    units = random(2, 5, 3, 4).requires_grad_()
    loss_R, signal = goodness_signal(units.detach(), 0.9, sign)
    plain = torch.log1p(torch.exp(-sign * ((units**2).sum(-1) / 4 - 0.9))).flatten(1).mean(1)
    torch.testing.assert_close(loss_R, plain.detach())
    torch.testing.assert_close(signal, torch.autograd.grad(plain.sum(), units)[0])


def test_forward_forward_parts_the_goodness_of_right_and_wrong_classes():
    network = DenseNetwork(width=32, label_slot=True, normalise=True)
    rule = prepared(ForwardForward, network, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
    train(rule, 150)
    step = compute(rule, 200)
    for layer, both in zip(rule.network.layers, step.view_states, strict=True):
        right, wrong = (state.units_RGNE.square().mean((1, 2, 3)) for state in layer.split(both, B))
        assert (right > 1.2 * wrong).all()


# -------------------------------------------------------------------- self-contrastive Forward-Forward


@pytest.mark.parametrize("network", ["shared", "local"])
@pytest.mark.parametrize("pairs", [SiblingPairs(), ClassPairs()], ids=lambda p: type(p).__name__)
def test_self_contrastive_is_its_equation_written_as_loops(pairs, network):
    kind = {"shared": HierarchicalNetwork, "local": LocallyConnectedNetwork}[network]
    rule = prepared(
        SelfContrastiveForwardForward,
        kind(width=6, normalise=True),
        pairs,
        positive_threshold=0.6,
        negative_threshold=1.1,
    )
    step = compute(rule)
    ours, batch = updates(rule, step), step.batch
    assert len(ours) == (2 if isinstance(pairs, SiblingPairs) else 3)
    for r in range(2):
        first = [loop_layers(rule, r, whitened(x, 4)) for x in batch.x_RBD[r]]
        second = first if batch.view_RBD is None else [loop_layers(rule, r, whitened(x, 4)) for x in batch.view_RBD[r]]
        for k, update in enumerate(ours):
            layer, positions = rule.network.layers[k], len(first[0][k][0])
            fits = []
            for shift in range(1, B):  # which other string is the negative is drawn: one shift must fit, and not shift 0
                weight, bias = np.zeros(layer.weight_RGFE.shape[1:]), np.zeros(layer.bias_RG1E.shape[1:])
                loss = self_contrastive(layer, r, k, first, second, positions, shift, pairs, weight, bias)
                same = np.allclose(numpy_of(update["weight_RGFE"][r]), weight, rtol=1e-9, atol=1e-13)
                fits.append(same and np.allclose(numpy_of(update["bias_RG1E"][r]), bias, rtol=1e-9, atol=1e-13))
                assert not same or math.isclose(rule.step_metrics[f"loss/layer{k + 1}"][r], loss, rel_tol=1e-9)
            assert sum(fits) == 1


def self_contrastive(layer, r, k, first, second, positions, shift, pairs, weight, bias) -> float:
    """Adds to ``weight`` and ``bias``; the loss. A pair of strings is summed over inputs with the bias once."""
    siblings = isinstance(pairs, SiblingPairs)
    count, loss = B * (positions // 2 if siblings else 1), 0.0
    for b in range(B):
        for sign, threshold, other in ((1, 0.6, b), (-1, 1.1, (b + shift) % B)):
            for d in range(positions // 2 if siblings else 1):
                # the positions of the two inputs that are added, one side each
                ends = [(2 * d, 2 * d + 1)] if siblings else [(p, p) for p in range(positions)]
                sums = []
                for p, q in ends:
                    b1, b2 = (numpy_of(layer.bias_RG1E)[r, 0 if layer.groups == 1 else j, 0] for j in (p, q))
                    sums.append(first[b][k][1][p] - b1 + second[other][k][1][q] - b2 + (b1 + b2) / 2)
                a = np.concatenate(sums)
                u = np.maximum(a, 0)
                excess = sign * (np.mean(u**2) - threshold)
                loss += math.log(1 + math.exp(-excess)) / count
                delta = -sign * sigmoid(-excess) * 2 * u / len(u) / count * (a > 0)
                for (p, q), part in zip(ends, np.split(delta, len(ends)), strict=True):
                    for j, x in ((p, first[b][k][0][p]), (q, second[other][k][0][q])):
                        g = 0 if layer.groups == 1 else j
                        weight[g] += np.outer(x, part)
                        bias[g, 0] += part / 2
    return loss


# -------------------------------------------------------------------- SoftHebb


@pytest.mark.parametrize("losers_unlearn", [False, True])
@pytest.mark.parametrize("network", ["shared", "local", "shared, bottleneck"])
def test_softhebb_is_its_equation_written_as_loops(network, losers_unlearn):
    rule = prepared(SoftHebb, NETWORKS[network], temperature=0.7, losers_unlearn=losers_unlearn)
    step = compute(rule)
    for layer, state, update in zip(rule.network.layers, step.states, updates(rule, step), strict=True):
        assert update.keys() == {"weight_RGFE"}
        expected = np.zeros(layer.weight_RGFE.shape)
        weight, rows = numpy_of(layer.weight_RGFE), numpy_of(state.input_RGNF)
        for r in range(2):
            for g in range(rows.shape[1]):
                for x in rows[r, g]:
                    u = x @ weight[r, g]
                    y = np.exp(u / 0.7) / np.exp(u / 0.7).sum()
                    for k in range(len(u)):
                        s = 1 if k == np.argmax(u) or not losers_unlearn else -1
                        change = s * y[k] * (x - u[k] * weight[r, g, :, k])
                        expected[r, g, :, k] -= change / len(rows[r, g])
        np.testing.assert_allclose(numpy_of(update["weight_RGFE"]), expected, rtol=1e-9, atol=1e-13)


def test_softhebb_brings_weights_to_unit_length_and_moves_nothing_else():
    rule = prepared(SoftHebb, NETWORKS["shared, bottleneck"], optimizer=lambda p: torch.optim.SGD(p, lr=0.3))
    rule.network.layers[0].weight_RGFE.data *= 0.6
    before = {name: value.clone() for name, value in rule.state_dict().items()}
    train(rule, 600)
    length = rule.network.layers[0].weight_RGFE.norm(dim=-2)
    assert (before["network.layers.0.weight_RGFE"].norm(dim=-2) - 1).abs().mean() > 0.15
    assert (length - 1).abs().mean() < 0.05, length
    for name, parameter in rule.named_parameters():
        moved = name.endswith("weight_RGFE") or name.startswith("readout")
        assert torch.equal(parameter, before[name]) != moved, name


# -------------------------------------------------------------------- vector units and GEVB


def vector_rule(kind, depth=None, patch=None, signed=False, seeds=(0, 1), **kwargs) -> LocalRule:
    return prepared(kind, VectorNetwork(width=6, depth=depth, patch=patch, signed=signed), seeds=seeds, **kwargs)


def test_half_of_the_gates_are_open_and_gates_do_not_learn():
    rule = vector_rule(GlobalErrorVectorBroadcast)
    gate = rule.network.layers[1].get_buffer("gate_REK").clone()
    assert torch.equal(gate.abs(), torch.ones(2, 6, 4)) and torch.equal(gate[:, ::2], -gate[:, 1::2])
    assert not torch.equal(gate[0], gate[1])
    share = rule.network.layers[0].mask(compute(rule).states[0]).mean()
    assert 0.35 < share < 0.65
    train(rule, 3)
    assert torch.equal(rule.network.layers[1].get_buffer("gate_REK"), gate)


def plain_vector_logits(rule: LocalRule, x_RBD: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits and outputs ``[R, B, D, E, K]`` with einsum; the gates are constants of the gradient."""
    x = torch.as_tensor(whitened(x_RBD, 4))
    h = torch.einsum("rbdj,kq->rbdjkq", x, torch.eye(4)).flatten(3, 4)  # unit (j, k) has x_j in component k
    outs = []
    for layer in rule.network.layers:
        patches = h.unflatten(2, (-1, layer.patch)).flatten(3, 4)
        a = torch.einsum("rbdfq,rfe->rbdeq", patches, layer.weight_RGFE[:, 0])
        a = a + layer.bias_RG1E.unflatten(-1, (-1, 4))[:, :, 0][:, None]
        on = torch.einsum("rbdeq,req->rbde", a, layer.get_buffer("gate_REK")) >= 0
        h = a * on.detach()[..., None]
        outs.append(h)
    top = h.flatten(2, 3)
    return torch.einsum("rbfq,rf->rbq", top, rule.readout.weight_RFN[..., 0]) + rule.readout.bias_R1N, outs


@pytest.mark.parametrize("signed", [False, True])
def test_backprop_on_vector_units_is_autograd(signed):
    rule = vector_rule(Backprop, signed=signed)
    step = compute(rule)
    with torch.no_grad():
        ours = rule.updates(step)
    logits, outs = plain_vector_logits(rule, step.batch.x_RBD)
    for state, out in zip(step.states, outs, strict=True):
        torch.testing.assert_close(state.out_RBDC, out.detach().flatten(3))
    losses = functional.cross_entropy(logits.flatten(0, 1), step.batch.y_RB.long().flatten(), reduction="none")
    loss = losses.view(2, B).mean(1).sum()
    for update, part in zip(ours, rule.parts, strict=True):
        parameters = dict(part.named_parameters())
        assert update.keys() == parameters.keys()
        for name, grad in zip(parameters, torch.autograd.grad(loss, parameters.values(), retain_graph=True), strict=True):
            torch.testing.assert_close(update[name], grad, rtol=1e-9, atol=1e-12)


def test_other_rules_take_vector_units_as_they_take_others():
    bp, fa = vector_rule(Backprop), vector_rule(FeedbackAlignment)
    for k, name, matrix in fa.carriers():
        fa.get_buffer(f"feedback_{k}_{name}").copy_(matrix.detach())
    dfa, frozen = vector_rule(DirectFeedbackAlignment), vector_rule(FrozenFeatures)
    step = compute(bp)
    for ours, exact in zip(updates(fa, step), updates(bp, step), strict=True):
        for name, grad in exact.items():
            torch.testing.assert_close(ours[name], grad, rtol=1e-10, atol=1e-14)
    # direct feedback with an identity for every unit is the broadcast of the error vector
    for k in range(1, 4):
        feedback = dfa.get_buffer(f"feedback_{k}")
        feedback.copy_(torch.eye(4).repeat(1, feedback.shape[-1] // 4).expand_as(feedback))
    for ours, exact in zip(updates(dfa, step), updates(vector_rule(GlobalErrorVectorBroadcast), step), strict=True):
        for name, grad in exact.items():
            torch.testing.assert_close(ours[name], grad, rtol=1e-10, atol=1e-14)
    train(frozen, 2)


def test_a_vector_layer_keeps_the_contract_of_a_layer():
    rule = vector_rule(Backprop)
    step = compute(rule)
    layer, state = rule.network.layers[1], step.states[1]
    below = step.states[0].out_RBDC
    assert state.out_RBDC.shape[-1] == layer.out_channels == 24
    # explicit products are autograd of <output, signal>
    signal = random(*state.out_RBDC.shape)
    explicit, delta = layer.backward(state, signal)
    graph, graph_delta = autograd_backward(layer, state, signal)
    torch.testing.assert_close(delta, graph_delta)
    for name in explicit:
        torch.testing.assert_close(explicit[name], graph[name])
    # the tangent is a finite difference and the adjoint of what is handed down
    change = random(*below.shape, seed=5)
    tangent = layer.tangent(state, change)
    with torch.no_grad():
        ahead, behind = (layer(below + sign * 1e-7 * change).out_RBDC for sign in (1, -1))
    torch.testing.assert_close(tangent, (ahead - behind) / 2e-7, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((tangent * signal).sum(), (change * layer.hand_down(delta, B)).sum())
    features = step.readout.features_RBF
    moved = rule.readout.logits(features + random(*features.shape)) - rule.readout.logits(features)
    torch.testing.assert_close(rule.readout.tangent(random(*features.shape)), moved)
    for part, rows in zip(layer.split(state, 5), (slice(0, 5), slice(5, None)), strict=True):
        with torch.no_grad():
            for t, expected in zip(part, layer(below[:, rows]), strict=True):
                assert (t is None and expected is None) or torch.allclose(t, expected)


def backprop_deltas(rule: LocalRule, step) -> list[Tensor]:
    """The signal of backpropagation at every pre-activation, ``[R, B, D, E, K]``, by autograd."""
    logits, outs = plain_vector_logits(rule, step.batch.x_RBD)
    losses = functional.cross_entropy(logits.flatten(0, 1), step.batch.y_RB.long().flatten(), reduction="none")
    grads = torch.autograd.grad(losses.view(2, B).mean(1).sum(), outs)
    masks = [layer.by_position(layer.mask(s), s) for layer, s in zip(rule.network.layers, step.states, strict=True)]
    return [grad * mask.unflatten(-1, (-1, 4)) for grad, mask in zip(grads, masks, strict=True)]


def test_the_true_signal_is_the_broadcast_error_times_a_number_that_is_not_negative():
    """That is what non-negative weights above the first layer buy; with signed weights it does not hold."""
    for signed in (False, True):
        rule = vector_rule(Backprop, signed=signed)
        step = compute(rule)
        error = step.readout.error_RBN[:, :, None, None] / B
        negative, closed = 0, 0
        for exact, layer, state in zip(backprop_deltas(rule, step), rule.network.layers, step.states, strict=True):
            factor = (exact * error).sum(-1) / error.square().sum(-1)  # R B D E
            torch.testing.assert_close(exact, factor[..., None] * error, rtol=1e-8, atol=1e-14)
            on = layer.by_position(layer.mask(state), state).unflatten(-1, (-1, 4))[..., 0]
            assert torch.equal(factor[on == 0], torch.zeros_like(factor[on == 0]))
            negative, closed = negative + int((factor < 0).sum()), closed + int((on == 0).sum())
        assert closed > 0 and (negative > 0) == signed


def test_with_one_hidden_layer_the_true_gradient_is_a_units_output_weight_times_gevbs_update():
    bp, gevb = (vector_rule(kind, depth=1, patch=8) for kind in (Backprop, GlobalErrorVectorBroadcast))
    step = compute(bp)
    exact, ours = updates(bp, step)[0], updates(gevb, step)[0]
    factor = bp.readout.weight_RFN[:, :, 0]
    assert (factor > 0).all()
    torch.testing.assert_close(exact["weight_RGFE"], ours["weight_RGFE"] * factor[:, None, None])
    torch.testing.assert_close(exact["bias_RG1E"], ours["bias_RG1E"] * factor.repeat_interleave(4, 1)[:, None, None])


def test_with_all_gates_open_the_number_is_the_sum_over_paths_to_the_output():
    rule = vector_rule(Backprop)
    for layer in rule.network.layers:
        layer.get_buffer("gate_REK").zero_()
    step = compute(rule)
    error, deltas = step.readout.error_RBN / B, backprop_deltas(rule, step)
    paths = numpy_of(rule.readout.weight_RFN)[:, None, :, 0]  # R D E: one position at the top
    for k in (2, 1, 0):
        expected = numpy_of(error)[:, :, None, None] * paths[:, None, :, :, None]
        np.testing.assert_allclose(deltas[k], expected, rtol=1e-9, atol=1e-14)
        weight = numpy_of(rule.network.layers[k].weight_RGFE)[:, 0]  # R (S E) E
        if k:
            down = np.einsum("rfe,rde->rdf", weight, paths)
            paths = down.reshape(2, -1, 6)


def test_weights_above_the_first_layer_start_and_stay_non_negative():
    rule = vector_rule(GlobalErrorVectorBroadcast, optimizer=lambda p: torch.optim.Adam(p, lr=0.1))
    upper = [layer.weight_RGFE for layer in rule.network.layers[1:]] + [rule.readout.weight_RFN]
    assert all((weight >= 0).all() for weight in upper) and (rule.network.layers[0].weight_RGFE < 0).any()
    train(rule, 5)
    assert all((weight >= 0).all() and (weight == 0).any() for weight in upper)
    assert (rule.network.layers[0].weight_RGFE < 0).any()


def test_gevb_learns():
    rule = prepared(GlobalErrorVectorBroadcast, VectorNetwork(width=24), optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
    before = compute(rule).readout.loss_R
    train(rule, 150)
    assert (compute(rule).readout.loss_R < 0.5 * before).all()


def test_probes_read_vector_units():
    import pytorch_lightning as pl

    torch.set_default_dtype(torch.float32)
    rule, probe = vector_rule(GlobalErrorVectorBroadcast), LayerwiseLinearProbe()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", callbacks=[probe], **quiet)
    metrics = trainer.validate(rule, rule.data, verbose=False)[0]
    assert metrics["probe/level0/layer1"] > 0.9


# -------------------------------------------------------------------- what holds for all of them

KINDS = {
    "cross-entropy": lambda: prepared(LocalCrossEntropy),
    "forward-forward": lambda: prepared(ForwardForward, FORWARD["shared"]),
    "self-contrastive": lambda: prepared(SelfContrastiveForwardForward, pairs=SiblingPairs()),
    "softhebb": lambda: prepared(SoftHebb),
    "gevb": lambda: vector_rule(GlobalErrorVectorBroadcast),
}


@pytest.mark.parametrize("name", ["forward-forward", "self-contrastive", "softhebb", "gevb"])
def test_a_rule_in_explicit_form_needs_no_graph(name):
    rule = KINDS[name]()
    expected = updates(rule, compute(rule))
    with torch.inference_mode():
        inferred = rule.layer_updates(rule.compute(rule.data.train_batch(0)))
    for a, b in zip(expected, inferred, strict=True):
        assert all(torch.equal(a[key], b[key]) and b[key].is_inference() for key in a)


@pytest.mark.parametrize("name", RULES)
def test_a_rule_runs_on_vector_units_or_says_why_not(name):
    try:
        rule = from_settings(name, "--model.network=VectorNetwork", "--model.network.width=6")
    except (InvalidInput, ValueError) as error:  # the settings' parser wraps what a constructor refuses
        assert "model.network" in str(error) and "allowed: " in str(error)
        assert name not in ("backprop", "dfa", "feedback_alignment", "frozen", "local_cross_entropy", "gevb")
        return
    with torch.no_grad():
        ours = rule.updates(compute(rule))
    for part, update in zip(rule.parts, ours, strict=True):
        for key, grad in update.items():
            assert grad.shape == part.get_parameter(key).shape and torch.isfinite(grad).all()


@pytest.mark.parametrize("name", [name for name in RULES if name not in ("forward_forward", "gevb")])
def test_only_forward_forward_takes_a_network_with_a_label_slot(name):
    with pytest.raises(InvalidInput) as error:
        from_settings(name, "--model.network.label_slot=true")
    assert error.value.key == "model.network.label_slot"


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: prepared(ForwardForward, HierarchicalNetwork(12, normalise=True)), "model.network.label_slot"),
        (lambda: prepared(ForwardForward, HierarchicalNetwork(12, label_slot=True)), "model.network.normalise"),
        (
            lambda: prepared(ForwardForward, HierarchicalNetwork(12, bottleneck=4, label_slot=True, normalise=True)),
            "model.network.bottleneck",
        ),
        (lambda: prepared(ForwardForward, FORWARD["shared"], threshold=0.0), "model.threshold"),
        (lambda: prepared(ForwardForward, FORWARD["shared"], data=make_data(None, (0, 1), n=1)), "data.n"),
        (lambda: prepared(SelfContrastiveForwardForward), "data.pairs"),
        (
            lambda: prepared(SelfContrastiveForwardForward, HierarchicalNetwork(12, bottleneck=4), SiblingPairs()),
            "model.network.bottleneck",
        ),
        (
            lambda: prepared(SelfContrastiveForwardForward, data=make_data(SiblingPairs(), (0, 1), batch_size=1)),
            "data.batch_size",
        ),
        (lambda: prepared(SoftHebb, temperature=0.0), "model.temperature"),
        (lambda: prepared(SimilarityMatching, similarity=1.5), "model.similarity"),
        (lambda: prepared(SimilarityMatching, similarity=0.0), "model.similarity"),
        (lambda: prepared(SupervisedContrastive, head=0), "model.head"),
        (lambda: prepared(SupervisedContrastive, temperature=-1.0), "model.temperature"),
        (lambda: prepared(GlobalErrorVectorBroadcast), "model.network"),
        (lambda: vector_rule(GlobalErrorVectorBroadcast, signed=True), "model.network.signed"),
    ],
)
def test_what_a_rule_cannot_have_is_refused_by_name(build, key):
    with pytest.raises(InvalidInput) as error:
        build()
    assert error.value.key == key

"""Rules that carry an error down, each against loops, autograd of a plain network, or a case where it must be another rule.

Shape suffixes: R replica, B batch, D position, C channel, N classes, E units.
"""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional

from datamodules import RHMDataModule
from networks import DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork
from rhm import InvalidInput
from rules import LocalRule, Step
from rules.backprop import Backprop
from rules.brsf import BatchwiseRandomSignFeedback
from rules.dfa import DirectFeedbackAlignment
from rules.dkp import DirectKolenPollack
from rules.drtp import DirectRandomTargetProjection
from rules.ebd import ErrorBroadcastDecorrelation
from rules.feedback_alignment import FeedbackAlignment
from rules.forward_dfa import ForwardDirectFeedback
from rules.frsf import FixedRandomSignFeedback
from rules.kolen_pollack import KolenPollack
from rules.low_rank_feedback import LowRankFeedback
from rules.mask_ladder import MaskLadder
from rules.node_perturbation import NodePerturbation
from rules.pepita import Pepita
from rules.sign_dfa import SignDirectFeedbackAlignment
from rules.usf import UniformSignFeedback
from rules.weight_mirror import WeightMirror

NETWORKS = {
    "shared": HierarchicalNetwork(width=12),
    "shared, bottleneck": HierarchicalNetwork(width=12, bottleneck=6),
    "shared, normalise": HierarchicalNetwork(width=12, normalise=True),
    "local": LocallyConnectedNetwork(width=12),
    "local, bottleneck": LocallyConnectedNetwork(width=12, bottleneck=6),
    "dense": DenseNetwork(width=12),
    "dense, bottleneck": DenseNetwork(width=12, bottleneck=6),
    "tanh": HierarchicalNetwork(width=12, activation="tanh"),
}
LAYERED = [
    UniformSignFeedback,
    FixedRandomSignFeedback,
    BatchwiseRandomSignFeedback,
    KolenPollack,
    WeightMirror,
    LowRankFeedback,
]
DIRECT = [
    DirectFeedbackAlignment,
    SignDirectFeedbackAlignment,
    DirectRandomTargetProjection,
    DirectKolenPollack,
    ForwardDirectFeedback,
    ErrorBroadcastDecorrelation,
]
RULES = [FeedbackAlignment, *LAYERED, *DIRECT, Pepita, NodePerturbation]
LADDER = [
    ("exact", "transposed"),
    ("batch_mean", "transposed"),
    ("other_string", "transposed"),
    ("constant", "transposed"),
    ("constant", "random"),
    ("exact", "random"),
    ("constant", "direct"),
    ("none", "direct"),
]
close = {"rtol": 1e-9, "atol": 1e-13}


def named(items):
    return pytest.mark.parametrize("kind", items, ids=lambda c: c.__name__)


networks = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def make(kind, network=None, seeds=(0, 1, 2), batch_size=16, **kwargs) -> LocalRule:
    task = {"v": 4, "n": 4, "m": 2, "s": 2, "L": 3}
    data = RHMDataModule(seeds=list(seeds), train_size=64, batch_size=batch_size, test_size=32, probe_size=32, **task)
    return kind(network=network or HierarchicalNetwork(width=12, bottleneck=6), **kwargs).prepare(data)


@torch.no_grad()
def compute(rule: LocalRule, step: int = 0) -> Step:
    return rule.compute(rule.data.train_batch(step))


@torch.no_grad()
def updates(rule: LocalRule, step: Step) -> list[dict[str, Tensor]]:
    return rule.layer_updates(step)


@torch.no_grad()
def apply(rule: LocalRule, estimates: bool = True) -> None:
    """What a step does to tracked buffers, without its weights."""
    for name, estimate in rule.tracked(rule.estimates).items():
        rule.get_buffer(name).lerp_(estimate, rule.rate)
    rule.after_step()


def own(update: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: grad for name, grad in update.items() if name in ("weight_RGFE", "bias_RG1E", "projection_RGEC")}


def assert_same(ours, theirs, **tolerance) -> None:
    for a, b in zip(ours, theirs, strict=True):
        a, b = own(a), own(b)
        assert a.keys() == b.keys() and a
        for name in a:
            if tolerance:
                torch.testing.assert_close(a[name], b[name], **tolerance)
            else:
                assert torch.equal(a[name], b[name]), name


def cosine(a: Tensor, b: Tensor) -> float:
    return float(functional.cosine_similarity(a.detach().flatten(), b.detach().flatten(), dim=0))


def set_buffer(rule, name: str, value: Tensor) -> None:
    rule.get_buffer(name).copy_(value.detach())


def train(rule: LocalRule, steps: int, precision="64-true") -> dict[str, Tensor]:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    limits = {"max_steps": steps, "max_epochs": -1, "num_sanity_val_steps": 0, "limit_val_batches": 0}
    pl.Trainer(accelerator="cpu", precision=precision, **quiet, **limits).fit(rule, rule.data)
    return rule.state_dict()


# -------------------------------------------------------------------- an independent network


def phi_of(rule):
    return {"tanh": torch.tanh, "relu": torch.relu, "linear": lambda a: a}[rule.network_config.activation]


def by_position(matrix: Tensor, positions: int) -> Tensor:
    """A parameter ``[R, G, ...]`` for each position."""
    return matrix.expand(-1, positions, *matrix.shape[2:])


def encoded(rule, x_RBD: Tensor) -> Tensor:
    v = rule.data.task.v
    return (functional.one_hot(x_RBD.long(), v).double() - 1 / v) / math.sqrt((1 / v) * (1 - 1 / v))


def plain_layer(rule, k: int, h: Tensor, noise=None, projection_noise=None):
    """Input patches, pre-activation, units and output of layer ``k`` from 1, by einsum; differentiable."""
    layer = rule.network.layers[k - 1]
    patches = h.reshape(*h.shape[:2], -1, layer.patch * h.shape[-1])
    D = patches.shape[2]
    a = torch.einsum("rbdf,rdfe->rbde", patches, by_position(layer.weight_RGFE, D))
    a = a + by_position(layer.bias_RG1E, D)[:, :, 0][:, None] + (0 if noise is None else noise)
    units = phi_of(rule)(a)
    out = units
    if layer.projection_RGEC is not None:
        out = torch.einsum("rbde,rdec->rbdc", units, by_position(layer.projection_RGEC, D))
        out = out + (0 if projection_noise is None else projection_noise)
    if layer.projection_RGEC is not None or rule.network_config.normalise:
        out = out / out.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-9)  # a patch may have no active unit
    return patches, a, units, out


def plain_logits(rule, h: Tensor) -> Tensor:
    return torch.einsum("rbf,rfn->rbn", h.flatten(2), rule.readout.weight_RFN) + rule.readout.bias_R1N


def plain_forward(rule, h: Tensor, noises=None):
    layers = []
    for k in range(1, len(rule.network) + 1):
        layers.append(plain_layer(rule, k, h, *(noises[k - 1] if noises else (None, None))))
        h = layers[-1][3]
    return plain_logits(rule, h), layers


def arrays(rule, step: Step, r: int):
    """Outputs ``h[0..L]`` and pre-activations ``a[1..L]`` of a replica as numpy, from the plain network."""
    with torch.no_grad():
        x = encoded(rule, step.batch.x_RBD)
        logits, layers = plain_forward(rule, x)
    h = [x[r].numpy()] + [layer[3][r].numpy() for layer in layers]
    a = [None] + [layer[1][r].numpy() for layer in layers]
    o = logits[r].numpy()
    p = np.exp(o) / np.exp(o).sum(1, keepdims=True)
    e = p.copy()
    for b in range(len(e)):
        e[b, int(step.batch.y_RB[r, b])] -= 1
    return h, a, e


def loops(h_below: np.ndarray, delta: np.ndarray, patch: int):
    """Weight and bias gradients of a shared layer from the postsynaptic factors ``[B, D, E]``, one by one."""
    weight = np.zeros((patch * h_below.shape[2], delta.shape[2]))
    bias = np.zeros(delta.shape[2])
    for b in range(delta.shape[0]):
        for d in range(delta.shape[1]):
            pre = np.concatenate([h_below[b, patch * d + j] for j in range(patch)])
            for i in range(delta.shape[2]):
                weight[:, i] += delta[b, d, i] * pre
                bias[i] += delta[b, d, i]
    return weight, bias


def assert_loops(update, r, weight, bias):
    np.testing.assert_allclose(update["weight_RGFE"][r, 0].detach().numpy(), weight, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(update["bias_RG1E"][r, 0, 0].detach().numpy(), bias, rtol=1e-9, atol=1e-13)


# -------------------------------------------------------------------- cases in which a rule is another


@networks
def test_feedback_alignment_with_the_weights_as_feedback_is_backprop(network):
    rule, exact = make(FeedbackAlignment, network), make(Backprop, network)
    step = compute(rule)
    for k, name, matrix in rule.carriers():
        set_buffer(rule, f"feedback_{k}_{name}", matrix)
    assert_same(updates(rule, step), updates(exact, step))
    k, name, _ = rule.carriers()[-1]
    rule.get_buffer(f"feedback_{k}_{name}").neg_()
    assert not torch.allclose(updates(rule, step)[0]["weight_RGFE"], updates(exact, step)[0]["weight_RGFE"])


@networks
def test_kolen_pollack_with_the_weights_as_feedback_is_backprop_and_feedback_learns_what_weights_learn(network):
    rule, exact = make(KolenPollack, network), make(Backprop, network)
    step = compute(rule)
    with torch.no_grad():
        for k, name, matrix in rule.carriers():
            rule.parts[k - 1].get_parameter(f"feedback_{name}").copy_(matrix)
        ours, theirs = rule.updates(step), exact.updates(step)
    assert_same(ours[:-1], theirs[:-1])
    assert torch.equal(ours[-1]["weight_RFN"], theirs[-1]["weight_RFN"])
    for k, name, _ in rule.carriers():
        assert torch.equal(ours[k - 1][f"feedback_{name}"], theirs[k - 1][name])


@networks
def test_mask_ladder_is_backprop_at_rung_1_or_refuses(network):
    if network.bottleneck is not None or network.normalise:
        with pytest.raises(InvalidInput, match="normalisation"):
            make(MaskLadder, network, masks="exact")
        return
    rule = make(MaskLadder, network, masks="exact")
    step = compute(rule)
    assert_same(updates(rule, step), updates(make(Backprop, network), step))


@pytest.mark.parametrize("network", ["shared", "local", "dense", "tanh"])
def test_mask_ladder_is_fa_at_rung_6_and_dfa_at_rung_7_with_the_same_matrices(network):
    for other, arguments in ((FeedbackAlignment, ("exact", "random")), (DirectFeedbackAlignment, ("constant", "direct"))):
        rule = make(MaskLadder, NETWORKS[network], masks=arguments[0], feedback=arguments[1])
        theirs = make(other, NETWORKS[network])
        matrices = [name for name, _ in theirs.named_buffers() if name.startswith("feedback")]
        assert matrices == [name for name, _ in rule.named_buffers() if name.startswith("feedback")] and len(matrices) == 3
        step = compute(rule)
        assert not torch.allclose(updates(rule, step)[0]["weight_RGFE"], updates(theirs, step)[0]["weight_RGFE"])
        for name in matrices:
            set_buffer(rule, name, theirs.get_buffer(name))
        assert_same(updates(rule, step), updates(theirs, step))


@networks
def test_uniform_sign_feedback_is_feedback_alignment_with_the_scaled_signs(network):
    rule, fa = make(UniformSignFeedback, network, feedback_scale=1.5), make(FeedbackAlignment, network)
    for k, name, matrix in rule.carriers():
        for r in range(3):
            w = matrix[r].detach().numpy()
            signs = np.where(w > 0, 1.0, -1.0) * 1.5 * math.sqrt((w**2).sum() / w.size)
            fa.get_buffer(f"feedback_{k}_{name}")[r] = torch.from_numpy(signs)
    step = compute(rule)
    assert_same(updates(rule, step), updates(fa, step), **close)


@pytest.mark.parametrize("bottleneck", [None, 4])
def test_low_rank_feedback_of_full_rank_with_q_from_the_weights_is_backprop(bottleneck):
    network = HierarchicalNetwork(width=4, bottleneck=bottleneck)  # as wide as there are classes
    rule, exact = make(LowRankFeedback, network), make(Backprop, network)
    with torch.no_grad():
        for k, name, matrix in rule.carriers():
            p = rule.get_buffer(f"P_{k}_{name}")
            p.copy_(torch.linalg.qr(p)[0])
            rule.parts[k - 1].get_parameter(f"Q_{name}").copy_(matrix @ p.transpose(-1, -2))
    step = compute(rule)
    assert_same(updates(rule, step), updates(exact, step), **close)


# -------------------------------------------------------------------- two forms, and no graph


@networks
@named([FeedbackAlignment, *LAYERED, *DIRECT, Pepita])
def test_explicit_and_autograd_form_agree(kind, network):
    explicit, autograd = make(kind, network), make(kind, network, form="autograd")
    step = compute(explicit)
    assert_same(updates(explicit, step), updates(autograd, step), rtol=1e-10, atol=1e-14)
    if kind not in (KolenPollack, LowRankFeedback, DirectKolenPollack):
        return
    for a, b in zip(updates(explicit, step), updates(autograd, step), strict=True):
        assert a.keys() == b.keys()


@named(RULES + [MaskLadder])
def test_explicit_form_needs_no_graph(kind):
    network = HierarchicalNetwork(width=12, bottleneck=None if kind is MaskLadder else 6)
    rule = make(kind, network)
    with torch.inference_mode():
        step = rule.compute(rule.data.train_batch(0))
        ours = rule.updates(step)
    for tensor in [t for update in ours for t in update.values()] + list(rule.estimates.values()):
        assert tensor.is_inference() and tensor.grad_fn is None
    if kind is not MaskLadder and kind is not NodePerturbation:
        with torch.inference_mode(), pytest.raises(RuntimeError):  # the other form does need one
            make(kind, network, form="autograd").layer_updates(step)


# -------------------------------------------------------------------- sign feedback


@named([UniformSignFeedback, FixedRandomSignFeedback, BatchwiseRandomSignFeedback])
def test_sign_feedback_has_the_signs_of_the_weights_as_they_are_now(kind):
    rule = make(kind, NETWORKS["shared, bottleneck"])
    for _ in range(2):
        for k, name, matrix in rule.carriers():
            feedback = rule.feedback(k, name)
            assert feedback.shape == matrix.shape and torch.equal(feedback.sign(), matrix.sign())
        before = [rule.feedback(k, name).abs() for k, name, _ in rule.carriers()]
        with torch.no_grad():
            for _, _, matrix in rule.carriers():
                matrix.neg_().add_(0.01)
        after = [rule.feedback(k, name).abs() for k, name, _ in rule.carriers()]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))  # sizes do not follow the weights


def test_sizes_of_sign_feedback_stay_or_are_drawn_afresh_each_step():
    fixed, fresh = (
        make(kind, HierarchicalNetwork(width=48)) for kind in (FixedRandomSignFeedback, BatchwiseRandomSignFeedback)
    )
    sizes = {}
    for rule in (fixed, fresh):
        sizes[rule] = [rule.feedback(2, "weight_RGFE").abs().detach()]
        updates(rule, compute(rule))
        assert torch.equal(rule.feedback(2, "weight_RGFE").abs(), sizes[rule][0])  # within a step
        apply(rule)
        sizes[rule].append(rule.feedback(2, "weight_RGFE").abs().detach())
    assert torch.equal(*sizes[fixed])
    one, two = sizes[fresh]
    assert abs(np.corrcoef(one.flatten(), two.flatten())[0, 1]) < 0.05  # 13,824 numbers
    rms = fresh.network.layers[1].weight_RGFE.detach().square().mean().sqrt()
    for size in (one, two, sizes[fixed][0]):
        assert abs(float(size.square().mean().sqrt() / rms) - 1) < 0.03
        assert abs(float(size.mean() / rms) - math.sqrt(2 / math.pi)) < 0.03
    assert not torch.allclose(one[0], one[1])  # replicas
    assert "key_R" in fresh.state_dict()


# -------------------------------------------------------------------- learned layerwise feedback


@pytest.mark.parametrize("clip", [None, 1e-3])
@pytest.mark.parametrize("network", ["shared, bottleneck", "local"])
def test_kolen_pollack_feedback_comes_to_the_weights_at_the_rate_of_decay(network, clip):
    rule = make(KolenPollack, NETWORKS[network], decay=0.03, clip=clip, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))

    def gaps():
        return [rule.feedback(k, name).detach() - matrix.detach() for k, name, matrix in rule.carriers()]

    start, weights = [gap.clone() for gap in gaps()], [matrix.detach().clone() for _, _, matrix in rule.carriers()]
    assert all(gap.abs().max() > 0.1 for gap in start)
    train(rule, 12)
    for before, after in zip(start, gaps(), strict=True):
        torch.testing.assert_close(after, before * 0.97**12, rtol=1e-6, atol=1e-10)
    for before, (_, _, matrix) in zip(weights, rule.carriers(), strict=True):
        assert (matrix - before * 0.97**12).abs().max() > 1e-2  # it was not decay alone that moved the weights


def test_clipping_scales_weights_and_their_feedback_once():
    rule = make(KolenPollack, clip=1e-3, decay=0.0, optimizer=lambda p: torch.optim.SGD(p, lr=1.0))
    before = [[p.detach().clone() for p in part.parameters()] for part in rule.parts]
    train(rule, 1)
    for part, old in zip(rule.parts, before, strict=True):
        square_R = sum((p.detach() - q).square().flatten(1).sum(1) for p, q in zip(part.parameters(), old, strict=True))
        torch.testing.assert_close(square_R.sqrt(), torch.full((3,), 1e-3), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("activation", "scale"), [("linear", 1.0), ("relu", 0.5)])
def test_weight_mirror_comes_to_the_weights_in_a_linear_network_and_to_half_of_them_with_relu(activation, scale):
    network = HierarchicalNetwork(width=8, activation=activation, bottleneck=4)
    rule = make(WeightMirror, network, samples=60, rate=0.05)
    assert all(abs(cosine(rule.feedback(k, name), matrix)) < 0.6 for k, name, matrix in rule.carriers())
    for t in range(80):
        updates(rule, compute(rule, t))
        apply(rule)
    for k, name, matrix in rule.carriers():
        for r in range(3):
            feedback, weight = rule.feedback(k, name)[r], matrix[r].detach()
            assert cosine(feedback, weight) > 0.99
            expected = scale if name == "weight_RGFE" else 1.0
            assert abs(float((feedback * weight).sum() / weight.square().sum()) / expected - 1) < 0.03, (k, name)


def test_weight_mirror_is_its_equation_written_as_loops():
    rule = make(WeightMirror, HierarchicalNetwork(width=5, bottleneck=3), samples=2)
    with torch.no_grad():
        for layer in rule.network.layers:
            layer.bias_RG1E.copy_(torch.linspace(-1, 1, 5).expand_as(layer.bias_RG1E))
    step = compute(rule)
    before = {name: buffer.clone() for name, buffer in rule.named_buffers()}
    updates(rule, step)
    assert len(rule.carriers()) == 5  # two layers and two projections and the readout
    for k, name, matrix in rule.carriers():
        inputs = matrix.shape[-2]
        x = rule.noise(step.batch, f"mirror {k} {name}", (2, 1, inputs))
        for r in range(3):
            w, total = matrix[r].detach().numpy().reshape(inputs, -1), np.zeros((inputs, matrix.shape[-1]))
            b = np.linspace(-1, 1, 5) if name == "weight_RGFE" else 0
            for string in range(16):
                for sample in range(2):
                    for sign in (1, -1):
                        noise = sign * x[r, string, sample, 0].numpy()
                        y = w.T @ noise + b
                        if name == "weight_RGFE":
                            y = np.maximum(y, 0)
                        total += np.outer(noise, y) / (16 * 2 * 2)
            ours = rule.estimates[f"feedback_{k}_{name}"][r].numpy().reshape(inputs, -1)
            np.testing.assert_allclose(ours, total, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(buffer, before[name]) for name, buffer in rule.named_buffers())
    # the tracked matrices, not the weights, carry the error
    fa = make(FeedbackAlignment, HierarchicalNetwork(width=5, bottleneck=3))
    fa.load_state_dict(rule.state_dict())
    assert_same(updates(rule, step), updates(fa, step))


@pytest.mark.parametrize("network", ["shared, bottleneck", "local", "tanh"])
def test_low_rank_p_finds_the_leading_directions_of_the_errors_and_q_learns_what_is_left(network):
    rule = make(LowRankFeedback, NETWORKS[network], rank=2, rate=0.5)
    step = compute(rule)
    with torch.no_grad():
        for _ in range(600):
            rule.updates(step)
            for name, estimate in rule.tracked(rule.estimates).items():
                rule.get_buffer(name).lerp_(estimate, rule.rate)
        ours = rule.updates(step)
    error, p = step.readout.error_RBN, rule.get_buffer("P_4_weight_RFN")
    covariance = error.mT @ error  # it does not depend on P
    values = torch.linalg.eigvalsh(covariance)
    kept = (p @ covariance @ p.mT).diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(kept, values[:, -2:].sum(1), rtol=5e-3, atol=0)
    assert (values[:, -2:].sum(1) / values.sum(1) < 0.99).all()
    torch.testing.assert_close(p @ p.mT, torch.eye(2).expand(3, 2, 2), rtol=0, atol=1e-3)
    for r in range(3):
        total = np.zeros((12, 2))
        for b in range(16):
            total += np.outer(step.states[-1].out_RBDC[r, b, 0].numpy(), p[r].numpy() @ error[r, b].numpy()) / 16
        np.testing.assert_allclose(ours[-1]["Q_weight_RFN"][r].numpy(), total, rtol=1e-9, atol=1e-12)


def test_low_rank_feedback_hands_down_no_more_than_its_rank():
    rule, step = make(LowRankFeedback, HierarchicalNetwork(width=12), rank=2), None
    step = compute(rule)
    for k, name, _ in rule.carriers():
        with torch.no_grad():
            assert torch.linalg.matrix_rank(rule.feedback(k, name)).unique().tolist() == [2]
    ours, p = updates(rule, step), rule.get_buffer("P_2_weight_RGFE")
    h1 = arrays(rule, step, 0)[0][1]  # layer 2 of replica 0, by loops, from the deltas of autograd of its own output
    third = rule.network.layers[2]
    e = step.readout.error_RBN / 16
    with torch.no_grad():
        s3 = torch.einsum("rbn,rfn->rbf", e, rule.feedback(4, "weight_RFN"))
        d3 = s3 * (plain_forward(rule, encoded(rule, step.batch.x_RBD))[1][2][1][:, :, 0] > 0)
        s2 = torch.einsum("rbe,rfe->rbf", d3, rule.feedback(3, "weight_RGFE")[:, 0]).unflatten(-1, (2, 12))
        d2 = (s2 * (plain_forward(rule, encoded(rule, step.batch.x_RBD))[1][1][1] > 0))[0].numpy()
    weight, _ = loops(h1, d2, third.patch)
    np.testing.assert_allclose(ours[1]["weight_RGFE"][0, 0].numpy(), weight, rtol=1e-9, atol=1e-13)
    q, _ = loops(h1, d2 @ p[0, 0].numpy().T, third.patch)
    np.testing.assert_allclose(ours[1]["Q_weight_RGFE"][0, 0].numpy(), q, rtol=1e-9, atol=1e-13)
    # one step of Oja's rule on the deltas
    flat, start = d2.reshape(-1, 12), p[0, 0].numpy()
    change = np.zeros_like(start)
    for delta in flat:
        y = start @ delta
        change += np.outer(y, delta) - np.outer(y, y) @ start
    ours_p = rule.tracked(rule.estimates)["P_2_weight_RGFE"][0, 0].numpy()
    np.testing.assert_allclose(ours_p - start, change / (flat**2).sum(), rtol=1e-8, atol=1e-12)


@named([KolenPollack, LowRankFeedback, DirectKolenPollack])
def test_decay_is_taken_from_weights_and_their_feedback_after_a_step(kind):
    rule = make(kind, decay=0.25)
    before = {name: p.detach().clone() for name, p in rule.named_parameters()}
    with torch.no_grad():
        rule.after_step()
    carried = [f"{k}.{name}" for k, name, _ in rule.carriers()] if kind is not DirectKolenPollack else None
    for j, part in enumerate(rule.parts, 1):
        for name, parameter in part.named_parameters():
            full = f"network.layers.{j - 1}.{name}" if j <= 3 else f"readout.{name}"
            stays = name.startswith("bias") or (carried is not None and name == "weight_RGFE" and j == 1)
            torch.testing.assert_close(parameter.detach(), before[full] * (1 if stays else 0.75))


# -------------------------------------------------------------------- learned direct feedback


def test_dkp_is_its_equation_written_as_loops():
    rule = make(DirectKolenPollack, HierarchicalNetwork(width=5))
    step = compute(rule)
    ours = updates(rule, step)
    for r in range(3):
        h, a, e = arrays(rule, step, r)
        for k, layer in enumerate(rule.network.layers, 1):
            D, feedback = h[k].shape[1], layer.get_parameter("feedback_RNF")[r].detach().numpy()
            delta, learned = np.zeros((16, D, 5)), np.zeros_like(feedback)
            for b in range(16):
                for d in range(D):
                    for i in range(5):
                        delta[b, d, i] = (feedback[:, d * 5 + i] @ e[b]) * (a[k][b, d, i] > 0) / 16
                        for c in range(4):
                            learned[c, d * 5 + i] += e[b, c] * h[k][b, d, i] / 16
            assert_loops(ours[k - 1], r, *loops(h[k - 1], delta, 2))
            np.testing.assert_allclose(ours[k - 1]["feedback_RNF"][r].numpy(), learned, rtol=1e-9, atol=1e-13)


def test_dkp_below_the_readout_learns_what_the_readout_learns():
    rule = make(DirectKolenPollack, decay=0.03, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))

    def gap():
        return rule.network.layers[-1].get_parameter("feedback_RNF").detach().mT - rule.readout.weight_RFN.detach()

    start = gap()
    train(rule, 10)
    torch.testing.assert_close(gap(), start * 0.97**10, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(("activation", "bottleneck"), [("linear", None), ("relu", None), ("tanh", 3)])
def test_forward_dfa_comes_to_the_mean_jacobian(activation, bottleneck):
    rule = make(ForwardDirectFeedback, HierarchicalNetwork(4, activation=activation, bottleneck=bottleneck), batch_size=64)
    x = encoded(rule, rule.data.train_batch(0).x_RBD)
    total = {name: torch.zeros_like(buffer) for name, buffer in rule.named_buffers() if name.startswith("feedback")}
    for t in range(600):  # 64 training strings: every batch is all of them
        step = compute(rule, t)
        updates(rule, step)
        for name in total:
            total[name] += rule.estimates[name] / 600
    _, layers = plain_forward(rule, x)
    for k in (1, 2, 3):
        out = layers[k - 1][3].detach().requires_grad_()
        h = out
        for j in range(k + 1, 4):
            h = plain_layer(rule, j, h)[3]
        logits = plain_logits(rule, h)
        jacobian = torch.stack(
            [torch.autograd.grad(logits[:, :, c].sum(), out, retain_graph=True)[0].flatten(2).mean(1) for c in range(4)], 1
        )
        ours = total[f"feedback_{k}"]
        assert ours.shape == jacobian.shape
        for r in range(3):
            assert cosine(ours[r], jacobian[r]) > 0.99, (k, r)
            assert abs(float((ours[r] * jacobian[r]).sum() / jacobian[r].square().sum()) - 1) < 0.1
        assert cosine(rule.feedback(k), jacobian) < 0.5  # the start is random


def test_forward_dfa_uses_and_moves_what_it_tracks():
    rule, dfa = make(ForwardDirectFeedback, rate=0.1), make(DirectFeedbackAlignment)
    step = compute(rule)
    ours, before = updates(rule, step), rule.get_buffer("feedback_2").clone()
    dfa.load_state_dict(rule.state_dict())
    assert_same(ours, updates(dfa, step))
    estimate = rule.estimates["feedback_2"].clone()
    state = train(rule, 1)
    torch.testing.assert_close(state["feedback_2"], 0.9 * before + 0.1 * estimate)


@networks
def test_ebd_descends_the_correlation_of_activity_and_error(network):
    rule = make(ErrorBroadcastDecorrelation, network, rate=0.3, feedback_scale=1.0)
    step = compute(rule)
    ours, e = updates(rule, step), step.readout.error_RBN
    h = encoded(rule, step.batch.x_RBD)
    for k, layer in enumerate(rule.network.layers, 1):
        out = plain_layer(rule, k, h)[3]
        r = 0.7 * rule.get_buffer(f"feedback_{k}") + 0.3 * torch.einsum("rbn,rbf->rnf", e, out.flatten(2)) / 16
        parameters = dict(layer.named_parameters())
        grads = torch.autograd.grad(r.square().sum() / 2, parameters.values())
        for name, grad in zip(parameters, grads, strict=True):
            torch.testing.assert_close(0.3 * ours[k - 1][name], grad, **close)
        estimate = rule.estimates[f"feedback_{k}"]
        torch.testing.assert_close(0.7 * rule.get_buffer(f"feedback_{k}") + 0.3 * estimate, r.detach())
        h = out.detach()


# -------------------------------------------------------------------- two forward passes


@networks
def test_pepita_and_node_perturbation_run_the_second_pass_that_they_say(network):
    rule = make(Pepita, network, feedback_scale=3.0)
    step = compute(rule)
    x = encoded(rule, step.batch.x_RBD)
    with torch.no_grad():
        logits, first = plain_forward(rule, x)
        e = torch.softmax(logits, -1) - functional.one_hot(step.batch.y_RB.long(), 4)
        modulation = torch.einsum("rbn,rnf->rbf", e, rule.feedback_RNF)
        _, second = plain_forward(rule, x + modulation.view(x.shape))
    for layer, a, b, ours, again in zip(rule.network.layers, first, second, step.states, step.view_states, strict=True):
        torch.testing.assert_close(layer.by_position(ours.units_RGNE, ours), a[2])
        torch.testing.assert_close(layer.by_position(again.units_RGNE, again), b[2])
        torch.testing.assert_close(again.out_RBDC, b[3])
        assert (a[3] - b[3]).abs().max() > 0.1

    rule = make(NodePerturbation, network, sigma=0.5)
    step = compute(rule)
    noises = [[None if nu is None else 0.5 * nu for nu in rule.perturbation(step.batch, k)] for k in (1, 2, 3)]
    with torch.no_grad():
        logits, noisy = plain_forward(rule, x, noises)
    torch.testing.assert_close(step.view_states[-1].out_RBDC, noisy[-1][3])
    y = step.batch.y_RB.long().flatten()
    loss = functional.cross_entropy(logits.flatten(0, 1), y, reduction="none").view(3, 16)
    torch.testing.assert_close(step.view_readout.loss_RB, loss)
    flat = torch.cat([nu.flatten() for pair in noises for nu in pair if nu is not None])
    assert abs(float(flat.std()) - 0.5) < 0.03 and len(flat.unique()) == len(flat)


def test_pepita_is_its_equation_written_as_loops():
    rule = make(Pepita, HierarchicalNetwork(width=5, bottleneck=3), feedback_scale=2.0)
    step = compute(rule)
    ours = updates(rule, step)
    x = encoded(rule, step.batch.x_RBD)
    assert 0.8 < float(rule.feedback_RNF.std()) / (2 * math.sqrt(2 / 32)) < 1.2
    with torch.no_grad():
        logits, first = plain_forward(rule, x)
        error = torch.softmax(logits, -1) - functional.one_hot(step.batch.y_RB.long(), 4)
        modulated = x.clone()
        for r in range(3):
            for b in range(16):
                modulated[r, b] += (rule.feedback_RNF[r].T @ error[r, b]).view(8, 4)
        _, second = plain_forward(rule, modulated)
    for r in range(3):
        below = modulated[r].numpy()
        for k, layer in enumerate(rule.network.layers, 1):
            units, units2 = (states[k - 1][2][r].numpy() for states in (first, second))
            assert_loops(ours[k - 1], r, *loops(below, (units - units2) / 16, 2))
            out, out2 = (states[k - 1][3][r].numpy() for states in (first, second))
            if layer.projection_RGEC is not None:
                projection, _ = loops(units2, (out - out2) / 16, 1)
                np.testing.assert_allclose(ours[k - 1]["projection_RGEC"][r, 0].numpy(), projection, rtol=1e-9, atol=1e-13)
            below = out2


def test_node_perturbation_is_its_equation_written_as_loops():
    rule = make(NodePerturbation, HierarchicalNetwork(width=5, bottleneck=3), sigma=0.3)
    step = compute(rule)
    ours = updates(rule, step)
    change = (step.view_readout.loss_RB - step.readout.loss_RB).numpy()
    for r in range(3):
        h, a, _ = arrays(rule, step, r)
        for k, layer in enumerate(rule.network.layers, 1):
            units, projection = rule.perturbation(step.batch, k)
            noise = 0.3 * units[r].numpy()
            delta = np.stack([change[r, b] / 0.3**2 * noise[b] / 16 for b in range(16)])
            assert_loops(ours[k - 1], r, *loops(h[k - 1], delta, 2))
            if layer.projection_RGEC is not None:
                noise = 0.3 * projection[r].numpy()
                delta = np.stack([change[r, b] / 0.3**2 * noise[b] / 16 for b in range(16)])
                weight, _ = loops(np.maximum(a[k], 0), delta, 1)
                np.testing.assert_allclose(ours[k - 1]["projection_RGEC"][r, 0].numpy(), weight, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("network", [HierarchicalNetwork(6, bottleneck=3), LocallyConnectedNetwork(6), DenseNetwork(6)])
def test_node_perturbation_is_backprop_on_average(network):
    rule, exact = make(NodePerturbation, network, seeds=(0,), sigma=1e-4), make(Backprop, network, seeds=(0,))
    with torch.no_grad():  # no unit stands on the kink of ReLU, as those do whose inputs are all silent and whose bias is 0
        for one, two in zip(rule.network.layers, exact.network.layers, strict=True):
            one.bias_RG1E.copy_(torch.linspace(-0.2, 0.3, 6).expand_as(one.bias_RG1E))
            two.bias_RG1E.copy_(one.bias_RG1E)
    batch, copies = rule.data.train_batch(0), 20000
    batch = batch._replace(x_RBD=batch.x_RBD[:, :4].repeat(1, copies, 1), y_RB=batch.y_RB[:, :4].repeat(1, copies))
    key = torch.arange(4 * copies)[None] * 7919 + 13
    with torch.no_grad():
        step = rule.compute(batch._replace(key_RB=key))
        ours, theirs = rule.layer_updates(step), exact.layer_updates(exact.compute(batch))
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert cosine(a[name], b[name]) > 0.97, name
            assert abs(float((a[name] * b[name]).sum() / b[name].square().sum()) - 1) < 0.15, name


# -------------------------------------------------------------------- the mask ladder


@pytest.mark.parametrize("activation", ["relu", "tanh", "linear"])
@pytest.mark.parametrize(("masks", "feedback"), [*LADDER[1:5], ("batch_mean", "random"), ("other_string", "random"), LADDER[7]])
def test_rungs_of_the_mask_ladder_are_their_equation_written_as_loops(masks, feedback, activation):
    rule = make(MaskLadder, HierarchicalNetwork(5, activation=activation), seeds=(0, 1), masks=masks, feedback=feedback)
    step = compute(rule)
    ours = updates(rule, step)
    slope = {"relu": lambda a: (a > 0) * 1.0, "tanh": lambda a: 1 - np.tanh(a) ** 2, "linear": np.ones_like}[activation]
    for r in range(2):
        h, a, e = arrays(rule, step, r)
        if feedback == "direct":
            for k in (1, 2, 3):
                matrix = rule.get_buffer(f"feedback_{k}")[r].numpy()
                delta = np.stack([(matrix.T @ e[b] / 16).reshape(-1, 5) for b in range(16)])
                assert_loops(ours[k - 1], r, *loops(h[k - 1], delta, 2))
            continue
        matrices = {}
        for k, name in ((2, "weight_RGFE"), (3, "weight_RGFE"), (4, "weight_RFN")):
            parameter = (
                rule.parts[k - 1].get_parameter(name) if feedback == "transposed" else rule.get_buffer(f"feedback_{k}_{name}")
            )
            matrices[k] = parameter[r].detach().numpy().reshape(-1, parameter.shape[-1])
        signal = np.stack([(matrices[4] @ e[b] / 16).reshape(1, 5) for b in range(16)])  # at layer 3's output
        for k in (3, 2, 1):
            own_mask = slope(a[k])
            assert_loops(ours[k - 1], r, *loops(h[k - 1], signal * own_mask, 2))
            if k == 1:
                break
            D, passed = signal.shape[1], np.zeros_like(signal)
            for b in range(16):
                for d in range(D):
                    if masks == "batch_mean":
                        mask = sum(own_mask[c, d] for c in range(16)) / 16
                    elif masks == "other_string":
                        mask = own_mask[(b + 1) % 16, d]
                    else:
                        mask = 0.5 if activation == "relu" else own_mask.mean()
                    passed[b, d] = signal[b, d] * mask
            below = np.zeros((16, 2 * D, 5))
            for b in range(16):
                for d in range(D):
                    both = matrices[k] @ passed[b, d]
                    below[b, 2 * d], below[b, 2 * d + 1] = both[:5], both[5:]
            signal = below


def test_rungs_differ_from_one_another_in_the_layers_below_the_top():
    step, found = None, []
    for masks, feedback in LADDER:
        rule = make(MaskLadder, HierarchicalNetwork(12), masks=masks, feedback=feedback)
        step = step or compute(rule)
        found.append(updates(rule, step)[0]["weight_RGFE"])
    assert all(abs(cosine(found[i], found[j])) < 0.999 for i in range(8) for j in range(i))


# -------------------------------------------------------------------- locality


def rules_and_rungs():
    for kind in RULES:
        for network in ("shared", "shared, bottleneck", "local"):
            yield pytest.param(kind, network, {}, id=f"{kind.__name__}, {network}")
    for masks, feedback in LADDER:
        for network in ("shared", "local", "tanh"):
            yield pytest.param(
                MaskLadder, network, {"masks": masks, "feedback": feedback}, id=f"{masks}, {feedback}, {network}"
            )


def scrambled(state):
    return type(state)(*(None if t is None else t.flip(-1) * 1.5 + 0.1 for t in state))


def same(a, b) -> list[bool]:
    return [x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize(("kind", "network", "arguments"), list(rules_and_rungs()))
def test_an_update_depends_on_what_its_locality_says_and_on_nothing_else(kind, network, arguments):
    rule = make(kind, NETWORKS[network], **arguments)
    step, locality = compute(rule), rule.locality
    buffers = {name: buffer.clone() for name, buffer in rule.named_buffers()}
    before = updates(rule, step)
    assert same(before, updates(rule, step)) == [True] * 3  # a pure function
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in rule.named_buffers())

    batch = step.batch._replace(y_RB=(step.batch.y_RB + 1) % 4)
    with torch.no_grad():
        assert same(before, updates(rule, rule.compute(batch))) == [not locality.label] * 3

    class Readout(type(rule.readout)):
        def forward(self, out_RBDC, y_RB):
            state = super().forward(out_RBDC, y_RB)
            return state._replace(error_RBN=state.error_RBN.flip(-1), loss_RB=state.loss_RB.square())

    rule.readout.__class__ = Readout
    assert same(before, updates(rule, compute(rule))) == [not locality.output_error] * 3
    rule.readout.__class__ = Readout.__mro__[1]

    # above the top layer there is no layer but the readout: random feedback does not depend on its weights
    signs = (UniformSignFeedback, FixedRandomSignFeedback, BatchwiseRandomSignFeedback)
    transported = kind in (*signs, KolenPollack, LowRankFeedback) or arguments.get("feedback") == "transposed"
    for k in range(3):
        other = copy.deepcopy(rule)
        other.__dict__["data"] = rule.data
        with torch.no_grad():
            for j, part in enumerate(other.parts):
                if j != k:
                    for parameter in part.parameters():
                        parameter.mul_(-0.5).add_(0.1)
        states, views = (
            None if s is None else [x if j == k else scrambled(x) for j, x in enumerate(s)]
            for s in (step.states, step.view_states)
        )
        sees = locality.other_layers and (k < 2 or transported)
        assert same(before, updates(other, step._replace(states=states, view_states=views)))[k] == (not sees), k

    def part(start, stop):
        cut = {name: getattr(step.batch, name)[:, start:stop] for name in ("x_RBD", "y_RB", "key_RB")}
        with torch.no_grad():
            return updates(rule, rule.compute(step.batch._replace(**cut)))

    one, two = part(0, 8), part(8, 16)
    for k in range(3 if not locality.pair else 1):
        mean = (one[k]["weight_RGFE"] + two[k]["weight_RGFE"]) / 2
        assert torch.allclose(before[k]["weight_RGFE"], mean, rtol=1e-9, atol=1e-12) == (not locality.pair)


# -------------------------------------------------------------------- training


@named([*LAYERED, DirectKolenPollack, ForwardDirectFeedback, ErrorBroadcastDecorrelation, Pepita, NodePerturbation])
def test_a_replica_of_two_trains_as_it_would_alone(kind):
    together = train(make(kind, seeds=(5, 0)), 3)
    for r, seed in enumerate((5, 0)):
        alone = train(make(kind, seeds=(seed,)), 3)
        for name, value in alone.items():
            if not name.startswith("accuracy"):
                torch.testing.assert_close(together[name][r : r + 1], value, rtol=1e-7, atol=1e-9)


@named([*LAYERED, DirectKolenPollack, ForwardDirectFeedback, ErrorBroadcastDecorrelation, Pepita, NodePerturbation, MaskLadder])
def test_bf16_mixed_takes_the_step_of_float32(kind):
    torch.set_default_dtype(torch.float32)
    network = HierarchicalNetwork(width=12, bottleneck=None if kind is MaskLadder else 6)
    start = make(kind, network).state_dict()
    single, mixed = (train(make(kind, network), 1, precision=p) for p in ("32-true", "bf16-mixed"))
    for name, value in single.items():
        assert mixed[name].dtype == value.dtype and torch.isfinite(mixed[name].float()).all()
    agree = [((single[n] - start[n]).sign() == (mixed[n] - start[n]).sign()).flatten() for n in start if "weight" in n]
    assert torch.cat(agree).float().mean() > 0.9
    for name, value in single.items():
        if name.startswith(("feedback", "P_")):
            torch.testing.assert_close(mixed[name], value, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("kind", "arguments", "key"),
    [
        (UniformSignFeedback, {"feedback_scale": 0.0}, "model.feedback_scale"),
        (KolenPollack, {"decay": 1.0}, "model.decay"),
        (KolenPollack, {"decay": -0.1}, "model.decay"),
        (KolenPollack, {"form": "other"}, "model.form"),
        (WeightMirror, {"samples": 0}, "model.samples"),
        (WeightMirror, {"rate": 0.0}, "model.rate"),
        (LowRankFeedback, {"rank": 0}, "model.rank"),
        (LowRankFeedback, {"rank": 5}, "model.rank"),
        (LowRankFeedback, {"decay": 1.0}, "model.decay"),
        (LowRankFeedback, {"rate": 1.5}, "model.rate"),
        (DirectKolenPollack, {"decay": 1.0}, "model.decay"),
        (ForwardDirectFeedback, {"rate": 0.0}, "model.rate"),
        (ErrorBroadcastDecorrelation, {"rate": 2.0}, "model.rate"),
        (Pepita, {"feedback_scale": 0.0}, "model.feedback_scale"),
        (Pepita, {"form": "other"}, "model.form"),
        (NodePerturbation, {"sigma": 0.0}, "model.sigma"),
        (MaskLadder, {"masks": "half"}, "model.masks"),
        (MaskLadder, {"feedback": "learned"}, "model.feedback"),
        (MaskLadder, {"masks": "exact", "feedback": "direct"}, "model.masks"),
        (MaskLadder, {"masks": "batch_mean", "feedback": "direct"}, "model.masks"),
        (MaskLadder, {"masks": "other_string", "feedback": "direct"}, "model.masks"),
        (MaskLadder, {"masks": "none", "feedback": "random"}, "model.masks"),
        (MaskLadder, {"masks": "none"}, "model.masks"),
        (MaskLadder, {"feedback_scale": 0.0}, "model.feedback_scale"),
        (MaskLadder, {"network": HierarchicalNetwork(12, normalise=True)}, "model.network.normalise"),
        (MaskLadder, {"network": HierarchicalNetwork(12, bottleneck=6)}, "model.network.bottleneck"),
    ],
)
def test_what_a_rule_cannot_have_is_refused_by_name(kind, arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(kind, **{"network": HierarchicalNetwork(12), **arguments})
    assert error.value.key == key

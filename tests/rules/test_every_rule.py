"""What holds for every rule: each settings file in ``configs/rules`` is a case, so a new rule is proved as soon as it lies there.

Shape suffixes: R replica, B batch, D position.
"""

from __future__ import annotations

import re
from argparse import ArgumentError
from functools import cache

import pytest
import torch
from rule_helpers import RULES, compute, every, from_settings, make_data, said, train, updates
from torch import Tensor

from datamodules import ClassPairs, HalfPairs, MaskedPairs, PositionHalfPairs, RandomHalfPairs, SelfPairs, SynonymPairs
from networks import CodeNetwork, HierarchicalNetwork
from networks.vector import VectorLayer
from rhm import InvalidInput
from rules import Locality, LocalRule, Step, Updates, checking
from rules.activity_perturbation import ActivityPerturbation
from rules.base.layerwise import LayerwiseRule
from rules.base.local_label_loss import LocalLabelLoss
from rules.base.perturbed import shake
from rules.forward_dfa import ForwardDirectFeedback
from rules.maths.forward_mode import tangents
from rules.maths.losses import batch_norm, project
from rules.simsiam import SimSiam


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# -------------------------------------------------------------------- locality

VARIANTS = (
    [],
    ["--model.network.bottleneck=6"],
    ["--model.network.normalise=true"],
    ["--model.network.bottleneck=null"],
    ["--model.network.normalise=false"],
)


ALWAYS = {
    "exchange_clustering": ["--model.one_by_one=false"],
    "exchange_clustering_label": ["--model.one_by_one=false"],
    "latent_clustering": ["--model.one_by_one=false", "--model.seeded=0"],
}
"""For rules whose layers learn one after another: so that each is looked at."""


@cache
def variants(name: str) -> list[tuple[list[str], LocalRule]]:
    """A settings file as it is, and with another network where the rule takes it: arguments, and the rule, to look at only."""
    found: list[tuple[list[str], LocalRule]] = []
    own = from_settings(name).network_config
    for args in VARIANTS:
        try:
            rule = from_settings(name, *args)
        except (InvalidInput, ArgumentError, ValueError):  # refused, which tests of the rule see
            continue
        network = rule.network_config
        if not args or (network.bottleneck is None, network.normalise) != (own.bottleneck is None, own.normalise):
            found.append(([*ALWAYS.get(name, []), *args], rule))
    return found


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("networks", ["its own", pytest.param("others", marks=pytest.mark.chaos)])
def test_an_update_depends_on_what_its_locality_allows_and_on_nothing_else(name, networks):
    for args in [ALWAYS.get(name, [])] if networks == "its own" else [args for args, _ in variants(name)[1:]]:
        check_locality(from_settings(name, *args), learns=name not in ("frozen", "frozen_below_top"))


def check_locality(rule: LocalRule, learns: bool) -> None:
    shake(rule)
    updates = said(rule, compute(rule))
    assert all(re.search(r"\d", name) for name in updates.estimates), "an estimate of no layer"
    assert checking.learning(updates) == [learns] * len(updates.layers)
    findings = [*checking.locality(rule)]
    names = {finding.check.removeprefix("locality.") for finding in findings}
    assert names == {"asking", "label", "error", "scalar_error", "other_layers", "lateral", "batch"}
    assert not [finding for finding in findings if not finding.ok]


@pytest.mark.parametrize("name", RULES)
def test_only_a_rule_that_says_so_looks_at_partners_or_at_other_positions(name):
    """With weights of their own at each position, where the rule allows it, and else without input at the others."""
    try:
        rule = from_settings(name, "--model.network=LocallyConnectedNetwork")
    except (InvalidInput, ValueError):
        rule = from_settings(name, *ALWAYS.get(name, []))
    shake(rule)
    assert checking.partners(rule).ok


def rows_of(rule: LocalRule, step: Step, k: int, name: str) -> list[Tensor]:
    """All that a matrix of layer ``k`` may have been given to carry forward, as rows ``[R, n, inputs]``."""
    layer, states = rule.network.layers[k - 1], [s[k - 1] for s in (step.states, step.view_states) if s is not None]
    if name == "weight_RGFE":
        inputs = [s.input_RGMF for s in states]
        if isinstance(rule, ActivityPerturbation | ForwardDirectFeedback) and k > 1:
            inputs.append(layer.fold(tangents(rule.network, step.states, rule.noises(step))[k - 2]))
        return [(layer._components(x) if isinstance(layer, VectorLayer) else x).flatten(1, 2) for x in inputs]
    rows = [s.units_RGME.flatten(1, 2) for s in states]
    rows += [s.out_RBDC.flatten(1, 2) for s in states] + [s.out_RBDC.flatten(2) for s in states]
    if isinstance(rule, ActivityPerturbation) and name == "label_head_RFE":
        rows.append(perturbed_alone(rule, rule.noises(step)[k - 1]))
    if isinstance(rule, LayerwiseRule):
        top = step.states[rule.trained_layers - 1]
        seen = [
            layer.by_position(s.units_RGME, s) if name.startswith("units_head") else rule.seen(layer, s, "head") for s in states
        ]
        sides = rule.positives(step, seen, k)
        head = layer.get_submodule(name.split(".")[0]) if "." in name else None
        compared = head(*sides) if head is not None else ()
        normed = isinstance(rule, SimSiam)  # their sides and their predictor's units are batch normalised
        told = [batch_norm(side) if normed else side for side in compared]
        rows += [side.flatten(1, 2) for side in (*sides, *told)]
        if name.endswith("predictor_out_REC"):
            hidden = [project(side, head.get_parameter("predictor_in_RCE")) for side in told]
            return [batch_norm(side).relu().flatten(1, 2) for side in hidden]
        rows.append(top.out_RBDC.flatten(2))
    return rows


def perturbed_alone(rule: ActivityPerturbation, noise_RBDC: Tensor) -> Tensor:
    """Noise at one position and one group of channels, and none elsewhere, as rows ``[R, n, D * C]``."""
    positions, channels = noise_RBDC.shape[2:]
    size = rule.group or channels
    place = torch.arange(positions * channels)
    group = place // channels * channels + place % channels // size
    alone = (group == group.unique()[:, None]).to(noise_RBDC.dtype)
    return (noise_RBDC.flatten(2)[:, :, None] * alone).flatten(1, 2)


MATRICES = re.compile(r"(projection_RGEC|label_head_RFE|(units_)?head\.(?!label_)\w+)$")


@pytest.mark.parametrize("name", every(6, RULES))
def test_a_matrix_is_used_in_both_directions_only_where_the_rule_says_so(name):
    for args, shipped in variants(name):
        wide = ["--data.batch_size=4", "--model.network.width=128"]
        if shipped.network_config.bottleneck is not None and not isinstance(shipped.network_config, CodeNetwork):
            wide.append("--model.network.bottleneck=96")
        if isinstance(shipped, LayerwiseRule) and shipped.block.head is not None:
            wide.append("--model.block.head=96")
        if isinstance(shipped, SimSiam):
            wide.append("--model.hidden=96")
        rule = from_settings(name, *args, *wide)
        shake(rule)
        moved = used_backwards(rule)
        assert any(moved.values()) == rule.locality.transport_within_layer, moved


@torch.no_grad()
def used_backwards(rule: LocalRule) -> dict[tuple[int, str], bool]:
    """For each matrix of a layer: it is changed so that it carries forward what it did; what still moves has gone back through it."""
    step, moved = compute(rule), {}
    before = updates(rule, step)
    generator = torch.Generator().manual_seed(0)
    for k, update in enumerate(before, 1):
        layer = rule.network.layers[k - 1]
        for key, matrix in layer.named_parameters():
            own = key == "weight_RGFE"  # of which a unit may know its own: those of the first half change, the others look
            if not own and not MATRICES.fullmatch(key):
                continue
            rows = [row for row in rows_of(rule, step, k, key) if row.shape[-1] == matrix.shape[-2]]
            assert rows, f"nothing known that {key} of layer {k} is given"
            forward_RMF = torch.cat(rows, 1)
            if own and forward_RMF.shape[1] >= forward_RMF.shape[2]:  # the first layer's tokens leave no room
                continue
            assert forward_RMF.shape[1] < forward_RMF.shape[2]
            change = torch.randn(matrix.shape, generator=generator).view(len(matrix), -1, *matrix.shape[-2:])
            basis = torch.linalg.qr(forward_RMF.transpose(1, 2)).Q[:, None]
            change = (change - basis @ (basis.transpose(-1, -2) @ change)).view_as(matrix)
            half = matrix.shape[-1] // 2
            if own:
                change[..., half:] = 0
            kept = matrix.clone()
            matrix.add_(change)
            after = updates(rule, step)[k - 1]
            matrix.copy_(kept)
            looking = {n: grad[..., half:] if own and n == key else grad for n, grad in update.items() if not own or n == key}
            moved[k, key] = any(
                not torch.allclose(grad, after[n][..., half:] if own else after[n], rtol=1e-7, atol=1e-12)
                for n, grad in looking.items()
            )
    return moved


class Tied(LocalRule):
    """Oja's subspace rule, ``dW = y (x - W y)``: the weights carry the activity back to the input."""

    knowledge, locality = "none", Locality(lateral=True, transport_within_layer=True)

    def layer_updates(self, step: Step) -> Updates:
        found = []
        for layer, state in zip(self.network.layers, step.states, strict=True):
            missing = state.input_RGMF - state.units_RGME @ layer.weight_RGFE.transpose(-1, -2)
            found.append({"weight_RGFE": -missing.transpose(-1, -2) @ state.units_RGME})
        return Updates(found)


def test_weights_that_carry_activity_back_to_their_own_input_are_found():
    rule = Tied(HierarchicalNetwork(width=128)).prepare(make_data(batch_size=4))
    assert used_backwards(rule) == {(2, "weight_RGFE"): True, (3, "weight_RGFE"): True}
    backprop = from_settings("backprop", "--data.batch_size=4", "--model.network.width=128")
    assert used_backwards(backprop) == {(2, "weight_RGFE"): False, (3, "weight_RGFE"): False}


# -------------------------------------------------------------------- the contract


@pytest.mark.parametrize(
    ("change", "got", "allowed"),
    [
        (lambda layers: layers[1].update(wieght_RGFE=layers[1]["weight_RGFE"]), "wieght_RGFE of layer 2", "weight_RGFE"),
        (
            lambda layers: layers[2].update(weight_RGFE=layers[2]["weight_RGFE"][:1]),
            "for weight_RGFE of layer 3",
            "[3, 1, 24, 12]",
        ),
        (lambda layers: layers.pop(), "updates of 2 layers", "3"),
        (lambda layers: layers.append({}), "updates of 4 layers", "3"),
    ],
    ids=["a name that no parameter has", "a gradient of another shape", "a layer less", "a layer more"],
)
def test_an_update_that_fits_no_layer_is_refused_by_name(change, got, allowed):
    rule = from_settings("backprop")
    right = rule.layer_updates

    def wrong(step):
        answer = right(step)
        change(answer.layers)
        return answer

    rule.layer_updates = wrong
    with pytest.raises(InvalidInput) as error:
        train(rule, steps=1)
    assert error.value.key == "Backprop.layer_updates" and got in str(error.value.got) and allowed in error.value.allowed


def test_an_estimate_of_another_shape_is_refused():
    rule = from_settings("forward_dfa")
    right = rule.layer_updates
    rule.layer_updates = lambda step: Updates(right(step).layers, {"feedback_2": torch.zeros(3, 4, 1)})
    with pytest.raises(InvalidInput, match=r"estimate of feedback_2 of shape \[3, 4, 1\]"):
        train(rule, steps=1)


def test_an_estimate_of_no_buffer_or_without_a_rate_is_refused_before_weights_move():
    rule = from_settings("forward_dfa")
    right, before = rule.layer_updates, {name: value.clone() for name, value in rule.state_dict().items()}
    rule.layer_updates = lambda step: Updates(right(step).layers, {"feedbak_2": torch.zeros(3, 4, 1)})
    with pytest.raises(InvalidInput, match="an estimate of feedbak_2, allowed: the name of a buffer"):
        train(rule, steps=1)
    rule.layer_updates, rule.rate = right, 0.0
    with pytest.raises(InvalidInput, match="estimates with a rate of 0"):
        train(rule, steps=1)
    assert all(torch.equal(value, before[name]) for name, value in rule.state_dict().items())


def test_a_parameter_of_no_layer_is_refused():
    rule = from_settings("backprop")
    rule.build = lambda: rule.register_parameter("stray", torch.nn.Parameter(torch.zeros(3)))
    with pytest.raises(InvalidInput, match="Backprop.build: got stray"):
        rule.prepare(rule.data)


@pytest.mark.parametrize("name", RULES)
def test_feedback_can_be_looked_at_before_the_first_step(name):
    rule = from_settings(name)
    for matrix, weights in rule.feedback_and_weights().values():
        assert matrix.shape == weights.shape and matrix.isfinite().all()


SIBLINGS_ONLY = ["exchange_clustering", "exchange_clustering_label", "latent_clustering"]
LAYERWISE = [name for name, path in RULES.items() if "pairs:" in path.read_text() and name not in SIBLINGS_ONLY]


@pytest.mark.parametrize(
    "pairs", ["ClassPairs", "HalfPairs", "PositionHalfPairs", "RandomHalfPairs", "MaskedPairs", "SelfPairs"]
)
@pytest.mark.parametrize("name", SIBLINGS_ONLY)
def test_a_rule_for_siblings_refuses_other_pairs(name, pairs):
    with pytest.raises(InvalidInput, match="allowed: SiblingPairs"):
        from_settings(name, f"--data.pairs={pairs}")


@pytest.mark.parametrize(
    "pairs",
    [ClassPairs(), SynonymPairs(2), HalfPairs(), PositionHalfPairs(), RandomHalfPairs(), MaskedPairs(), SelfPairs()],
    ids=lambda p: type(p).__name__,
)
@pytest.mark.parametrize("name", every(6, LAYERWISE))
def test_a_rule_for_pairs_takes_every_kind_of_pair(name, pairs):
    asked = [f"--data.pairs={type(pairs).__name__}", *(["--data.pairs.level=2"] * (hasattr(pairs, "level")))]
    if name == "scff" and pairs.random_halves:  # which has no matrix between the sides
        with pytest.raises(InvalidInput, match="takes the sides channel by channel"):
            from_settings(name, *asked)
        return
    rule = from_settings(name, *asked)
    assert rule.supervision in (pairs.knowledge, "labels") and isinstance(rule, LayerwiseRule)
    step = compute(rule)
    for update in updates(rule, step):
        for key, grad in update.items():
            assert torch.isfinite(grad).all() and grad.any(), key


# -------------------------------------------------------------------- replicas and precision


@pytest.mark.parametrize("name", every(6, RULES))
def test_a_replica_of_three_trains_as_it_would_alone(name):
    assert not checking.replicas(lambda seeds: from_settings(name, "--model.clip=0.1", seeds=seeds))


@pytest.mark.parametrize("name", every(6, RULES))
def test_bf16_mixed_follows_float32(name):
    torch.set_default_dtype(torch.float32)
    start = {key: value.clone() for key, value in from_settings(name).state_dict().items()}
    single = train(from_settings(name), steps=1, precision="32-true")
    mixed = train(from_settings(name), steps=1, precision="bf16-mixed")
    for key, value in single.items():
        assert mixed[key].dtype == value.dtype and torch.isfinite(mixed[key]).all(), key
    moved = [key for key in start if "weight" in key and not torch.equal(single[key], start[key])]
    change = [torch.cat([(state[key] - start[key]).flatten() for key in moved]) for state in (single, mixed)]
    assert torch.cosine_similarity(*change, dim=0) > 0.8


@pytest.mark.parametrize("network", ["LocallyConnectedNetwork", "DenseNetwork"])
@pytest.mark.parametrize("name", every(2, RULES))
def test_a_rule_runs_on_other_networks_or_says_why_not(name, network):
    try:
        rule = from_settings(name, f"--model.network={network}")
    except (InvalidInput, ValueError) as error:
        assert "allowed: " in str(error)
        return
    for update in updates(rule, compute(rule)):
        assert all(torch.isfinite(grad).all() for grad in update.values())


@pytest.mark.parametrize("name", every(2, RULES))
def test_a_batch_of_one_is_refused_by_rules_that_compare_strings_and_learned_from_by_others(name):
    one = "--data.batch_size=1"
    if from_settings(name).compares_strings:
        with pytest.raises(InvalidInput, match="data.batch_size: got 1, allowed: at least 2"):
            from_settings(name, one)
        return
    rule = from_settings(name, one)
    trained = train(rule, steps=2)
    assert all(value.isfinite().all() for value in trained.values()) and not rule.diverged_R.any()
    fresh = from_settings(name, one).state_dict()
    moved = [key for key in fresh if key.startswith("network.") and (trained[key] != fresh[key]).any()]
    assert bool(moved) == (name != "frozen")


@pytest.mark.parametrize("name", RULES)
def test_codes_are_refused_before_the_first_step_or_learned_through(name):
    try:
        rule = from_settings(name, "--model.network=CodeNetwork", "--model.network.bottleneck=3")
    except ValueError as refusal:  # one of ours, or with one of ours inside, from a constructor
        assert "model.network" in str(refusal) and "allowed:" in str(refusal)
        return
    assert rule.takes_codes
    train(rule, steps=2)


def test_one_weight_that_is_not_finite_marks_its_replica_and_no_other():
    rule = from_settings("backprop")
    assert not rule.diverged_R.any()
    with torch.no_grad():
        rule.network.layers[1].weight_RGFE[1, 0, 2, 3] = torch.inf
    assert rule.diverged_R.tolist() == [False, True, False]


# -------------------------------------------------------------------- other networks


@pytest.mark.parametrize("name", every(2, RULES))
def test_a_rule_runs_on_vector_units_or_says_why_not(name):
    try:
        rule = from_settings(name, "--model.network=VectorNetwork", "--model.network.width=6")
    except (InvalidInput, ValueError) as error:  # the settings' parser wraps what a constructor refuses
        assert "model.network" in str(error) and "allowed: " in str(error)
        assert name not in ("backprop", "dfa", "feedback_alignment", "frozen", "local_cross_entropy", "gevb")
        return
    with torch.no_grad():
        ours = rule.updates(compute(rule)).layers
    for part, update in zip(rule.parts, ours, strict=True):
        for key, grad in update.items():
            assert grad.shape == part.get_parameter(key).shape and torch.isfinite(grad).all()


@pytest.mark.parametrize("name", [n for n in RULES if n not in ("forward_forward", "gevb", "softhebb", *SIBLINGS_ONLY)])
def test_only_forward_forward_takes_a_network_with_a_label_slot(name):
    with pytest.raises(InvalidInput) as error:
        from_settings(name, "--model.network.label_slot=true")
    assert error.value.key == "model.network.label_slot"


# -------------------------------------------------------------------- products of local factors need no graph


def asks_autograd(rule: LocalRule) -> bool:
    """Whether it has a loss of which a base class takes the gradient."""
    return isinstance(rule, LocalLabelLoss) or (
        isinstance(rule, LayerwiseRule) and type(rule).pair_gradient is LayerwiseRule.pair_gradient
    )


def forbidden(*args, **kwargs):
    raise AssertionError("autograd was asked")


@pytest.mark.parametrize("name", every(2, RULES))
def test_a_rule_builds_no_graph_but_where_a_base_class_takes_its_gradient(name, monkeypatch):
    rule = from_settings(name)
    expected = updates(rule, compute(rule))
    monkeypatch.setattr(torch.autograd, "grad", forbidden)
    if asks_autograd(rule):
        with pytest.raises(AssertionError, match="autograd was asked"):
            updates(rule, compute(rule))
        return
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t), lambda t: t), torch.inference_mode():
        inferred = updates(rule, rule.compute(rule.data.train_batch(0)))
        for ours, update in zip(expected, inferred, strict=True):
            assert all(grad.grad_fn is None and torch.equal(grad, ours[name]) for name, grad in update.items())
    assert not saved


@pytest.mark.parametrize("name", ["clapp", "lpl", "dfa", "feedback_alignment", "pepita"])
def test_the_other_form_asks_autograd(name, monkeypatch):
    rule = from_settings(name, "--model.form=autograd")
    monkeypatch.setattr(torch.autograd, "grad", forbidden)
    with pytest.raises(AssertionError, match="autograd was asked"):
        updates(rule, compute(rule))

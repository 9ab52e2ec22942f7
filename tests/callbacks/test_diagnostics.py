"""Diagnostics, on cases whose answer is known and against loops; that they touch nothing; two ranks.

Shape suffixes: R replica, B batch, D position, C channel.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import json
import math
import re

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from command_line import RUN, refused, rhm
from pytorch_lightning.strategies import DDPStrategy
from rule_helpers import RULES, compute, every, from_settings, make_data
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks import (
    Diagnostic,
    GradientAlignment,
    LayerwiseLinearProbe,
    MaskStatistics,
    PairStatistics,
    RepresentationGeometry,
    SynonymicSensitivity,
)
from callbacks.diagnostic import StringDistance
from callbacks.pair_statistics import gates, statistics
from callbacks.representation_geometry import alignment, centred_gram, eigenvalues, load_network, participation_ratio, rank_me
from callbacks.synonymic_sensitivity import content_key
from datamodules import (
    ClassPairs,
    HalfPairs,
    MaskedPairs,
    PositionHalfPairs,
    RandomHalfPairs,
    SelfPairs,
    SiblingPairs,
    SynonymPairs,
)
from experiments.run.spread import put_together
from networks import DenseNetwork, HierarchicalNetwork, Layer, LayerState, LocallyConnectedNetwork
from rhm import InvalidInput, one_hot
from rhm.hashing import fold, normal, scramble, seed_keys
from rules import LocalRule
from rules.backprop import Backprop
from rules.base.layerwise import LayerwiseRule
from rules.clapp import CLAPP
from rules.contrastive import LayerwiseContrastive
from rules.dfa import DirectFeedbackAlignment
from rules.feedback_alignment import FeedbackAlignment
from rules.mask_ladder import MaskLadder

CELLS = ("exchange_clustering", "exchange_clustering_label", "latent_clustering")
"""No gradient passes their codes."""


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def trainer(*callbacks, **kwargs) -> pl.Trainer:
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    settings = {"accelerator": "cpu", "max_epochs": -1, "num_sanity_val_steps": 0, "precision": "64-true", **quiet, **kwargs}
    return pl.Trainer(callbacks=list(callbacks), **settings)


def measured(rule: LocalRule, diagnostic: Diagnostic) -> dict[str, torch.Tensor]:
    trainer(diagnostic).test(rule, rule.data, verbose=False)
    assert diagnostic.values and all(len(value) == rule.data.replicas for value in diagnostic.values.values())
    return diagnostic.values


def close(a, b, tolerance=1e-9):
    torch.testing.assert_close(torch.as_tensor(a).double(), torch.as_tensor(b).double(), rtol=tolerance, atol=tolerance)


QUICK = ["--trainer.callbacks+=LayerwiseLinearProbe", "--trainer.callbacks.logistic=false", "--tables=false"]


# -------------------------------------------------------------------- alignment


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_backprop_is_aligned_with_itself(seeds):
    values = measured(Backprop(HierarchicalNetwork(width=6)).prepare(make_data(seeds=seeds)), GradientAlignment())
    for k in (1, 2, 3):
        close(values[f"cosine/layer{k}"], torch.ones(len(seeds)))
        assert torch.equal(values[f"norm/layer{k}"], values[f"backprop_norm/layer{k}"])
        assert (values[f"null/layer{k}"] < 0.99).all()


def test_direct_feedback_through_the_readouts_weights_is_aligned_with_backprop_below_a_readout_only():
    rule = DirectFeedbackAlignment(DenseNetwork(width=8, depth=1)).prepare(make_data())
    before = measured(rule, GradientAlignment())
    assert (before["cosine/layer1"] < 0.99).all() and (before["weights/layer1"].abs() < 0.99).all()
    rule.feedback_1.copy_(3 * rule.readout.weight_RFN.detach().transpose(1, 2))
    values = measured(rule, GradientAlignment())
    close(values["cosine/layer1"], torch.ones(3))
    close(values["weights/layer1"], torch.ones(3))
    close(values["norm/layer1"], 3 * values["backprop_norm/layer1"])


def test_the_cosine_is_that_of_autograds_gradient_and_the_rules_update():
    rule = DirectFeedbackAlignment(HierarchicalNetwork(width=6)).prepare(make_data(seeds=(3,)))
    values = measured(rule, GradientAlignment())
    step = compute(rule)
    out = rule.network(step.batch.x_RBD)[-1].out_RBDC
    loss = torch.nn.functional.cross_entropy(rule.readout.logits(out.flatten(2))[0], step.batch.y_RB[0].long())
    update = rule.layer_updates(step).layers
    for k, layer in enumerate(rule.network.layers):
        parameters = dict(layer.named_parameters())
        grads = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        a = np.concatenate([g.numpy().ravel() for g in grads])
        b = np.concatenate([update[k][name].detach().numpy().ravel() for name in parameters])
        close(values[f"cosine/layer{k + 1}"], [a @ b / np.sqrt((a @ a) * (b @ b))])
        close(values[f"norm/layer{k + 1}"], [np.sqrt(b @ b)])
        close(values[f"chance/layer{k + 1}"], [len(a) ** -0.5])


def test_the_null_is_direct_feedback_through_matrices_drawn_anew():
    rule = DirectFeedbackAlignment(HierarchicalNetwork(width=6, bottleneck=3)).prepare(make_data())
    diagnostic = GradientAlignment(draws=1)
    first = copy.deepcopy(measured(rule, diagnostic))
    for k in (1, 2, 3):
        key = fold(seed_keys(torch.zeros(1, dtype=torch.int64)), "null", 0, 0, k - 1)
        matrix = rule.get_buffer(f"feedback_{k}")
        matrix.copy_(normal(key, tuple(matrix.shape[1:])).expand_as(matrix))
    values = measured(rule, diagnostic)
    for k in (1, 2, 3):
        close(values[f"cosine/layer{k}"].abs(), first[f"null/layer{k}"])
    step = compute(rule)
    with torch.no_grad():
        nulls = [GradientAlignment.null(rule, step, *key)[0]["weight_RGFE"] for key in [(0, 0), (0, 1), (1, 0)]]
    assert not torch.equal(nulls[0], nulls[1]) and not torch.equal(nulls[0], nulls[2])


def test_several_draws_are_a_root_mean_square():
    rule = Backprop(HierarchicalNetwork(width=4)).prepare(make_data(seeds=(0,)))
    values = measured(rule, GradientAlignment(draws=3))
    step, cosines = compute(rule), []
    with torch.no_grad():
        exact = rule.backpropagate(step, 0)[1]
        for draw in range(3):
            null = GradientAlignment.null(rule, step, draw, 0)[1]
            a, b = (np.concatenate([u[n].detach().numpy().ravel() for n in exact]) for u in (exact, null))
            cosines.append(a @ b / np.sqrt((a @ a) * (b @ b)))
    close(values["null/layer2"], [np.sqrt(np.mean(np.square(cosines)))])


LINEAR = {
    "shared": HierarchicalNetwork(width=5, activation="linear"),
    "local": LocallyConnectedNetwork(width=5, activation="linear"),
    "dense": DenseNetwork(width=5, activation="linear"),
}


@pytest.mark.parametrize("network", LINEAR)
def test_the_product_of_transposed_weights_is_the_jacobian_of_a_linear_network(network):
    rule = Backprop(LINEAR[network]).prepare(make_data(seeds=(0, 1)))
    states = rule.network(rule.data.train_batch(0).x_RBD[:, :1])
    products = rule.weight_products()
    for k, product in enumerate(products):
        out = states[k].out_RBDC.detach()

        def logits(h, k=k):
            above = rule.network.forward_from(k + 1, h) if k + 1 < len(rule.network) else []
            return rule.readout.logits((above[-1].out_RBDC if above else h).flatten(2))

        jacobian = torch.autograd.functional.jacobian(logits, out)  # R, 1, N, R, 1, D, C
        for r in range(2):
            close(product[r], jacobian[r, 0, :, r, 0].flatten(1))


def test_feedback_that_is_the_weights_is_aligned_with_them_matrix_by_matrix():
    rule = FeedbackAlignment(HierarchicalNetwork(width=6, bottleneck=3)).prepare(make_data())
    names = {"layer1", "layer2", "layer3", "layer1_projection", "layer2_projection"}
    before = measured(rule, GradientAlignment())
    assert {tag.split("/")[1] for tag in before if tag.startswith("weights")} == names
    for k, name, matrix in rule.carriers():
        rule.feedback(k, name).copy_(matrix if name != "projection_RGEC" else -matrix)
    values = measured(rule, GradientAlignment())
    for name in names:
        assert (before[f"weights/{name}"].abs() < 0.9).all()
        close(values[f"weights/{name}"], torch.full((3,), -1.0 if "projection" in name else 1.0))


GRADIENTS = [
    "sibling_contrastive",
    "class_contrastive",
    "clapp",
    "clapp_pp",
    "gim",
    "vicreg",
    "barlow_twins",
    "sfa",
    "scff",
    "phyll",
]


@pytest.mark.parametrize("name", GRADIENTS)
@torch.no_grad()
def test_end_to_end_is_the_gradient_of_the_top_layers_loss_by_finite_differences(name):
    """A central difference along a random direction in all layers at once."""
    rule = from_settings(name, seeds=(0,))
    assert isinstance(rule, LayerwiseRule)
    top = rule.trained_layers
    updates = rule.end_to_end(compute(rule)).layers
    direction = [
        {n: torch.randn_like(p) for n, p in layer.named_parameters() if n in layer.OWN} for layer in rule.network.layers[:top]
    ]

    def loss(size: float) -> float:
        for layer, change in zip(rule.network.layers, direction, strict=False):
            for n, part in change.items():
                layer.get_parameter(n).add_(part, alpha=size)
        value = float(rule.end_to_end(compute(rule)).losses[f"loss/layer{top}"])
        for layer, change in zip(rule.network.layers, direction, strict=False):
            for n, part in change.items():
                layer.get_parameter(n).sub_(part, alpha=size)
        return value

    slope = sum(
        float((update[n] * part).sum()) for update, change in zip(updates, direction, strict=True) for n, part in change.items()
    )
    assert slope != 0 and math.isclose((loss(1e-7) - loss(-1e-7)) / 2e-7, slope, rel_tol=1e-4)


@pytest.mark.parametrize("name", every(6, RULES))
def test_every_rule_is_measured_or_refused_in_a_line(name):
    rule = from_settings(name, seeds=(0, 1))
    if name in ("frozen", "frozen_below_top", *CELLS):
        with pytest.raises(InvalidInput, match="GradientAlignment"):
            GradientAlignment().check(rule)
        return
    values = measured(rule, GradientAlignment(draws=1))
    layers = {tag for tag in values if tag.startswith("cosine")}
    assert len(layers) == rule.trained_layers
    assert all((values[tag].abs() <= 1 + 1e-9).all() for tag in layers)
    if isinstance(rule, LayerwiseRule):
        top = rule.trained_layers
        if rule.block.expansion == "backprop":  # the top layer's loss is what is propagated back
            close(values[f"cosine/layer{top}"], torch.ones(2))
        pairs = measured(rule, PairStatistics())
        assert f"positive/layer{top}" in pairs and (f"open_positive/layer{top}" in pairs) == name.startswith("clapp")
    elif name != "backprop" and rule.family == "feedback":
        assert any((values[tag] < 0.99).all() for tag in layers)


# -------------------------------------------------------------------- masks


def test_the_first_rung_loses_nothing_and_each_rung_is_the_rule_of_its_name():
    data = make_data()
    values = measured(Backprop(HierarchicalNetwork(width=6)).prepare(data), MaskStatistics())
    for k in (1, 2, 3):
        close(values[f"rung1/cosine/layer{k}"], torch.ones(3))
        close(values[f"rung1/norm/layer{k}"], torch.ones(3))
    assert all((values[f"rung{rung}/cosine/layer1"] < 0.999).all() for rung in range(2, 9))
    ladder = ["exact", "batch_mean", "other_string", "constant", "constant", "exact", "constant", "none"]
    ways = ["transposed"] * 4 + ["random"] * 2 + ["direct"] * 2
    for number, (masks, feedback) in enumerate(zip(ladder, ways, strict=True), 1):
        rung = MaskLadder(HierarchicalNetwork(width=6), masks=masks, feedback=feedback).prepare(data)
        alone = measured(rung, GradientAlignment(draws=1))
        for k in (1, 2, 3):
            close(values[f"rung{number}/cosine/layer{k}"], alone[f"cosine/layer{k}"])
            close(values[f"rung{number}/norm/layer{k}"], alone[f"norm/layer{k}"] / alone[f"backprop_norm/layer{k}"])


def test_the_masks_of_a_linear_network_lose_nothing():
    values = measured(Backprop(HierarchicalNetwork(width=6, activation="linear")).prepare(make_data()), MaskStatistics())
    for k in (1, 2, 3):
        close(values[f"active/layer{k}"], torch.ones(3))
        close(values[f"difference/layer{k}"], torch.zeros(3))
        for rung in (1, 2, 3, 4):
            close(values[f"rung{rung}/cosine/layer{k}"], torch.ones(3))
            close(values[f"rung{rung}/norm/layer{k}"], torch.ones(3))
        for one, other in ((5, 6), (7, 8)):
            close(values[f"rung{one}/cosine/layer{k}"], values[f"rung{other}/cosine/layer{k}"])
    assert (values["rung5/cosine/layer1"] < 0.999).all()


@pytest.mark.parametrize(("activation", "network"), [("relu", HierarchicalNetwork), ("tanh", LocallyConnectedNetwork)])
def test_active_units_and_differences_of_masks_are_those_of_a_loop_over_pairs(activation, network):
    rule = Backprop(network(width=5, activation=activation)).prepare(make_data(seeds=(0, 4)))
    values = measured(rule, MaskStatistics(ladder=False))
    assert not any(tag.startswith("rung") for tag in values)
    step = compute(rule)
    for k, (layer, state) in enumerate(zip(rule.network.layers, step.states, strict=True), 1):
        pre = layer.by_position(state.pre_RGME, state).detach().numpy()
        mask = (pre > 0).astype(float) if activation == "relu" else 1 / np.cosh(pre) ** 2
        for r in range(2):
            pairs = [((mask[r, b] - mask[r, c]) ** 2).mean() for b, c in itertools.combinations(range(16), 2)]
            close(values[f"difference/layer{k}"][r], np.mean(pairs))
            close(values[f"active/layer{k}"][r], mask[r].mean())


def test_the_distance_of_strings_is_that_of_a_loop_over_all_pairs_however_they_come():
    f = torch.randn(2, 9, 4) * 3 + 5
    metric = StringDistance(2, 4)
    metric.update(f[:, :2])
    metric.update(f[:, 2:])
    for r in range(2):
        pairs = [float((f[r, b] - f[r, c]).square().sum()) for b, c in itertools.combinations(range(9), 2)]
        close(metric.compute()[r], np.mean(pairs))


# -------------------------------------------------------------------- sensitivity


def with_code(rule: LocalRule, codes) -> LocalRule:
    """A rule whose layer ``k`` hands on ``codes(k, tokens)``."""

    def forward(x_RBD):
        outs = [codes(k, x_RBD) for k in range(1, len(rule.network) + 1)]
        return [LayerState(h, h, h, None, h) for h in outs]

    rule.network.forward = forward
    return rule


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_an_invariant_code_has_no_sensitivity_and_one_that_knows_only_whole_strings_has_one(seeds):
    data = make_data(seeds=seeds, test_size=400)
    rule = Backprop(HierarchicalNetwork(width=4)).prepare(data)
    with_code(rule, lambda k, x: one_hot(data.grammar.parse(x).symbols[k], 4).double())
    values = measured(rule, SynonymicSensitivity(strings=400))
    for k, level in itertools.product((1, 2, 3), (1, 2, 3)):
        sensitivity = values[f"level{level}/layer{k}"]
        assert (sensitivity == 0).all() if level <= k else (sensitivity > 0.2).all()

    def lookup(k, x):
        shape = {1: (4, 4), 2: (2, 4), 3: (1, 4)}[k]
        keys = content_key(x)[..., 0]
        return normal(fold(keys.flatten(), k), shape).unflatten(0, keys.shape)

    values = measured(with_code(rule, lookup), SynonymicSensitivity(strings=400))
    for value in values.values():  # 400 strings with 4 to 16 numbers each: a standard error of at most .04
        assert ((value - 1).abs() < 0.2).all()


def test_a_layer_that_knows_what_stands_where_sees_what_moves_below_it_as_little_as_synonyms():
    """Whose children move, or are exchanged, is read above them, and where it stands itself."""
    data = make_data(seeds=(0, 1), test_size=200, silent=1)
    rule = Backprop(HierarchicalNetwork(width=5)).prepare(data)
    with_code(rule, lambda k, x: one_hot(data.grammar.parse(x).symbols[k], 5).double())
    diagnostic = SynonymicSensitivity(strings=200)
    values = measured(rule, diagnostic)
    for kind, k, level in itertools.product(("", "moved/"), (1, 2, 3), (1, 2, 3)):
        sensitivity = values[f"{kind}level{level}/layer{k}"]
        assert (sensitivity == 0).all() if level <= k else (sensitivity > 0.2).all()
    assert diagnostic.results()["moved"]["level1"]["layer2"] == [0.0, 0.0]
    tags = {f"sensitivity/{tag}" for tag in values}
    charts = diagnostic.charts(rule)["sensitivity"]
    shown = [tag for pattern in charts.values() for tag in tags if re.search(pattern, tag)]
    assert sorted(shown) == sorted(tags) and len(charts) == 6


@pytest.mark.parametrize("silent", [0, 1])
def test_sensitivity_is_its_formula_as_loops_over_strings(silent):
    data = make_data(seeds=(0, 2), m=3, test_size=24, eval_batch_size=10, silent=silent)
    rule = Backprop(HierarchicalNetwork(width=5)).prepare(data)
    values = measured(rule, SynonymicSensitivity(strings=15))  # rounded up to two steps of ten
    changes = {"": data.grammar.exchange} | ({"moved/": data.grammar.move} if silent else {})
    assert len(values) == 9 * len(changes)
    strings = data.grammar.sample(torch.arange(data.test_range[0], data.test_range[0] + 20))
    network = rule.network
    with torch.no_grad():
        for kind, level in itertools.product(changes, (1, 2, 3)):
            changed = network(changes[kind](strings, level, content_key(strings.x_RBD)).x_RBD)
            for k, (a, b) in enumerate(zip(network(strings.x_RBD), changed, strict=True), 1):
                for r in range(2):
                    f, g = a.out_RBDC[r].flatten(1).numpy(), b.out_RBDC[r].flatten(1).numpy()
                    between = np.mean([((f[i] - f[j]) ** 2).sum() for i in range(20) for j in range(20) if i != j])
                    close(values[f"{kind}level{level}/layer{k}"][r], np.mean(((f - g) ** 2).sum(1)) / between)


def test_a_collapsed_layer_has_no_sensitivity_to_speak_of_and_none_in_results():
    rule = Backprop(HierarchicalNetwork(width=4)).prepare(make_data())
    with_code(rule, lambda k, x: torch.ones(3, x.shape[1], 8 // 2**k, 4))
    diagnostic = SynonymicSensitivity()
    assert all(value.isnan().all() for value in measured(rule, diagnostic).values())
    assert diagnostic.results()["level1"]["layer1"] == [None] * 3
    json.dumps(diagnostic.results(), allow_nan=False)


def test_an_exchange_depends_on_the_string_and_not_on_its_place():
    x = torch.randint(0, 4, (2, 30, 8))
    key = content_key(x)
    assert torch.equal(content_key(x.flip(1)).flip(1), key) and len(key.unique()) == len(torch.unique(x.flatten(0, 1), dim=0))
    assert not torch.equal(content_key(x.flip(2)), key)
    assert content_key(x).dtype == scramble(key).dtype


# -------------------------------------------------------------------- geometry


def test_a_code_of_rank_three_has_at_most_three_dimensions_and_a_white_one_all():
    low = torch.randn(2, 1, 400, 3) @ torch.randn(2, 1, 3, 10)
    white = torch.linalg.qr(torch.randn(2, 1, 400, 10))[0]
    assert (participation_ratio(eigenvalues(low)) <= 3 + 1e-9).all() and (rank_me(eigenvalues(low)) <= 3 + 1e-4).all()
    assert (participation_ratio(eigenvalues(low)) > 1).all() and (rank_me(eigenvalues(low)) > 1).all()
    close(participation_ratio(eigenvalues(white)), torch.full((2, 1), 10.0))
    close(rank_me(eigenvalues(white)), torch.full((2, 1), 10.0))


def test_rank_me_and_participation_ratio_are_those_of_singular_values():
    x = torch.randn(1, 1, 50, 6) * torch.arange(1, 7) + 2
    s = np.linalg.svd(x[0, 0].numpy(), compute_uv=False)
    p = s / s.sum()
    close(rank_me(eigenvalues(x)), [[np.exp(-(p * np.log(p)).sum())]])
    cov = np.cov(x[0, 0].numpy().T)
    close(participation_ratio(eigenvalues(x - x.mean(2, keepdim=True))), [[np.trace(cov) ** 2 / (cov**2).sum()]])


def test_linear_cka_is_one_with_itself_and_after_rotations_and_is_its_formula():
    x, y = torch.randn(2, 40, 6), torch.randn(2, 40, 9)
    rotation = torch.linalg.qr(torch.randn(2, 6, 6))[0]
    close(alignment(centred_gram(x), centred_gram(x)), torch.ones(2))
    close(alignment(centred_gram(x), centred_gram(3 * x @ rotation + 7)), torch.ones(2))
    for r in range(2):
        a, b = (z[r].numpy() - z[r].numpy().mean(0) for z in (x, y))
        expected = ((b.T @ a) ** 2).sum() / np.sqrt(((a.T @ a) ** 2).sum() * ((b.T @ b) ** 2).sum())
        close(alignment(centred_gram(x), centred_gram(y))[r], expected)
    assert (alignment(centred_gram(x), centred_gram(y)) < 0.9).all()


@pytest.mark.parametrize("network", [HierarchicalNetwork, LocallyConnectedNetwork])
def test_geometry_of_a_network_is_that_of_its_held_out_codes(network):
    rule = Backprop(network(width=6)).prepare(make_data(seeds=(0, 5), probe_size=32))
    values = measured(rule, RepresentationGeometry(strings=20, eigenvalues=4))
    start = rule.data.probe_range[0]
    with torch.no_grad():
        states = rule.network(rule.data.grammar.sample(torch.arange(start, start + 20)).x_RBD)
    for k, (layer, state) in enumerate(zip(rule.network.layers, states, strict=True), 1):
        for r in range(2):
            out = state.out_RBDC[r].numpy()  # B, D, C
            groups = [out.reshape(-1, 6)] if layer.groups == 1 else [out[:, d] for d in range(out.shape[1])]
            spectra = [np.linalg.eigvalsh(np.cov(rows.T))[::-1] for rows in groups]
            close(values[f"participation_ratio/layer{k}"][r], np.mean([s.sum() ** 2 / (s**2).sum() for s in spectra]))
            close(values[f"spectrum/layer{k}"][r], np.mean([s / s.sum() for s in spectra], 0)[:4], 1e-7)
    close(values["cka/layer1/layer3"], alignment(*(centred_gram(states[k].out_RBDC.flatten(2)) for k in (0, 2))))


def test_a_layer_is_compared_with_the_layers_of_another_run(tmp_path):
    torch.set_default_dtype(torch.float32)
    run = ["fit", "--model=Backprop", *RUN, "--data.seeds=[0,1]", *QUICK]
    rhm(*run, f"--run_dir={tmp_path / 'a'}")
    assert json.loads((tmp_path / "a/results.json").read_text())["diagnostics"] == {}
    geometry = ["--trainer.callbacks+=RepresentationGeometry", f"--trainer.callbacks.reference={tmp_path / 'a'}"]
    rhm(*run, *geometry, "--trainer.callbacks.strings=30", f"--run_dir={tmp_path / 'b'}")
    found = json.loads((tmp_path / "b/results.json").read_text())["diagnostics"]["RepresentationGeometry"]
    for j, k in itertools.product((1, 2, 3), (1, 2, 3)):
        if j == k:
            close(found["reference_cka"][f"layer{j}"][f"layer{k}"], [1.0, 1.0], 1e-5)
        else:  # the other run ended with the same weights
            close(
                found["reference_cka"][f"layer{j}"][f"layer{k}"], found["cka"][f"layer{min(j, k)}"][f"layer{max(j, k)}"], 1e-5
            )
    rhm(*run, *geometry, "--model.network.width=5", "--trainer.max_steps=2", f"--run_dir={tmp_path / 'c'}")
    other = json.loads((tmp_path / "c/results.json").read_text())["diagnostics"]["RepresentationGeometry"]
    assert max(other["reference_cka"]["layer2"]["layer2"]) < 0.999


# -------------------------------------------------------------------- pairs


PAIRS = {
    "siblings": (SiblingPairs(), {}, 1),
    "triples": (SiblingPairs(), {"s": 3, "v": 3, "n": 3, "batch_size": 8}, 1),
    "class": (ClassPairs(), {}, None),
    "synonyms": (SynonymPairs(2), {}, None),
    "selves": (SelfPairs(), {}, 0),
    "halves": (HalfPairs(), {}, 0),
    "halves by position": (PositionHalfPairs(), {}, None),
    "random halves": (RandomHalfPairs(), {}, 0),
    "masked copies": (MaskedPairs(), {}, None),
}


@pytest.mark.parametrize("case", PAIRS)
def test_scores_and_false_negatives_are_those_of_a_loop(case):
    pairs, task, above = PAIRS[case]
    rule = CLAPP(HierarchicalNetwork(width=6, bottleneck=4)).prepare(make_data(pairs, seeds=(0, 1), **task))
    values = measured(rule, PairStatistics())
    step, L, s = compute(rule), rule.data.task.L, rule.data.task.s
    for k in range(1, rule.trained_layers + 1):
        pair = rule.pair(step, k)
        z1, z2 = (z.detach().numpy() for z in pair[:2])
        w = pair.head.prediction_RCC.detach().numpy()
        for r in range(2):
            positive, negative, false, below, opens = [], [], [], [], []
            _, B, D, _ = z1.shape
            for b, c, d in itertools.product(range(B), range(B), range(D)):
                score = z1[r, b, d] @ w[r] @ z2[r, c, d]
                if b == c:
                    positive.append(score)
                    continue
                opens.append(score > -1)
                if case in ("class", "halves by position", "masked copies"):
                    level, place = L, 0
                elif case == "synonyms":
                    level, place = max(2, k), d
                elif case == "triples":
                    level, place = k + 1, d // s
                else:
                    level, place = k + above, d
                symbols = step.batch.derivation.symbols[level][r]
                same = bool(symbols[b, place] == symbols[c, place])
                (false if same else negative).append(score)
                if not same:
                    below.append(z1[r, b, d] @ w[r] @ z2[r, b, d] - score)
            close(values[f"share_false/layer{k}"][r], len(false) / (len(false) + len(negative)))
            close(values[f"positive/layer{k}"][r], np.mean(positive))
            close(values[f"positive_std/layer{k}"][r], np.std(positive, ddof=1))
            close(values[f"negative/layer{k}"][r], np.mean(negative))
            close(values[f"negative_std/layer{k}"][r], np.std(negative))
            close(values[f"false_negative/layer{k}"][r], np.mean(false))
            close(values[f"ranked/layer{k}"][r], np.mean(np.array(below) > 1e-9))  # the same second side: a tie
            close(values[f"open_positive/layer{k}"][r], np.mean(np.array(positive) < 1))
            close(values[f"open_negative/layer{k}"][r], np.mean(opens))


@pytest.mark.parametrize("pairs", [ClassPairs(), SynonymPairs(1), SynonymPairs(2)])
def test_the_symbols_of_a_pair_are_shared_by_both_of_its_strings(pairs):
    data = make_data(pairs)
    batch = data.train_batch(0)
    view = data.grammar.parse(batch.view_RBD)
    for positions in (4, 2, 1):
        found = data.pairs.symbols(batch.derivation, positions, 2)
        assert found.shape[2] == data.pairs.positives(*(torch.zeros(3, 16, positions, 2),) * 2, 2)[0].shape[2]
        assert torch.equal(found, data.pairs.symbols(view, positions, 2))


def test_pairs_without_a_level_of_their_own_have_no_false_negatives_to_count():
    rule = LayerwiseContrastive(HierarchicalNetwork(width=6, patch=4, depth=2)).prepare(make_data(HalfPairs(), L=4))
    diagnostic = PairStatistics()
    assert rule.network.positions == [4, 1]
    assert rule.pairs.symbols(rule.data.train_batch(0).derivation, 3, 1) is None
    values = statistics(torch.randn(2, 3, 5, 5), None)
    assert (
        values["share_false"].isnan().all() and values["false_negative"].isnan().all() and values["negative"].isfinite().all()
    )
    assert (measured(rule, diagnostic)["share_false/layer1"] > 0).all()


def test_scores_of_a_perfect_and_of_a_blind_rule():
    perfect = statistics(torch.eye(6).expand(2, 3, 6, 6) * 4 - 2, torch.zeros(2, 3, 6))
    assert perfect["share_false"].tolist() == [1, 1] and perfect["ranked"].isnan().all()
    symbols = torch.arange(6).expand(2, 3, 6)
    perfect = statistics(torch.eye(6).expand(2, 3, 6, 6) * 4 - 2, symbols)
    assert perfect["ranked"].tolist() == [1, 1] and perfect["share_false"].tolist() == [0, 0]
    assert perfect["positive"].tolist() == [2, 2] and perfect["negative"].tolist() == [-2, -2]
    closed = gates(torch.eye(6).expand(2, 3, 6, 6) * 4 - 2)
    assert closed["open_positive"].tolist() == [0, 0] and closed["open_negative"].tolist() == [0, 0]
    blind = gates(torch.zeros(2, 3, 6, 6))
    assert blind["open_positive"].tolist() == [1, 1] and blind["open_negative"].tolist() == [1, 1]


@pytest.mark.parametrize("name", ["sibling_contrastive", "gim"])
@torch.no_grad()
def test_the_scores_are_those_of_the_rules_loss(name):
    rule = from_settings(name)
    step = compute(rule)
    said = rule.layer_updates(step)
    for k in range(1, rule.trained_layers + 1):
        scores = rule.scores(rule.pair(step, k))
        directions = (-1,) if name == "gim" else (-1, -2)
        losses = [-scores.log_softmax(way).diagonal(dim1=-2, dim2=-1).mean((1, 2)) for way in directions]
        close(said.losses[f"loss/layer{k}"], sum(losses) / len(losses))


@torch.no_grad()
def test_a_score_that_is_shown_the_class_has_it_in_the_context():
    rule = from_settings("label_context")
    step = compute(rule)
    pair = rule.pair(step, 2)
    label = torch.stack([pair.head.label_RNC[r, step.batch.y_RB[r].long()] for r in range(3)])
    expected = torch.einsum("rbdc,rce,rkde->rdbk", pair.z1_RBDC + label[:, :, None], pair.head.predictor_RCC, pair.z2_RBDC)
    close(rule.scores(pair), expected / rule.temperature)


# -------------------------------------------------------------------- they look and never touch


def everything() -> list[Diagnostic]:
    return [GradientAlignment(draws=1), MaskStatistics(ladder=False), SynonymicSensitivity(), RepresentationGeometry()]


WATCHED = [
    "backprop",
    "ebd",
    "forward_dfa",
    "weight_mirror",
    "frsf",
    "clapp",
    "byol",
    "lpl",
    "node_perturbation",
    "exchange_clustering",
]


@pytest.mark.parametrize("name", WATCHED)
def test_a_run_that_is_watched_has_the_same_weights_bit_for_bit(name):
    torch.set_default_dtype(torch.float32)

    def run(callbacks):
        rule = from_settings(name, seeds=(0, 1))
        torch.manual_seed(0)
        settings = {"max_steps": 5, "val_check_interval": 2, "check_val_every_n_epoch": None, "precision": "32-true"}
        trainer(*callbacks, **settings).fit(rule, rule.data)
        return rule, torch.get_rng_state()

    watchers = everything()[1:] if name in CELLS else everything()
    if isinstance(from_settings(name), LayerwiseRule):
        watchers.append(PairStatistics())
    if name in ("backprop", "frsf"):
        watchers[1] = MaskStatistics()
    (plain, state), (watched, state_watched) = run([]), run(watchers)
    assert all(watcher.values for watcher in watchers)
    assert torch.equal(state, state_watched)
    old, new = plain.state_dict(), watched.state_dict()
    assert old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)


class LookInInferenceMode(pl.Callback):
    """Asks what a diagnostic's measurement is made of."""

    def __init__(self):
        self.made_for_inference = []

    def on_validation_epoch_end(self, trainer, rule):
        watcher = next(callback for callback in trainer.callbacks if isinstance(callback, GradientAlignment))
        self.made_for_inference += [value.is_inference() for value in watcher.values.values()]
        self.made_for_inference.append(rule.data.train_batch(trainer.global_step).x_RBD.is_inference())


def test_tensors_of_a_validation_in_inference_mode_can_be_trained_on():
    torch.set_default_dtype(torch.float32)
    rule, look = from_settings("vicreg"), LookInInferenceMode()
    settings = {"max_steps": 4, "val_check_interval": 2, "check_val_every_n_epoch": None, "precision": "32-true"}
    trainer(GradientAlignment(draws=1), look, **settings).fit(rule, rule.data)
    assert len(look.made_for_inference) > 2 and not any(look.made_for_inference)


class FakeTrainer:
    global_step = 0


def test_mixed_precision_measures_finite_numbers():
    torch.set_default_dtype(torch.float32)
    rule = from_settings("clapp", seeds=(0,))
    watchers = [*everything(), PairStatistics()]
    trainer(*watchers, precision="bf16-mixed").test(rule, rule.data, verbose=False)
    for watcher in watchers:
        assert all(value.isfinite().all() for tag, value in watcher.values.items() if not tag.startswith("weights"))


# -------------------------------------------------------------------- ranks, results and refusals


class ToFile(pl.Callback):
    """Keeps what each rank measured."""

    def __init__(self, folder):
        self.folder = folder

    def on_test_end(self, trainer, pl_module):
        found = {type(c).__name__: c.results() for c in trainer.callbacks if isinstance(c, Diagnostic)}
        (self.folder / f"{trainer.world_size}_{trainer.global_rank}.json").write_text(json.dumps(found))


@pytest.mark.parametrize("name", ["dkp", "sibling_contrastive", "kolen_pollack", "mask_ladder"])
def test_two_ranks_measure_what_one_measures(name, tmp_path):
    for ranks in (1, 2):
        rule = from_settings(name, "--data.m=3", "--data.test_size=31", "--data.eval_batch_size=7", seeds=(0, 1))
        watchers = everything()
        if name == "sibling_contrastive":
            watchers.append(PairStatistics())
        else:
            watchers[1] = MaskStatistics()
        two = {"devices": 2, "strategy": DDPStrategy(process_group_backend="gloo", start_method="fork")}
        trainer(*watchers, ToFile(tmp_path), **(two if ranks == 2 else {})).test(rule, rule.data, verbose=False)
    one, first, second = (json.loads((tmp_path / f"{file}.json").read_text()) for file in ("1_0", "2_0", "2_1"))
    assert first == second and len(one) >= 4

    def compare(a, b, path=""):
        if isinstance(a, dict):
            assert a.keys() == b.keys()
            for key in a:
                compare(a[key], b[key], f"{path}/{key}")
        else:
            np.testing.assert_allclose(np.array(b, float), np.array(a, float), rtol=1e-7, atol=1e-9, err_msg=path)

    compare(one, first)


def test_results_and_tags_of_a_run_from_the_command_line(tmp_path, capsys):
    torch.set_default_dtype(torch.float32)
    names = ["SynonymicSensitivity", "GradientAlignment", "PairStatistics", "RepresentationGeometry", "MaskStatistics"]
    added = [f"--trainer.callbacks+={name}" for name in names]
    siblings = ["--model=CLAPP", "--model.network.bottleneck=4", "--data.pairs=SiblingPairs", "--data.seeds=[3,5]"]
    rhm("fit", *siblings, *RUN, *QUICK, *added, "--trainer.callbacks.ladder=false", f"--run_dir={tmp_path / 'a'}")
    content = json.loads((tmp_path / "a/results.json").read_text())
    assert set(content["diagnostics"]) == set(names) and content["replicas"][0]["probe"]
    for name in names:
        for path, leaf in leaves(content["diagnostics"][name]):
            assert len(leaf) == 2, (name, path)
    assert set(content["diagnostics"]["SynonymicSensitivity"]) == {"level1", "level2", "level3"}
    events = EventAccumulator(str(tmp_path / "a")).Reload()
    tags = events.Tags()["scalars"]
    for tag in (
        "sensitivity/level1/layer2",
        "alignment/cosine/layer1",
        "pairs/share_false/layer2",
        "geometry/cka/layer1/layer2",
        "masks/active/layer3",
        "probe/level1/layer1",
    ):
        assert tag in tags
    found = content["diagnostics"]["SynonymicSensitivity"]["level1"]["layer2"]
    for tag, value in ("level1/layer2", np.mean(found)), ("level1_std/layer2", np.std(found, ddof=1)):
        points = events.Scalars(f"sensitivity/{tag}")
        assert [point.step for point in points] == [3, 6]  # two validations; the test measures the same again
        assert points[-1].value == pytest.approx(value, rel=1e-5)
    for tag in "sensitivity/map", "geometry/spectra":
        assert [image.step for image in events.Images(tag)] == [3, 6]
    capsys.readouterr()
    rhm("test", f"--run_dir={tmp_path / 'a'}")


def leaves(tree, path=""):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}/{key}")
    else:
        yield path, tree


def test_diagnostics_of_spread_replicas_are_put_one_after_another(tmp_path):
    for rank, values in enumerate(([0.5, None], [0.25])):
        part = {
            "status": "finished",
            "steps": 6,
            "samples_seen": 96,
            "seconds": 1.0,
            "samples_per_second": 2.0,
            "supervision": {"readout_labels": []},
        }
        part["probe_strings_trained_on"] = 0
        part |= {"replicas": [{}] * len(values), "diagnostics": {"SynonymicSensitivity": {"level1": {"layer1": values}}}}
        (tmp_path / f"rank-{rank}-of-2").mkdir()
        (tmp_path / f"rank-{rank}-of-2/results.json").write_text(json.dumps(part))
    whole = put_together(tmp_path, 2, 6)
    assert len(whole["replicas"]) == 3 and whole["diagnostics"] == {
        "SynonymicSensitivity": {"level1": {"layer1": [0.5, None, 0.25]}}
    }


REFUSED = {
    "no strings": (
        ["--model=Backprop", "SynonymicSensitivity", "strings=1"],
        ["SynonymicSensitivity.strings", "1", "at least 2"],
    ),
    "no synonyms": (
        ["--model=Backprop", "SynonymicSensitivity", "--data.m=1", "--data.train_size=1", "--data.test_size=1"],
        ["data.m", "1"],
    ),
    "a misspelt name": (["--model=Backprop", "SynonymicSensitvity"], ["SynonymicSensitvity", "'SynonymicSensitivity'"]),
    "no draws": (["--model=Backprop", "GradientAlignment", "draws=0"], ["GradientAlignment.draws", "0"]),
    "a rule that trains nothing": (["--model=FrozenFeatures", "GradientAlignment"], ["trainer.callbacks", "FrozenFeatures"]),
    "codes": (
        [
            "--model=ExchangeClustering",
            "GradientAlignment",
            "--model.network=CodeNetwork",
            "--data.pairs=SiblingPairs",
        ],
        ["model.network", "CodeNetwork", "GradientAlignment"],
    ),
    "alignment without labels": (
        ["--model=SoftHebb", "GradientAlignment", "--data.labels=false"],
        ["data.labels", "GradientAlignment"],
    ),
    "a ladder without labels": (["--model=SoftHebb", "MaskStatistics", "--data.labels=false"], ["data.labels", "ladder=false"]),
    "a ladder with a bottleneck": (
        ["--model=Backprop", "MaskStatistics", "--model.network.bottleneck=4"],
        ["bottleneck", "4", "ladder=false"],
    ),
    "pairs of a supervised rule": (
        ["--model=Backprop", "PairStatistics"],
        ["trainer.callbacks", "PairStatistics with Backprop"],
    ),
    "pairs of one string": (
        ["--model=VICReg", "PairStatistics", "--data.pairs=SiblingPairs", "--data.batch_size=1"],
        ["data.batch_size", "1", "at least 2"],
    ),
    "few strings": (["--model=Backprop", "RepresentationGeometry", "strings=2"], ["RepresentationGeometry.strings", "2", "3"]),
    "no eigenvalues": (
        ["--model=Backprop", "RepresentationGeometry", "eigenvalues=0"],
        ["RepresentationGeometry.eigenvalues", "0"],
    ),
    "no reference": (
        ["--model=Backprop", "RepresentationGeometry", "reference=nowhere"],
        ["RepresentationGeometry.reference", "nowhere"],
    ),
    "one twice": (
        ["--model=Backprop", "GradientAlignment", "--trainer.callbacks+=GradientAlignment"],
        ["GradientAlignment twice"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_diagnostic_that_cannot_be_is_refused_in_one_line_before_anything_is_written(case, capsys, tmp_path):
    command = "check" if case == "a ladder with a bottleneck" else "fit"
    (model, diagnostic, *more), words = REFUSED[case]
    more = [argument if argument.startswith("--") else f"--trainer.callbacks.{argument}" for argument in more]
    line = refused(capsys, command, model, *RUN, f"--trainer.callbacks+={diagnostic}", *more, f"--run_dir={tmp_path / 'a'}")
    assert line.startswith("rhm: ") and all(word in line for word in words), line
    assert not list(tmp_path.iterdir())


def test_a_reference_of_another_task_other_seeds_or_that_cannot_be_read_is_refused(tmp_path, capsys):
    torch.set_default_dtype(torch.float32)
    run = ["fit", "--model=Backprop", *RUN, *QUICK, "--trainer.max_steps=1"]
    rhm(*run, "--data.seeds=[0,1]", "--data.train_size=[32,64]", f"--run_dir={tmp_path / 'a'}")
    capsys.readouterr()
    geometry = [*run, "--trainer.callbacks+=RepresentationGeometry", f"--trainer.callbacks.reference={tmp_path / 'a'}"]
    for change, words in (
        (["--data.seeds=[7]"], ["seeds [0, 1]", "seed 7"]),
        (["--data.train_size=16"], ["train_size [32, 64]", "train_size 16"]),
        (["--data.n=2"], ["n=4", "n=2"]),
        (["--data.noise=0.5"], ["noise=None", "noise=0.5"]),
    ):
        line = refused(capsys, *geometry, *change, f"--run_dir={tmp_path / 'b'}")
        assert line.startswith("rhm: RepresentationGeometry.reference") and all(word in line for word in words), line
    rule = Backprop(HierarchicalNetwork(width=8)).prepare(make_data(seeds=(1, 0), train_size=[64, 32]))
    ours = {name: value[[3, 2, 1, 0]] for name, value in load_network(str(tmp_path / "a"), rule).state_dict().items()}
    saved = torch.load(tmp_path / "a/checkpoints/step=1.ckpt", weights_only=True)["state_dict"]
    assert ours and all(torch.equal(value, saved[f"network.{name}"]) for name, value in ours.items())
    for checkpoint in (tmp_path / "a/checkpoints").iterdir():
        checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    line = refused(capsys, *geometry, f"--run_dir={tmp_path / 'b'}")
    assert "RepresentationGeometry.reference" in line and "can be read" in line
    assert not (tmp_path / "b").exists()


def test_a_rule_that_does_not_fit_is_refused_in_python_too():
    rule = Backprop(HierarchicalNetwork(width=4)).prepare(make_data())
    with pytest.raises(InvalidInput, match="PairStatistics with Backprop"):
        trainer(PairStatistics(), max_steps=1).fit(rule, rule.data)


def test_charts_show_tags_that_are_written_and_each_diagnostic_says_which_those_are():
    rule = from_settings("clapp")
    for diagnostic in [*everything(), PairStatistics()]:
        tags = {f"{diagnostic.prefix}/{tag}" for tag in measured(rule, diagnostic)}
        charts = diagnostic.charts(rule)[diagnostic.prefix]
        shown = {name: {tag for tag in tags if re.search(pattern, tag)} for name, pattern in charts.items()}
        assert all(found or "rung" in name or name == "weights" for name, found in shown.items()), shown
        assert f"``{diagnostic.prefix}/" in inspect.getdoc(type(diagnostic))


# -------------------------------------------------------------------- layers that are the same for all strings


def test_strings_that_a_layer_gives_the_same_for_are_at_no_distance():
    """Sums of rounded squares would leave a little, and a share of it would be any number."""
    distance = StringDistance(2, 3)
    for _ in range(8):
        distance.update((torch.tensor([0.1, 1 / 3])[:, None, None] * torch.tensor([1.0, 0.7, 1.3])).expand(2, 500, 3))
    assert distance.compute().tolist() == [0.0, 0.0]


def test_a_layer_that_gives_the_same_for_all_strings_has_no_alignment_with_another():
    rule = from_settings("backprop", "--data.probe_size=37")
    with torch.no_grad():
        rule.network.layers[1].weight_RGFE.zero_()
        rule.network.layers[1].bias_RG1E.copy_(torch.rand(rule.network.layers[1].bias_RG1E.shape))
        values = RepresentationGeometry().measure(None, rule)
    for tag in "cka/layer1/layer2", "cka/layer2/layer3", "participation_ratio/layer2", "participation_ratio/layer3":
        assert values[tag].isnan().all(), tag


# -------------------------------------------------------------------- the reference of a block of any kind


@pytest.mark.parametrize("name", ["sibling_contrastive", "random_expansion", "local_expansion", "vicreg"])
def test_the_top_loss_is_propagated_through_all_layers_whatever_a_block_teaches_its_units(name):
    """Finite differences of the top layer's loss."""
    torch.set_default_dtype(torch.float64)
    try:
        rule = from_settings(name)
    finally:
        torch.set_default_dtype(torch.float32)
    batch = rule.data.train_batch(0)
    with torch.no_grad():
        found = rule.end_to_end(rule.compute(batch)).layers

        def loss() -> float:
            return float(rule._told_at_top(rule.compute(batch)).loss_R.sum())

        for layer, update in zip(rule.network.layers, found, strict=False):
            for key in Layer.OWN:
                parameter, at = getattr(layer, key), (0, 0, 0, 2)
                parameter[at] += 1e-6
                up = loss()
                parameter[at] -= 2e-6
                down = loss()
                parameter[at] += 1e-6
                assert float(update[key][at]) == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-6), key


def test_units_without_a_number_are_neither_open_nor_shut():
    rule = from_settings("sibling_contrastive")
    with torch.no_grad():
        rule.network.layers[1].weight_RGFE[1] = torch.nan
        values = MaskStatistics(ladder=False).measure(pl.Trainer(logger=False, accelerator="cpu"), rule)
    for tag in "active/layer2", "active/layer3", "difference/layer2":
        assert values[tag].isnan().tolist() == [False, True, False], tag


@pytest.mark.parametrize("name", ["sibling_contrastive", "backprop"])
def test_a_replica_without_numbers_changes_nothing_that_is_measured_of_the_others(name):
    def measured(rule: LocalRule) -> dict[str, torch.Tensor]:
        own = [GradientAlignment(), MaskStatistics(ladder=False), RepresentationGeometry(), SynonymicSensitivity()]
        probe = LayerwiseLinearProbe()
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[*own, probe])
        trainer.test(rule, rule.data, verbose=False)
        values = {f"{d.prefix}/{tag}": value for d in own for tag, value in d.values.items()}
        return values | {"probe": probe.accuracy_KLR.movedim(-1, 0), "logistic": probe.logistic_KLR.movedim(-1, 0)}

    whole, broken = from_settings(name), from_settings(name)
    with torch.no_grad():
        broken.network.layers[1].weight_RGFE[1] = torch.nan
    first, second = measured(whole), measured(broken)
    for tag, value in first.items():
        torch.testing.assert_close(second[tag][[0, 2]], value[[0, 2]], equal_nan=True, rtol=1e-5, atol=1e-6, msg=tag)

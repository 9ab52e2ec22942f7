"""Labels for some of the training strings only: the readout learns from those, the hidden layers from all."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from command_line import RUN
from rule_helpers import compute, make_data, train

from datamodules import ClassPairs, SiblingPairs
from experiments.cli import main
from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.backprop import Backprop
from rules.contrastive import LayerwiseContrastive

NETWORK = HierarchicalNetwork(width=6, bottleneck=4)


def test_label_sizes_are_replicas_and_weights_make_means_over_labelled_strings():
    data = make_data(seeds=(0, 1), train_size=[48, 64], label_size=[5, 40])
    assert data.replica_seeds == [0] * 4 + [1] * 4
    assert list(zip(data.replica_sizes, data.replica_label_sizes, strict=True)) == [(48, 5), (48, 40), (64, 5), (64, 40)] * 2
    for step in range(5):
        batch = data.train_batch(step)
        index_RB = data.train_index(torch.arange(step * 16, (step + 1) * 16))
        for r, labelled in enumerate(data.replica_label_sizes):
            has = [i < labelled for i in index_RB[r].tolist()]
            assert batch.weight_RB is not None
            expected = [16 / sum(has) if own else 0.0 for own in has]
            assert batch.weight_RB[r].tolist() == pytest.approx(expected)


def test_two_ranks_weight_their_strings_by_the_labels_of_both():
    data = make_data(label_size=20)
    whole, parts = data.train_batch(3), [data.train_batch(3, rank, 2) for rank in (0, 1)]
    assert torch.equal(torch.cat([part.weight_RB for part in parts], 1), whole.weight_RB)


@torch.no_grad()
def test_readout_and_upper_layer_learn_from_labelled_strings_alone_as_an_explicit_loop_says():
    rule = LayerwiseContrastive(NETWORK).double()
    torch.set_default_dtype(torch.float64)
    try:
        rule.prepare(make_data(SiblingPairs(), label_size=[9, 30]))
        step = compute(rule, 2)
        said = rule.updates(step)
        updates = said.layers
        index_RB = rule.data.train_index(torch.arange(32, 48))
        features, weight = step.readout.features_RBF.numpy(), rule.readout.weight_RFN.numpy()
        top = rule.network.layers[-1]
        for r, labelled in enumerate(rule.data.replica_label_sizes):
            with_label = [b for b in range(16) if index_RB[r, b] < labelled]
            grad, bias, loss = np.zeros_like(weight[r]), np.zeros(weight.shape[-1]), 0.0
            signal = np.zeros((16, features.shape[-1]))
            for b in with_label:
                logits = features[r, b] @ weight[r] + rule.readout.bias_R1N[r, 0].numpy()
                p = np.exp(logits - logits.max())
                p /= p.sum()
                y = int(step.batch.y_RB[r, b])
                error = (p - np.eye(len(p))[y]) / len(with_label)
                loss -= np.log(p[y]) / len(with_label)
                grad += np.outer(features[r, b], error)
                bias += error
                signal[b] = weight[r] @ error
            np.testing.assert_allclose(updates[-1]["weight_RFN"][r].numpy(), grad, atol=1e-12)
            np.testing.assert_allclose(updates[-1]["bias_R1N"][r, 0].numpy(), bias, atol=1e-12)
            assert float(said.losses["loss/readout"][r]) == pytest.approx(loss)
            signals = torch.zeros_like(step.states[-1].out_RBDC)
            signals[r] = torch.from_numpy(signal).view_as(signals[r])
            expected, _ = top.backward(step.states[-1], signals)  # tested by itself; the signal is what is new here
            for name, value in expected.items():
                torch.testing.assert_close(updates[-2][name][r], value[r])
    finally:
        torch.set_default_dtype(torch.float32)


def test_hidden_layers_with_siblings_do_not_depend_on_how_many_strings_have_labels():
    few, all_ = (train(LayerwiseContrastive(NETWORK).prepare(make_data(SiblingPairs(), label_size=k))) for k in (4, None))
    siblings = [name for name in few if name.startswith(("network.layers.0", "network.layers.1"))]
    assert siblings and all(torch.equal(few[name], all_[name]) for name in siblings)
    assert not torch.equal(few["readout.weight_RFN"], all_["readout.weight_RFN"])


def test_with_all_strings_labelled_nothing_changes():
    every, none = (train(LayerwiseContrastive(NETWORK).prepare(make_data(SiblingPairs(), label_size=k))) for k in (64, None))
    for name in every:
        torch.testing.assert_close(every[name], none[name])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"label_size": 0}, ["data.label_size", "0"]),
        ({"label_size": 65}, ["65", "to data.train_size, here 64"]),
        ({"label_size": [4, 4]}, ["[4, 4]", "different"]),
        ({"label_size": []}, ["[]"]),
        ({"label_size": 33, "train_size": [32, 64]}, ["33", "here 32"]),
        ({"label_size": 4, "train_size": None}, ["4", "here 0"]),
        ({"label_size": 4, "labels": False}, ["4", "data.labels"]),
        ({"labels": "no"}, ["data.labels", "'no'", "true or false"]),
        ({"labels": None}, ["data.labels", "None"]),
    ],
)
def test_label_sizes_that_cannot_be_are_refused(kwargs, words):
    with pytest.raises(InvalidInput) as refused:
        make_data(**kwargs)
    assert all(word in str(refused.value) for word in words), refused.value


def test_rules_whose_hidden_layers_learn_from_labels_are_refused():
    for rule, pairs in (Backprop(NETWORK), None), (LayerwiseContrastive(NETWORK), ClassPairs()):
        with pytest.raises(InvalidInput, match=r"data\.label_size.*data\.train_size"):
            rule.prepare(make_data(copy.deepcopy(pairs), label_size=8))


def test_results_tell_how_many_labels_the_readout_has_seen(tmp_path):
    siblings = ["--model=LayerwiseContrastive", "--model.network.bottleneck=4", "--data.pairs=SiblingPairs"]
    main(["fit", *siblings, *RUN, "--data.label_size=[8,64]", f"--run_dir={tmp_path / 'a'}", "--tables=false"])
    content = json.loads((tmp_path / "a/results.json").read_text())
    assert content["supervision"]["readout_labels"] == [8, 64]
    assert [(r["train_size"], r["label_size"]) for r in content["replicas"]] == [(64, 8), (64, 64)]


@torch.no_grad()
def test_weights_are_the_same_in_every_precision_and_end_to_end_learns_from_labelled_strings_alone():
    data = make_data(label_size=20, pairs=SiblingPairs())
    single = data.train_batch(2).weight_RB
    data._block = None
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(data.train_batch(2).weight_RB, single) and single.dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    rule = LayerwiseContrastive(NETWORK).prepare(make_data(label_size=20, pairs=SiblingPairs()))
    step = compute(rule)
    labelled = rule.labelled(step)
    without = step.batch.weight_RB == 0
    assert without.any() and labelled.readout.error_RBN[without].eq(0).all() and labelled.readout.loss_RB[without].eq(0).all()
    assert labelled.readout.error_RBN.dtype == step.readout.error_RBN.dtype

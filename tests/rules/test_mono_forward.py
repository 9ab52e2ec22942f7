"""Mono-Forward: its answer is the class of most goodness.

Shape suffixes: R replica, B batch.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rule_helpers import make_data, said, same

from datamodules import TEST
from networks import HierarchicalNetwork, LayerState
from rhm import InvalidInput
from rules.local_cross_entropy import LocalCrossEntropy
from rules.mono_forward import MonoForward


def plain_goodness(rule: MonoForward, states: list[LayerState], r: int, b: int) -> np.ndarray:
    """``sum_l M_l h_l`` of one string."""
    total = np.zeros(4)
    for layer, state in zip(rule.network.layers, states, strict=True):
        h = state.out_RBDC[r, b].flatten().detach().numpy()
        total += sum(h[i] * layer.get_parameter("label_head_RFE")[r, i].detach().numpy() for i in range(len(h)))
    return total


@torch.no_grad()
def test_the_class_of_most_goodness_over_all_layers_is_the_answer():
    rule = MonoForward(HierarchicalNetwork(12)).prepare(make_data())
    batch = rule.data.train_batch(0)
    states = rule.validation_step(batch, 0, TEST)["states"]
    right = [[plain_goodness(rule, states, r, b).argmax() == batch.y_RB[r, b] for b in range(16)] for r in range(3)]
    np.testing.assert_allclose(rule.accuracy.compute().reshape(-1), np.mean(right, 1), rtol=1e-6)


@torch.no_grad()
def test_the_readout_answers_if_it_is_asked():
    rule = MonoForward(HierarchicalNetwork(12), answer="readout").prepare(make_data())
    other = LocalCrossEntropy(HierarchicalNetwork(12)).prepare(make_data())
    for one in rule, other:
        one.validation_step(one.data.train_batch(0), 0, TEST)
    torch.testing.assert_close(rule.accuracy.compute(), other.accuracy.compute())


@torch.no_grad()
def test_it_learns_as_a_linear_classifier_on_every_layer_does():
    rule, other = (kind(HierarchicalNetwork(12)).prepare(make_data()) for kind in (MonoForward, LocalCrossEntropy))
    for one, two in zip(rule.network.layers, other.network.layers, strict=True):
        two.load_state_dict(one.state_dict())
    ours, theirs = (said(one, one.compute(one.data.train_batch(0))).layers for one in (rule, other))
    assert all(same(ours, theirs))


def test_another_answer_is_refused():
    with pytest.raises(InvalidInput, match="model.answer"):
        MonoForward(answer="vote")

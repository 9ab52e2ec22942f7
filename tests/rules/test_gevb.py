"""GEVB: how its broadcast stands to the true signal.

Shape suffixes: R replica, B batch, D position, C channel, N classes; F inputs, E units, K components of a vector unit.
"""

from __future__ import annotations

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from rule_helpers import compute, train, updates
from torch import Tensor
from torch.nn import functional
from vector_helpers import plain_vector_logits, vector_rule

from callbacks.linear_probe import LayerwiseLinearProbe
from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules import LocalRule
from rules.backprop import Backprop
from rules.gevb import GlobalErrorVectorBroadcast


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def numpy_of(t: Tensor) -> np.ndarray:
    return t.detach().numpy()


def backprop_deltas(rule: LocalRule, step) -> list[Tensor]:
    """The signal of backpropagation at every pre-activation, ``[R, B, D, E, K]``, by autograd."""
    logits, outs = plain_vector_logits(rule, step.batch.x_RBD)
    losses = functional.cross_entropy(logits.flatten(0, 1), step.batch.y_RB.long().flatten(), reduction="none")
    grads = torch.autograd.grad(losses.view(2, 16).mean(1).sum(), outs)
    masks = [layer.by_position(layer.mask(s), s) for layer, s in zip(rule.network.layers, step.states, strict=True)]
    return [grad * mask.unflatten(-1, (-1, 4)) for grad, mask in zip(grads, masks, strict=True)]


def test_the_true_signal_is_the_broadcast_error_times_a_number_that_is_not_negative():
    """That is what non-negative weights above the first layer buy; with signed weights it does not hold."""
    for signed in (False, True):
        rule = vector_rule(Backprop, signed=signed)
        step = compute(rule)
        error = step.readout.error_RBN[:, :, None, None] / 16
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
    error, deltas = step.readout.error_RBN / 16, backprop_deltas(rule, step)
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
    rule = vector_rule(GlobalErrorVectorBroadcast, width=24, optimizer=lambda p: torch.optim.Adam(p, lr=1e-2))
    before = compute(rule).readout.loss_R
    train(rule, 150)
    assert (compute(rule).readout.loss_R < 0.5 * before).all()


def test_probes_read_vector_units():
    torch.set_default_dtype(torch.float32)
    rule, probe = vector_rule(GlobalErrorVectorBroadcast), LayerwiseLinearProbe()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(accelerator="cpu", callbacks=[probe], **quiet)
    metrics = trainer.validate(rule, rule.data, verbose=False)[0]
    assert metrics["probe/level0/layer1"] > 0.9


def test_networks_that_it_cannot_have_are_refused_by_name():
    with pytest.raises(InvalidInput) as error:
        vector_rule(GlobalErrorVectorBroadcast, signed=True)
    assert error.value.key == "model.network.signed"
    with pytest.raises(InvalidInput) as error:
        GlobalErrorVectorBroadcast(network=HierarchicalNetwork(12))
    assert error.value.key == "model.network"

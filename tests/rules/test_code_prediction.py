"""Code prediction against a loop over strings, positions and codebooks, written from its equations.

Shape suffixes: R replica, N rows, S codebooks, K symbols.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from rule_helpers import compute, from_settings, train, updates

from networks import HierarchicalNetwork, LocallyConnectedNetwork
from networks.code import mutual_information
from rhm import InvalidInput
from rules.code_prediction import CodePrediction

SMALL = ("--model.network.bottleneck=3", "--model.network.codebooks=4")


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def settled(*args: str) -> CodePrediction:
    """A rule whose codebooks, frequencies and means are not those of the start."""
    rule = from_settings("code_prediction", *SMALL, "--model.stagger=null", "--model.rate=0.3", *args)
    train(rule, steps=5)
    assert isinstance(rule, CodePrediction)
    return rule


def cosine(a, b):
    return float(a @ b) / (math.sqrt(float(a @ a)) * math.sqrt(float(b @ b)))


def information(joint):
    total = 0.0
    for a in range(len(joint)):
        for b in range(len(joint)):
            if joint[a, b] > 0:
                total += joint[a, b] * math.log(joint[a, b] / (joint[a].sum() * joint[:, b].sum()))
    return total


def by_loops(rule: CodePrediction, layer, units_BDE, r: int):
    """What one replica of a layer should hand on, its predictor's gradient, and the batch's estimates."""
    code = layer.code
    S, K = code.codebooks, code.symbols

    def get(t):
        return t[r].detach().numpy()

    U, c, mean, joint = map(get, (code.predictor_REP, code.prototypes_RSKJ, code.mean_R1E, code.joint_RSKK))
    B, D, E = units_BDE.shape
    best = max(range(S), key=lambda s: information(joint[s]))
    handed_on = np.zeros((B, D, K))
    gradient = np.zeros_like(U)
    prototypes, new_joint = np.zeros_like(c), np.zeros_like(joint)
    batch_mean = units_BDE.reshape(-1, E).mean(0)
    pairs = B * D // 2
    for s in range(S):
        U_s = U[:, s * 2 * K : (s + 1) * 2 * K]
        t, k, q = np.zeros((B, D, K)), np.zeros((B, D), int), np.zeros((B, D, 2 * K))
        for b in range(B):
            for d in range(D):
                q[b, d] = (units_BDE[b, d] - mean[0]) @ U_s
                cosines = np.array([cosine(q[b, d], c[s, j]) for j in range(K)])
                p = np.array([(joint[s][j].sum() + joint[s][:, j].sum()) / 2 for j in range(K)])
                score = cosines - rule.conscience * np.log(np.maximum(K * p, 1e-4))
                k[b, d], e = score.argmax(), np.exp(score / rule.temperature)
                t[b, d] = e / e.sum()
                prototypes[s] += np.outer(t[b, d], q[b, d] / np.linalg.norm(q[b, d])) / (B * D)
                if s == best:
                    one_hot = (np.arange(K) == cosines.argmax()).astype(float)
                    handed_on[b, d] = (one_hot - 1 / K) / math.sqrt(1 / K * (1 - 1 / K))
        t_mean = t.reshape(-1, K).mean(0)
        for b in range(B):
            for d in range(0, D, 2):
                new_joint[s][k[b, d], k[b, d + 1]] += 1 / pairs
                left, right = units_BDE[b, d] - batch_mean, units_BDE[b, d + 1] - batch_mean
                to_right = t[b, d + 1] - t_mean - left @ U_s[:, :K]
                to_left = t[b, d] - t_mean - right @ U_s[:, K:]
                first = s * 2 * K
                gradient[:, first : first + K] -= np.outer(left, to_right) / pairs
                gradient[:, first + K : first + 2 * K] -= np.outer(right, to_left) / pairs
    return handed_on, gradient, {"mean_R1E": batch_mean[None], "prototypes_RSKJ": prototypes, "joint_RSKK": new_joint}


def test_output_gradient_and_estimates_are_those_of_the_equations():
    rule = settled()
    step = compute(rule, step=7)
    update = updates(rule, step)
    assert len(update) == rule.trained_layers == 2
    for k in range(2):
        layer, state = rule.network.layers[k], step.states[k]
        units = layer.by_position(state.units_RGNE, state).numpy()
        assert len(np.unique(state.out_RBDC.argmax(-1))) > 1, "a code that tells nothing tests nothing"
        for r in range(3):
            out, gradient, estimates = by_loops(rule, layer, units[r], r)
            np.testing.assert_allclose(state.out_RBDC[r], out, atol=1e-12)
            np.testing.assert_allclose(update[k]["code.predictor_REP"][r], gradient, atol=1e-12)
            for name, value in estimates.items():
                np.testing.assert_allclose(rule.estimates[f"network.layers.{k}.code.{name}"][r], value, atol=1e-12)


def test_the_chosen_codebook_differs_between_replicas_and_is_not_the_first():
    chosen = torch.stack([layer.code.chosen_R for layer in settled().network.layers[:2]])
    assert chosen.unique().numel() > 1


def test_running_averages_move_by_the_rate():
    rule = settled()
    before = {name: buffer.clone() for name, buffer in rule.named_buffers()}
    updates(rule, compute(rule, step=7))
    estimates = {name: value.clone() for name, value in rule.estimates.items()}
    assert len(estimates) == 6
    with torch.no_grad():
        rule.apply_updates(rule.updates(compute(rule, step=7)))
    for name, value in estimates.items():
        torch.testing.assert_close(rule.get_buffer(name), before[name] + 0.3 * (value - before[name]))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_layers_learn_one_after_another(steps):
    """With a stagger of 2, steps 0 and 1 are the first layer's, 2 and 3 the second's, and then only the readout learns."""
    start = from_settings("code_prediction", *SMALL).state_dict()
    states = [
        start if n == 0 else train(from_settings("code_prediction", *SMALL, "--model.stagger=2"), steps=n)
        for n in (steps - 1, steps)
    ]
    moved = {key for key in start if not torch.equal(states[0][key], states[1][key]) and not key.startswith("accuracy")}
    turn = (steps - 1) // 2
    mine = {key for key in start if f"layers.{turn}.code." in key}
    assert moved == mine | {"readout.weight_RFN", "readout.bias_R1N"}


def test_mutual_information():
    joint = torch.rand(3, 2, 4, 4).softmax(-1) / 4
    expected = [[information(joint[r, s].numpy()) for s in range(2)] for r in range(3)]
    torch.testing.assert_close(mutual_information(joint), torch.tensor(expected))
    torch.testing.assert_close(mutual_information(torch.eye(4) / 4), torch.tensor(math.log(4)))
    torch.testing.assert_close(mutual_information(torch.full((4, 4), 1 / 16)), torch.tensor(0.0))


def test_a_layer_finds_the_symbols_of_its_tuples():
    """Four symbols with two synonyms each: in most grammars the winners of the first layer are the symbols, but for names."""
    task = ("--data.train_size=256", "--data.batch_size=64", "--model.network.codebooks=8", "--data.L=4")
    rule = from_settings(
        "code_prediction", *task, "--model.network.bottleneck=4", "--model.network.width=64", seeds=(0, 1, 2, 3)
    )
    before = purity(rule)
    train(rule, steps=250)
    assert (purity(rule) > 0.99).sum() >= 3 and (before < 0.9).all(), (before, purity(rule))


@torch.no_grad()
def purity(rule) -> torch.Tensor:
    """The share of level 1's symbols that is right if each winner stands for its commonest symbol, ``[R]``."""
    batch = rule.data.train_batch(0)
    winners = rule.network(batch.x_RBD)[0].out_RBDC.argmax(-1)
    table = torch.zeros(len(winners), 4, 4)
    for r, (winner, symbol) in enumerate(zip(winners, batch.derivation.symbols[1], strict=True)):
        table[r].index_put_((winner.flatten(), symbol.flatten().long()), torch.tensor(1.0), accumulate=True)
    return table.amax(-1).sum(-1) / table.sum((-1, -2))


@pytest.mark.parametrize(
    ("args", "allowed"),
    [
        (("--model.rate=0",), "above 0"),
        (("--model.stagger=0",), "at least 1"),
        (("--model.conscience=-1",), "at least 0"),
        (("--model.temperature=0",), "above 0"),
        (("--model.network.codebooks=0",), "at least 1"),
    ],
)
def test_refusals(args, allowed):
    with pytest.raises(Exception, match=allowed):
        from_settings("code_prediction", *args)


def test_codes_need_symbols_and_shared_weights_and_take_no_signal():
    with pytest.raises(InvalidInput, match="at least 1 for CodePrediction"):
        CodePrediction(HierarchicalNetwork(bottleneck=3))
    with pytest.raises(InvalidInput, match="number of symbols"):
        HierarchicalNetwork(codebooks=3)
    rule = from_settings("code_prediction", *SMALL)
    state = compute(rule).states[0]
    with pytest.raises(InvalidInput, match="through codes"):
        rule.network.layers[0].backward(state, torch.ones_like(state.out_RBDC))
    with pytest.raises(InvalidInput, match="weights of their own"):
        LocallyConnectedNetwork(bottleneck=3, codebooks=2).build(rule.data.task, torch.tensor([0]))
    assert HierarchicalNetwork(bottleneck=3, codebooks=2).build(rule.data.task, torch.tensor([0])).layers[-1].code is None

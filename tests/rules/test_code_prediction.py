"""Code prediction: turns, choices, what it finds and what it refuses.

Shape suffixes: R replica, S codebooks, K symbols.
"""

from __future__ import annotations

import math

import pytest
import torch
from rule_helpers import compute, from_settings, train

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


def test_the_chosen_codebook_differs_between_replicas_and_is_not_the_first():
    chosen = torch.stack([layer.code.chosen_R for layer in settled().network.layers[:2]])
    assert chosen.unique().numel() > 1


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
    one, other, both = (torch.special.entr(p).flatten(2).sum(-1) for p in (joint.sum(-1), joint.sum(-2), joint))
    torch.testing.assert_close(mutual_information(joint), one + other - both)
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

"""What rules that cluster cells find."""

from __future__ import annotations

import pytest
import torch
from rule_helpers import from_settings, train
from torch import Tensor

from rules import LocalRule


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def purity(rule: LocalRule) -> Tensor:
    """The share of a level's symbols that is right if each code stands for its commonest symbol, for levels 1 and 2: ``[2, R]``."""
    batch = rule.data.train_batch(0)
    states, found = rule.network(batch.x_RBD), []
    for level in (1, 2):
        codes, symbols = states[level - 1].out_RBDC.argmax(-1), batch.derivation.symbols[level].long()
        table = torch.zeros(len(codes), 4, 4)
        for r in range(len(codes)):
            table[r].index_put_((codes[r].flatten(), symbols[r].flatten()), torch.tensor(1.0), accumulate=True)
        found.append(table.amax(-1).sum(-1) / table.sum((-1, -2)))
    return torch.stack(found)


@pytest.mark.parametrize(("name", "strings", "turn"), [("exchange_clustering", 128, 60), ("latent_clustering", 1024, 40)])
@torch.no_grad()
def test_codes_become_the_symbols(name, strings, turn):
    """Four symbols with two synonyms each: in most grammars each layer's codes are the symbols, but for names."""
    sizes = (f"--data.train_size={strings}", "--data.batch_size=64", "--data.L=4", f"--model.turn={turn}")
    rule = from_settings(name, *sizes, seeds=(0, 1, 2, 3))
    before = purity(rule)
    train(rule, steps=2 * turn)
    assert ((purity(rule) == 1).sum(1) >= 3).all() and (before < 0.9).all(), (before, purity(rule))

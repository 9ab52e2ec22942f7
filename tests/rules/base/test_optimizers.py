"""Replicas are trained together and learn as they would alone, whatever the optimizer; one that mixes them is refused."""

from __future__ import annotations

import pytest
import torch
from rule_helpers import make_data, train
from torch.optim import Optimizer

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.backprop import Backprop

ALONE = ["ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]


def trained(optimizer, seeds) -> dict[str, torch.Tensor]:
    rule = Backprop(HierarchicalNetwork(12), optimizer=lambda p: optimizer(p, lr=1e-2))
    return train(rule.prepare(make_data(seeds=seeds)), 3, "32-true")


@pytest.mark.parametrize("name", ALONE)
def test_an_optimizer_that_is_taken_gives_a_replica_the_weights_that_it_has_alone(name):
    optimizer = getattr(torch.optim, name)
    together, alone = trained(optimizer, (0, 1)), trained(optimizer, (0,))
    for key, value in alone.items():
        if not key.startswith("accuracy"):
            torch.testing.assert_close(together[key][:1], value, rtol=1e-4, atol=1e-6)


class Normed(Optimizer):
    """Steps of one length over the whole tensor, as those of layerwise adaptive rates."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p -= group["lr"] * p.grad / p.grad.norm()


@pytest.mark.parametrize("optimizer", [Normed, torch.optim.Adafactor], ids=lambda o: o.__name__)
def test_an_optimizer_that_mixes_replicas_is_refused_where_there_are_several(optimizer):
    with pytest.raises(InvalidInput, match=f"model.optimizer: got {optimizer.__name__}, which mixes replicas"):
        trained(optimizer, (0, 1))
    trained(optimizer, (0,))

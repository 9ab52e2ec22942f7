"""Replicas are trained together and learn as they would alone, whatever the optimizer; one that mixes them is refused."""

from __future__ import annotations

import pytest
import torch
from rule_helpers import make_data, train
from torch.optim import Optimizer

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.backprop import Backprop
from rules.base.optimizers import step_once

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


def groups_of(rates) -> list[dict]:
    """Groups of two parameters with gradients; the same for the same arguments."""
    generator = torch.Generator().manual_seed(0)
    groups = []
    for k, lr in enumerate(rates, 1):
        params = [torch.nn.Parameter(torch.randn(2, 3, generator=generator)) for _ in range(2)]
        for p in params:
            p.grad = torch.randn(2, 3, generator=generator)
        groups.append({"params": params, "name": f"layer{k}", "lr": lr})
    return groups


@pytest.mark.parametrize("rates", [(0.1, 0.1, 0.1), (0.1, 0.1, 0.2)], ids=["alike", "another rate"])
@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Rprop"])
def test_one_step_for_all_groups_is_a_step_of_each(name, rates):
    """In one call where groups are alike, whatever a step, a state or an interrupt finds in between."""
    calls = []
    made = [getattr(torch.optim, name)(groups_of(rates)) for _ in range(2)]
    step_once(made[1])
    made[1].register_step_pre_hook(lambda optimizer, *_: calls.append(len(optimizer.param_groups)))
    for _ in range(4):
        for optimizer in made:
            for group in optimizer.param_groups:
                group["lr"] *= 0.5  # as a falling rate does
            optimizer.step()
    one, other = (optimizer.state_dict() for optimizer in made)
    assert [group["name"] for group in made[1].param_groups] == ["layer1", "layer2", "layer3"]
    assert calls == 4 * [1 if len({*rates}) == 1 and name != "Rprop" else 3]
    assert str(one) == str(other)
    for mine, theirs in zip(*(o.param_groups for o in made), strict=True):
        assert all(torch.equal(*pair) for pair in zip(mine["params"], theirs["params"], strict=True))


def test_a_step_that_is_interrupted_leaves_the_groups_of_the_state_and_of_the_next_step():
    optimizer = torch.optim.SGD(groups_of((0.1, 0.1)))
    step_once(optimizer)

    def interrupt(*_):
        raise KeyboardInterrupt

    names = ["layer1", "layer2"]
    for look in (lambda: optimizer.state_dict()["param_groups"], lambda: optimizer.step() or optimizer.param_groups):
        hook = optimizer.register_step_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
        hook.remove()
        assert len(optimizer.param_groups) == 1
        assert [group["name"] for group in look()] == names


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

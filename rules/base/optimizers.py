"""Does an optimizer treat replicas as if each were alone, and does it step once for all layers?"""

from __future__ import annotations

from typing import Any

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import nn

from rhm import InvalidInput

ONLY_SETTINGS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)
"""Optimizers whose parameter groups have settings and nothing that a step changes."""


def check_optimizer(make: OptimizerCallable) -> None:
    """Refuse an optimizer in which a replica's step depends on another's gradient, as by a norm over whole tensors.

    Raises:
        InvalidInput: it does.
    """
    steps, names = [], []
    for scale in (1.0, 100.0):
        weight = nn.Parameter(torch.linspace(-1, 1, 24).view(2, 1, 3, 4))
        weight.data[1] *= scale  # another size, and below another gradient
        optimizer = make([{"params": [weight], "name": "layer1"}])
        with torch.random.fork_rng(devices=[]):
            for _ in range(2):
                weight.grad = weight.detach().sin()
                weight.grad[1] *= scale
                optimizer.step()
        steps.append(weight.detach()[0])
        names.append(type(optimizer).__name__)
    if not torch.equal(*steps):
        allowed = "one that looks at each number by itself, such as Adam: else replicas would not learn as they do alone"
        raise InvalidInput("model.optimizer", f"{names[0]}, which mixes replicas", allowed)


def step_once(optimizer: torch.optim.Optimizer) -> None:
    """Have each step made for all parameter groups as one, where they differ in nothing but their names.

    Weights are the same bit for bit. A small network's step is bound by its calls, and a fused optimizer makes one a group.
    """
    if type(optimizer) not in ONLY_SETTINGS:
        return
    own: list[dict[str, Any]] = []

    def part(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if own:
            optimizer.param_groups = [*own]
            own.clear()

    def join(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        groups = optimizer.param_groups
        first, *others = ({key: group[key] for key in group.keys() - {"params", "name"}} for group in groups)
        if others and all(other == first for other in others):
            own[:] = groups
            optimizer.param_groups = [first | {"params": [p for group in groups for p in group["params"]]}]

    optimizer.register_step_pre_hook(join)
    optimizer.register_step_post_hook(part)
    optimizer.register_state_dict_pre_hook(part)

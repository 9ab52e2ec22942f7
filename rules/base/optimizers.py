"""Does an optimizer treat replicas as if each were alone?"""

from __future__ import annotations

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import nn

from rhm import InvalidInput


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

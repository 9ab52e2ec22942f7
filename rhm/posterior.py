"""What a string says of its class to one who knows the grammar: the best that any learner can do.

Shape suffixes: R replica, B string, D position, A symbol of a level, M rule, S place in a tuple.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rhm.errors import InvalidInput
from rhm.model import RandomHierarchyModel


def class_posterior(model: RandomHierarchyModel, x_RBD: Tensor, noise: float = 0.0) -> Tensor:
    """The probability of each class given a string, by the inside algorithm (Baker 1979) from level to level.

    Each token may have been replaced, with probability ``noise``, by one drawn from all ``v``. A symbol's likelihood is the
    mean over its rules, weighted by their frequencies, of the product of its children's.

    Args:
        model: the grammars.
        x_RBD: tokens.
        noise: with 0 a string that the grammar can not make has no class: its row is not a number.

    Returns:
        ``[R, B, n]`` in float64.

    Raises:
        InvalidInput: noise that is no probability.
    """
    if not 0 <= noise <= 1:
        raise InvalidInput("noise", noise, "a probability from 0 to 1")
    task = model.task
    seen = torch.nn.functional.one_hot(x_RBD.long(), task.v).double()
    likelihood = (1 - noise) * seen + noise / task.v
    for level in range(1, task.L + 1):
        rules_RAMS = model.rules(level).long()
        children = likelihood.unflatten(2, (-1, task.s))
        index = rules_RAMS.flatten(1, 2).transpose(1, 2)[:, None, None].expand(*children.shape[:4], -1)
        product = children.gather(-1, index).prod(3).unflatten(-1, (-1, task.m))
        weight_M = torch.tensor(model.frequencies.get(level, [1 / task.m] * task.m), dtype=product.dtype, device=product.device)
        likelihood = (product * weight_M).sum(-1)
        likelihood = likelihood / likelihood.sum(-1, keepdim=True)  # small numbers at many levels
    return likelihood[:, :, 0]

"""Draws of a search that cover each setting's range evenly, however few they are."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial


class LatinHypercube(RandomSampler):
    """A draw of a Latin hypercube (McKay, Beckman, Conover 1979, doi 10.2307/1268522).

    Each setting's range, or list, is cut into as many parts as there are draws, and each part is drawn from once, in an order
    that is random and the setting's own: of two rules, those that share a setting are shown the same values of it, whatever
    others they have.

    Args:
        number: of the draw, from 0; a negative one is beside the hypercube, and is drawn from the whole range.
        draws: how many there are.
    """

    def __init__(self, number: int, draws: int):
        super().__init__(seed=0)
        self.number, self.draws = number, draws

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A setting's value."""
        seed = zlib.crc32(param_name.encode())
        if self.number < 0:
            place = np.random.default_rng([seed, -self.number]).random()
        else:
            generator = np.random.default_rng(seed)
            order, within = generator.permutation(self.draws), generator.random(self.draws)
            place = (order[self.number] + within[self.number]) / self.draws
        if isinstance(param_distribution, CategoricalDistribution):
            return param_distribution.choices[int(place * len(param_distribution.choices))]
        assert isinstance(param_distribution, FloatDistribution)
        low, high = param_distribution.low, param_distribution.high
        return float(low * (high / low) ** place if param_distribution.log else low + (high - low) * place)

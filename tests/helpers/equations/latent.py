"""The oracle of iterative latent clustering: cells are described by going through the pairs that were counted, k-means is a loop.

Shape suffixes: S codebooks, Y contexts, T cells, K codes; D numbers of a description.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch

from equations.exchange import AT_ONCE, Layer, cells_seen, exchange
from equations.network import Array
from rhm.hashing import fold, uniform


class MeansLayer(Layer):
    """A layer whose codes are clusters of descriptions."""

    def described(self, counts_YTT: Array) -> Array:
        """How often each code stands at each place of a cell's right and left siblings, one number after another."""
        below = round(self.T ** (1 / self.patch_below))
        tuples = list(itertools.product(range(below), repeat=self.patch_below))
        Y, size = len(counts_YTT), below * self.patch_below
        all_TD = np.zeros((self.T, 2 * Y * size))
        for t in range(self.T):
            for side, y in itertools.product((0, 1), range(Y)):
                beside_T = counts_YTT[y, t] if side == 0 else counts_YTT[y, :, t]
                for other, count in enumerate(beside_T):
                    for place, code in enumerate(tuples[other]):
                        all_TD[t, (side * Y + y) * size + place * below + code] += count / max(1, beside_T.sum())
        return all_TD

    @property
    def patch_below(self) -> int:
        """Codes of a cell's tuple."""
        return self.case.network.layers[self.k - 1].patch

    @staticmethod
    def far(one: Array, other: Array) -> float:
        return float(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)))

    def means(self, all_TD: Array, codes_T: Array, seen: list[bool]) -> dict[int, Array]:
        """Of the clusters that have cells."""
        members = {k: [all_TD[t] for t in range(self.T) if seen[t] and codes_T[t] == k] for k in range(self.K)}
        return {k: np.mean(own, 0) for k, own in members.items() if own}

    def nearest(self, row: Array, means: dict[int, Array]) -> int:
        return min(means, key=lambda k: self.far(row, means[k]))

    def decide(self, counts_YTT: Array) -> Array:
        step, begin = self.now - self.start, int(self.case.setting("seeded", 0.8) * self.turn)
        codes_ST = self.codes_ST.copy()
        if step < begin:
            return codes_ST
        all_TD, seen = self.described(counts_YTT), cells_seen(counts_YTT)
        for s in range(len(codes_ST)):
            means = self.drawn(all_TD, seen, s) if step == begin else self.means(all_TD, self.codes_ST[s], seen)
            for t in range(self.T):
                if seen[t]:
                    codes_ST[s, t] = self.nearest(all_TD[t], means)
        return codes_ST

    def drawn(self, all_TD: Array, seen: list[bool], s: int) -> dict[int, Array]:
        """K-means++: cells with a probability that grows with the squared distance from those that were drawn."""
        key = torch.tensor([self.case.keys(self.k, self.now)])
        noise_KT = uniform(fold(key, "means"), (len(self.codes_ST), self.K, self.T))[0, s].numpy()
        weights, means = [float(is_seen) for is_seen in seen], {}
        for k in range(self.K):
            chances = [
                math.log(weight) - math.log(-math.log(noise_KT[k, t])) if weight > 0 else -math.inf
                for t, weight in enumerate(weights)
            ]
            means[k] = all_TD[int(np.argmax(chances))]
            away = [
                is_seen * min(self.far(row, mean) for mean in means.values()) for row, is_seen in zip(all_TD, seen, strict=True)
            ]
            weights = away if sum(away) > 0 else weights
        return means

    def value(self, counts_YTT: Array, codes_T: Array) -> float:
        all_TD, seen = self.described(counts_YTT), cells_seen(counts_YTT)
        means = self.means(all_TD, codes_T, seen)
        return -sum(self.far(all_TD[t], means[codes_T[t]]) for t in range(self.T) if seen[t])


FEW = "--model.network.codebooks=3"
VARIANTS = (
    (AT_ONCE, FEW),
    (AT_ONCE, FEW, "--model.seeded=0"),
    (AT_ONCE, FEW, "--model.seeded=0", "--model.network.bottleneck=3"),
    (AT_ONCE, FEW, "--model.seeded=0", "--data.s=3", "--data.L=3", "--data.m=3"),
)

EQUATIONS = {"latent_clustering": exchange(kind=MeansLayer, variants=VARIANTS)}

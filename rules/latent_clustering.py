"""Iterative latent clustering (ILC): tuples that stand beside the same codes are one code of the next level.

Shape suffixes: R replica, S codebooks, Y contexts, T cells, G groups of positions (always 1 here), F inputs, the codes of a
tuple, one-hot, E units, D numbers of a description, K codes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from networks.cells import tuples_of
from rhm import InvalidInput
from rhm.hashing import fold, uniform
from rules.base.cell_clustering import CellClustering
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.maths import exchange, kmeans


class IterativeLatentClustering(CellClustering):
    """Cells are described by the codes within their siblings; k-means of the descriptions gives the codes of the next level.

    A cell's description is ``P(code at place j of its sibling | cell)`` for each place and either side, as frequencies of what
    the layer has counted so far. At ``seeded`` of a layer's turn k-means++ draws ``K`` cells that lie far from one another, and
    each step after it is one of Lloyd's: every cell takes the code of the nearest mean. Of the layer's codebooks, which start
    from other draws, the one with the smallest sum of squared distances is handed on.

    The published reference of data efficiency: of the order of ``v m^3 / (1 - m / v^(s-1))`` strings at any depth, up to its
    logarithm. :class:`rules.exchange_clustering.ExchangeClustering` needs fewer, as it describes a cell by the codes that its
    siblings *have*, and not by those within them.

    Korchinski, Favero, Wyart 2026, section 3. Ours: how k-means is started and how often, that both sides are described, and
    that strings come in batches.

    Sees and learns: see :class:`rules.base.cell_clustering.CellClustering`.

    Args:
        network, optimizer, clip, turn, one_by_one: see :class:`rules.base.cell_clustering.CellClustering`.
        seeded: part of the turn after which k-means begins.

    Raises:
        InvalidInput: a value out of its range; another network; pairs that are not siblings, or layers that have none.
    """

    source = "arXiv 2605.27734"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=3e-3, fused=True),
        clip: float | None = None,
        turn: int = 150,
        one_by_one: bool = True,
        seeded: float = 0.8,
    ):
        super().__init__(network, optimizer, clip, turn, one_by_one)
        if not 0 <= seeded < 1:
            raise InvalidInput("model.seeded", seeded, "a number of at least 0 and below 1")
        self.seeded = seeded

    def descriptions(self, k: int, counts_RYTT: Tensor) -> Tensor:
        """Of the cells of layer ``k``, ``[R, T, D]``."""
        layer = self.network.layers[k - 1]
        codes = layer.get_parameter("weight_RGFE").shape[2] // layer.patch
        tuples_TF = functional.one_hot(tuples_of(layer.patch, codes), codes).flatten(1)
        return kmeans.descriptions(counts_RYTT, tuples_TF.to(counts_RYTT))

    def objective(self, k: int, counts_RYTT: Tensor, codes_RST: Tensor) -> Tensor:
        """Less the sum of squared distances."""
        K, seen_RT = self.table(k).symbols, exchange.seen(counts_RYTT)
        return -kmeans.inertia(self.descriptions(k, counts_RYTT), codes_RST, seen_RT, K)

    def decided(self, k: int, counts_RYTT: Tensor) -> Tensor:
        """The codes after a step of k-means, the first of which draws means; before it, as they were."""
        table, begin = self.table(k), int(self.seeded * self.turn)
        codes_RST, K, step = table.codes_RST, table.symbols, self.passed
        if step < begin:
            return codes_RST
        all_RTD, seen_RT = self.descriptions(k, counts_RYTT), exchange.seen(counts_RYTT)
        if step > begin:
            return kmeans.reassigned(all_RTD, codes_RST, seen_RT, K)
        S, T = codes_RST.shape[1:]
        gumbel_RSKT = -(-uniform(fold(self.step_keys(k), "means"), (S, K, T)).log()).log()
        return torch.where(seen_RT[:, None], kmeans.seeded(all_RTD, seen_RT, gumbel_RSKT), codes_RST)

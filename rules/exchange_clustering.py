"""Exchange clustering of siblings: cells count what they stand beside, and choose their code by it.

Shape suffixes: R replica, B string, D position, A parent, S codebooks, Y contexts, T cells, N cells that decide, K codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rhm import InvalidInput
from rhm.hashing import fold, uniform
from rules.base.cell_clustering import CellClustering
from rules.base.contract import Locality, Step
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.maths import exchange

DRIVES = "gain", "weights", "own_weights"


class ExchangeClustering(CellClustering):
    """Cells that stand beside the same codes get the same code: class-based bigrams of siblings, found by exchanges.

    A layer has a cell ``t`` for each tuple of the codes below, a code ``z(t)`` for each cell, and Hebbian counts ``C[y, a, b]``
    of cells seen side by side under one parent, ``a`` left of ``b``; ``y`` is the class at the top layer that has siblings if
    ``label_context``, else one and the same; of three siblings and more it is also the place of ``a``. It climbs the log of the
    counts' probability

        sum_ykl ln p(J[y, k, l]) + sum_k ln G(d n_k) / G(d n_k + c_k) + sum_t ln G(d + c_t) / G(d),

    where ``J`` are the counts by code, ``n_k`` is the number of cells with code ``k``, ``c_k = J[., k, .] + J[., ., k]`` how
    often it stood on either side, ``c_t`` the same of a cell, and ``G`` the gamma function. Siblings draw a pair of codes, of
    which a share ``w`` occurs at all and the others never do, and a code draws one of its cells, the same on either side; the
    probabilities of both are integrated out. How many pairs occur, how equal their rates are and how equal a code's cells is
    not told: ``w``, the shape ``b`` of ``p`` and ``d`` are those under which the counts are most probable, anew in each step
    (:class:`rules.maths.exchange.Prior`). With ``s`` = 2, without contexts, ``w`` of the true symbols is ``m / v``; ``b`` and
    ``d`` are large where rates and rules are equally frequent.

    In each step of a layer's turn a fraction of the cells that it has seen decides again, all at once:

        z(t) = argmax_k F[t, k] + T g

    ``F`` is the objective with ``t`` in code ``k`` and its own counts nowhere else (leave one out), ``g`` Gumbel noise. ``T``
    falls in a line from ``temperature`` times the counts of a cell to 0 at ``falling`` of the turn. The best of the layer's
    codebooks is handed on.

    The layer below that one sees no label, and at high m it is what fails: ``J`` alone does not tell its codes. In ``returns``
    further turns, each followed by one of the layer above, its pairs are counted by the code that their parent is expected to
    have, from outside of them, by the counts of the layer above:

        y = argmax_p J[class, p, q]    of the left one of two parents, J[class, q, p] of the right one; q: the other's code

    and not at all where the second best has more than half of the counts of the best. ``q`` and ``J`` are those of the codes
    from before the turn. Each turn counts anew and starts with the codes of the last.

    In the neural form (``drive``: ``weights``) units are driven by their siblings' codes, through lateral weights like those of
    BCPNN (Lansner, Ekeberg 1989): ``w`` and ``u`` are ``ln (J + a)`` less the logarithm of how often the unit was active,

        F[t, k] = sum_yl R[y, t, l] w[y, k, l] + Q[y, t, l] u[y, l, k],

    ``R`` and ``Q`` how often code ``l`` was right and left of ``t``, and ``a`` is ``pseudo_counts`` over the number of pairs of
    codes and, where they are contexts, of classes. It has no gamma function, and no number of cells.

    Class-based bigrams: Brown et al. 1992; exchanges, leaving one out: Kneser, Ney 1993, Martin, Liermann, Ney 1998. The
    integrated form is that of block models with degrees (Karrer, Newman 2011; Peixoto 2017); its prior for siblings, the noise
    and the contexts are ours.

    What is counted, seen and learned: see :class:`rules.base.cell_clustering.CellClustering`. A cell decides by its own counts,
    ``z`` of its siblings and the layer's ``J``; with ``returns`` also by codes and counts of the layer above.

    Args:
        network, optimizer, clip, turn, one_by_one: see :class:`rules.base.cell_clustering.CellClustering`.
        label_context: whether siblings are counted for each class by itself at the top layer that has siblings.
        fraction: of the cells that have been seen, which decides in a step; at least one does. With 1 they undo one another.
        temperature: ``T`` at the start for each count of a cell.
        falling: part of the turn at whose end ``T`` is 0.
        pseudo_counts: of all pairs of codes and classes together, in the neural form.
        drive: what ``F`` is: ``gain``, as above; ``weights``, the neural form; ``own_weights``, the same with the cell's own
            counts in the weights.
        returns: further turns of the two uppermost layers that have siblings, after all have had theirs.
        spare_codes: whether ``K`` is a bound, and codes may stay unused: the more are used, the more pairs might occur. Wanted
            where there are more codes than symbols; where there are as many, it merges symbols. With ``gain`` alone.

    Raises:
        InvalidInput: a value out of its range; another network; pairs that are not siblings, or layers that have none;
            ``returns`` without ``label_context`` or ``one_by_one``, of fewer than two layers, or of tuples of three and more;
            ``spare_codes`` in the neural form.
    """

    source = "this project, after Brown et al. 1992, Computational Linguistics 18, and Martin, Liermann, Ney 1998"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=3e-3, fused=True),
        clip: float | None = None,
        label_context: bool = False,
        turn: int = 150,
        one_by_one: bool = True,
        fraction: float = 0.7,
        temperature: float = 0.15,
        falling: float = 0.6,
        pseudo_counts: float = 6.4,
        drive: str = "gain",
        returns: int = 0,
        spare_codes: bool = False,
    ):
        super().__init__(network, optimizer, clip, turn, one_by_one)
        for key, value in ("fraction", fraction), ("falling", falling):
            if not 0 < value <= 1:
                raise InvalidInput(f"model.{key}", value, "a number above 0 and at most 1")
        if temperature < 0:
            raise InvalidInput("model.temperature", temperature, "a number of at least 0")
        if pseudo_counts <= 0:
            raise InvalidInput("model.pseudo_counts", pseudo_counts, "a number above 0")
        if drive not in DRIVES:
            raise InvalidInput("model.drive", drive, f"one of {', '.join(DRIVES)}")
        if spare_codes and drive != "gain":
            raise InvalidInput("model.spare_codes", spare_codes, f"false with model.drive={drive}")
        self.label_context, self.fraction, self.drive, self.spare_codes = label_context, fraction, drive, spare_codes
        self.temperature, self.falling, self.pseudo_counts = temperature, falling, pseudo_counts
        if label_context:
            self.knowledge = "labels"
            self.locality = Locality(partner=True, batch=True, lateral=True, label=True, other_layers=returns > 0)
        if returns < 0:
            raise InvalidInput("model.returns", returns, "a number of turns, at least 0")
        if returns and not (label_context and one_by_one):
            raise InvalidInput("model.returns", returns, "0 without model.label_context or without model.one_by_one")
        self.returns = returns

    def build(self) -> None:
        super().build()
        if not self.returns:
            return
        top = self.trained_layers
        if top < 2:
            raise InvalidInput("model.returns", self.returns, f"0 for {top} layer with siblings")
        if patches := [patch for patch in self.patches[top - 1 : top + 1] if patch != 2]:
            raise InvalidInput("model.returns", self.returns, f"0 for tuples of {patches[0]}")
        table, upper = self.table(top - 1), self.table(top)
        R, _, T, _ = table.get_buffer("counts_RYTT").shape
        table.register_buffer("counts_RYTT", torch.zeros(R, upper.symbols, T, T, dtype=torch.int32))
        table.register_buffer("before_RT", table.handed_on_RT.clone())

    @property
    def order(self) -> list[int]:
        return super().order + [self.trained_layers - 1, self.trained_layers] * self.returns

    def returned(self, k: int) -> bool:
        """Whether layer ``k`` is the one below the uppermost that has siblings, in a further turn."""
        return self.returns > 0 and k == self.trained_layers - 1 and self.now >= self.trained_layers * self.turn

    def classes(self, k: int) -> int:
        """Classes by which siblings of layer ``k`` are counted apart: of the string, or codes of a parent."""
        if self.returned(k):
            return self.table(k + 1).symbols
        return self.data.task.n if self.label_context and k == self.trained_layers else 1

    def classes_of(self, k: int, step: Step, cells_RBD: Tensor) -> tuple[Tensor, Tensor]:
        y_RB1 = step.batch.y_RB.long()[..., None]
        if self.returned(k):
            upper = self.table(k + 1)
            codes_RBD = self.before_RT(k).gather(1, cells_RBD.flatten(1)).view(cells_RBD.shape)
            tuples_RBA = codes_RBD[..., ::2] * self.table(k).symbols + codes_RBD[..., 1::2]
            parents_RBA = upper.handed_on_RT.gather(1, tuples_RBA.flatten(1)).view(tuples_RBA.shape)
            counts_RYTT = upper.get_buffer("counts_RYTT").double()
            joint_RYKK = exchange.tally(counts_RYTT, upper.handed_on_RT[:, None], upper.symbols)[2][:, 0]
            return exchange.expected(joint_RYKK, y_RB1, parents_RBA)
        if self.classes(k) > 1:
            return y_RB1, torch.ones_like(y_RB1, dtype=torch.bool)
        return super().classes_of(k, step, cells_RBD)

    def before_RT(self, k: int) -> Tensor:
        """The codes that layer ``k`` handed on before its turn."""
        table = self.table(k)
        return table.get_buffer("before_RT") if self.passed else table.handed_on_RT

    def tracked(self, estimates: dict[str, Tensor]) -> dict[str, Tensor]:
        before = {f"{name}.before_RT": self.before_RT(k) for k, name in self.learning() if self.returned(k)}
        return super().tracked(estimates) | before

    def prior(self, k: int, counts_RYTT: Tensor, codes_RST: Tensor) -> exchange.Prior:
        """What the counts of layer ``k`` make most probable of themselves."""
        most = self.turn * self.data.batch_size
        if self.data.train_sizes_R is not None:
            most = min(most, max(size or 0 for size in self.data.replica_sizes))
        pairs = self.network.positions[k - 1] // self.network.layers[k].patch * self.places(k)
        return exchange.Prior(counts_RYTT, codes_RST, self.table(k).symbols, most * pairs, self.spare_codes)

    def objective(self, k: int, counts_RYTT: Tensor, codes_RST: Tensor) -> Tensor:
        return self.prior(k, counts_RYTT, codes_RST).value_RS

    def decided(self, k: int, counts_RYTT: Tensor) -> Tensor:
        """The codes of layer ``k`` after a fraction of the cells that have been seen has decided again."""
        table = self.table(k)
        codes_RST, K = table.codes_RST, table.symbols
        S, T = codes_RST.shape[1:]
        N, keys_R, seen_RT = max(1, round(self.fraction * T)), self.step_keys(k), exchange.seen(counts_RYTT)
        cells_RSN = (uniform(fold(keys_R, "order"), (S, T)) + seen_RT[:, None]).topk(N, -1).indices  # those seen come first
        most_R1 = (self.fraction * seen_RT.double().sum(1, keepdim=True)).round().clamp_min(1)
        decide_R1N = (torch.arange(N, device=most_R1.device) < most_R1)[:, None]
        gumbel_RSNK = -(-uniform(fold(keys_R, "noise"), (S, N, K)).log()).log()
        left = max(0.0, 1 - self.passed / (self.falling * self.turn))
        noise_R = self.temperature * left * exchange.counts_a_cell(counts_RYTT)
        value_RSNK = self.values(k, counts_RYTT, cells_RSN) + noise_R[:, None, None, None] * gumbel_RSNK
        return exchange.redecide(counts_RYTT, codes_RST, cells_RSN, decide_R1N, value_RSNK)

    def values(self, k: int, counts_RYTT: Tensor, cells_RSN: Tensor) -> Tensor:
        """``F`` of cells of layer ``k`` in each code."""
        codes_RST, K = self.table(k).codes_RST, self.table(k).symbols
        if self.drive == "gain":
            return exchange.gains(counts_RYTT, codes_RST, cells_RSN, K, self.prior(k, counts_RYTT, codes_RST))
        pseudo_count = self.pseudo_counts / (K**2 * self.classes(k))
        return exchange.drives(counts_RYTT, codes_RST, cells_RSN, K, pseudo_count, own_share=self.drive == "own_weights")

"""Exchange clustering of siblings: cells count what they stand beside, and choose their code by it.

Shape suffixes: R replica, B batch (string), D position or pair, G groups of positions (always 1 here), M rows
(strings times positions), E units, S codebooks, Y contexts, T cells, N cells that decide, K codes; P pairs of a step.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.nn import functional

from datamodules import SiblingPairs
from networks import CodeNetwork
from networks.code import CodeTable
from rhm import InvalidInput
from rhm.hashing import fold, seed_keys, uniform
from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.maths import exchange


class ExchangeClustering(LocalRule):
    """Cells that stand beside the same codes get the same code: class-based bigrams of siblings, found by exchanges.

    A layer has a cell ``t`` for each tuple of the codes below, a code ``z(t)`` for each cell, and Hebbian counts ``C[y, a, b]``
    of cells seen side by side under one parent, ``a`` left of ``b``; ``y`` is the class at the top layer that has siblings if
    ``label_context``, else one and the same; of three siblings and more it is also the place of ``a``. It climbs

        sum_ykl ln G(J[y, k, l] + a) + sum_k e(n_k, J[., k, .]) + e(n_k, J[., ., k]),    e(n, c) = ln G(n) - ln G(n + c),

    where ``J`` are the counts by code, ``n_k`` is the number of cells with code ``k`` and ``G`` the gamma function: the log of
    the counts' probability, with those of pairs of codes and of a code's cells integrated out. In each step of a layer's turn a
    fraction of its cells decides again, all at once:

        z(t) = argmax_k F[t, k] + T g

    ``F`` is the objective with ``t`` in code ``k`` and its own counts nowhere else (leave one out), ``g`` Gumbel noise. ``T``
    falls in a line from ``temperature`` times the counts of a cell to 0 at ``falling`` of the turn. ``a`` is ``pseudo_counts``
    over the number of pairs of codes and, where they are contexts, of classes. The best of the layer's codebooks is handed on.

    Class-based bigrams: Brown et al. 1992; exchanges, leaving one out: Kneser, Ney 1993, Martin, Liermann, Ney 1998. New are
    the integrated form, the noise and the contexts. Each of the training strings is counted once in a turn, however often it is
    shown; an endless stream is counted as long as the turn lasts.

    Sees: its own cells, their siblings', and counts over the batch, which ranks sum. A cell decides by its own counts, ``z`` of
    its siblings and the layer's ``J``: not local to a synapse, but to a layer. Learned: ``z``; no weight has a gradient. The
    layers above those that have siblings learn with the readout, from labels.

    Args:
        network: a :class:`networks.CodeNetwork`; its ``bottleneck`` is the number of codes, its ``codebooks`` tries.
        optimizer, clip: of the layers above and the readout, see :class:`rules.base.local_rule.LocalRule`.
        label_context: whether siblings are counted for each class by itself at the top layer that has siblings.
        turn: steps that a layer learns.
        one_by_one: layers learn one after another, from the first; false lets all learn in the first turn, a control in which
            upper layers count codes that are not yet found.
        fraction: of the cells that decide in a step; at least one does.
        temperature: ``T`` at the start for each count of a cell.
        falling: part of the turn at whose end ``T`` is 0.
        pseudo_counts: of all pairs of codes and classes together.

    Raises:
        InvalidInput: a value out of its range; another network; pairs that are not siblings, or layers that have none.
    """

    family = "self-supervised"
    source = "this project, after Brown et al. 1992, Computational Linguistics 18, and Martin, Liermann, Ney 1998"
    knowledge = "none"
    uses_pairs = True
    takes_codes = True
    locality = Locality(partner=True, batch=True, lateral=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=3e-3, fused=True),
        clip: float | None = None,
        label_context: bool = False,
        turn: int = 150,
        one_by_one: bool = True,
        fraction: float = 0.4,
        temperature: float = 0.15,
        falling: float = 0.6,
        pseudo_counts: float = 6.4,
    ):
        super().__init__(network, optimizer, clip)
        if not isinstance(network, CodeNetwork):
            got = type(self.network_config).__name__
            raise InvalidInput("model.network", got, "CodeNetwork for ExchangeClustering")
        if turn < 1:
            raise InvalidInput("model.turn", turn, "a number of steps, at least 1")
        for key, value in ("fraction", fraction), ("falling", falling):
            if not 0 < value <= 1:
                raise InvalidInput(f"model.{key}", value, "a number above 0 and at most 1")
        if temperature < 0:
            raise InvalidInput("model.temperature", temperature, "a number of at least 0")
        if pseudo_counts <= 0:
            raise InvalidInput("model.pseudo_counts", pseudo_counts, "a number above 0")
        self.label_context, self.turn, self.one_by_one, self.fraction = label_context, turn, one_by_one, fraction
        self.temperature, self.falling, self.pseudo_counts = temperature, falling, pseudo_counts
        self.rate = 1.0  # what is tracked is the sum itself
        if label_context:
            self.knowledge, self.locality = "labels", Locality(partner=True, batch=True, lateral=True, label=True)

    # ---------------------------------------------------------------- what there is

    def build(self) -> None:
        if not isinstance(self.pairs, SiblingPairs):
            raise InvalidInput("data.pairs", type(self.pairs).__name__, "SiblingPairs for ExchangeClustering")
        if self.trained_layers == 0:
            got = f"SiblingPairs with a CodeNetwork of {len(self.network)} layers"
            raise InvalidInput("data.pairs", got, "layers with siblings")
        for k in range(1, self.trained_layers + 1):
            cells = self.table(k).codes_RST.shape[-1]
            shape = (self.data.replicas, self.contexts(k), cells, cells)
            self.table(k).register_buffer("counts_RYTT", torch.zeros(shape, dtype=torch.int32))

    @property
    def trained_layers(self) -> int:
        return self.pairs.layers(self.patches)

    def places(self, k: int) -> int:
        """Pairs of siblings under one parent: one of two siblings, else each one with the next."""
        patch = self.network.layers[k].patch
        return 1 if patch == 2 else patch

    def classes(self, k: int) -> int:
        """Classes by which siblings of layer ``k`` are counted apart."""
        return self.data.task.n if self.label_context and k == self.trained_layers else 1

    def contexts(self, k: int) -> int:
        """``Y`` of layer ``k``: classes times places."""
        return self.classes(k) * self.places(k)

    def table(self, k: int) -> CodeTable:
        """The codes of layer ``k``, from 1."""
        table = self.network.layers[k - 1].code
        assert isinstance(table, CodeTable)
        return table

    def evidence(self, k: int) -> exchange.Evidence:
        """``ln G(c + a) - ln G(a)`` for counts of layer ``k``: pairs of codes, and classes, share the pseudo-counts."""
        most = self.turn * self.data.batch_size
        if self.data.train_sizes_R is not None:
            most = min(most, max(size or 0 for size in self.data.replica_sizes))
        pairs = self.network.positions[k - 1] // self.network.layers[k].patch * self.places(k)
        return exchange.Evidence(self.pseudo_counts / (self.table(k).symbols ** 2 * self.classes(k)), most * pairs)

    def on_fit_start(self) -> None:
        """Say so if a run is too short for all layers to have their turn, or a turn for all strings."""
        super().on_fit_start()
        turns = self.trained_layers if self.one_by_one else 1
        if (steps := self.trainer.max_steps) < (needed := self.turn * turns):
            rank_zero_warn(
                f"trainer.max_steps={steps} leaves layers untrained: {turns} turns of {self.turn} steps need {needed}"
            )
        shown = self.turn * self.data.batch_size
        if self.data.train_sizes_R is not None and shown < (most := int(self.data.train_sizes_R.max())):
            rank_zero_warn(
                f"model.turn={self.turn} shows a layer {shown:,} strings, fewer than the {most:,} of data.train_size"
            )

    # ---------------------------------------------------------------- a step

    @property
    def now(self) -> int:
        """Steps before this one."""
        return 0 if self._trainer is None else self.trainer.global_step

    def start(self, k: int) -> int:
        """The step at which the turn of layer ``k`` starts."""
        return (k - 1) * self.turn if self.one_by_one else 0

    def learning(self) -> Iterator[tuple[int, str]]:
        """The layers whose turn it is, from 1, each with the name of its table."""
        for k in range(1, self.trained_layers + 1):
            if self.start(k) <= self.now < self.start(k) + self.turn:
                yield k, f"network.layers.{k - 1}.code"

    def layer_updates(self, step: Step) -> Updates:
        updates = Updates([{} for _ in range(self.trained_layers)])
        for k, name in self.learning():
            updates.estimates[f"{name}.counts_RYTT"] = self.count(k, step)
            updates.losses.update(self.told(k))
        return updates

    def count(self, k: int, step: Step) -> Tensor:
        """How often the cells of layer ``k`` stand side by side in the batch, ``[R, Y, T, T]``, as a mean over ranks."""
        layer, state, places = self.network.layers[k - 1], step.states[k - 1], self.places(k)
        active_RBD1 = layer.by_position(state.units_RGME, state).argmax(-1, keepdim=True)
        left, right = self.pairs.positives(active_RBD1, None, self.network.layers[k].patch)
        R, T, Y = len(active_RBD1), state.units_RGME.shape[-1], self.contexts(k)
        context = torch.arange(left.shape[2], device=left.device) % places
        if self.classes(k) > 1:
            context = context + places * step.batch.y_RB.long()[..., None]
        entry_RP = ((context * T + left[..., 0]) * T + right[..., 0]).flatten(1)
        once_RP = self.first_shown(k, step).repeat_interleave(left.shape[2], 1)
        return once_RP.new_zeros(R, Y * T * T).scatter_add(1, entry_RP, once_RP).view(R, Y, T, T)

    def first_shown(self, k: int, step: Step) -> Tensor:
        """1 for the strings that layer ``k`` has not yet counted in its turn, 0 for others, ``[R, B]``.

        Those are the strings of the first epoch that starts and ends in the turn or, in a turn without one, of its first ``P``.
        """
        R, B = step.batch.y_RB.shape
        dtype, device, size = self.readout.bias_R1N.dtype, step.batch.y_RB.device, self.data.batch_size
        if self.data.train_sizes_R is None:
            return torch.ones(R, B, dtype=dtype, device=device)
        first, P_R1 = self.start(k) * size, self.data.train_sizes_R[:, None].to(device)
        epoch_R1 = -torch.div(-first, P_R1, rounding_mode="floor") * P_R1
        from_R1 = torch.where(epoch_R1 + P_R1 <= first + self.turn * size, epoch_R1, first)
        shown_B = self.now * size + self.data.rank * B + torch.arange(B, device=device)
        return ((from_R1 <= shown_B) & (shown_B < from_R1 + P_R1)).to(dtype)

    def told(self, k: int) -> dict[str, Tensor]:
        """For loggers: the objective a count, with its sign changed; codebooks that are as good as the best; codes in use."""
        table = self.table(k)
        counts, objective_RS = table.get_buffer("counts_RYTT"), table.objective_RS
        best_R = objective_RS.amax(-1)
        agree_R = (objective_RS >= best_R[:, None] - 1e-6 * best_R[:, None].abs()).sum(-1)
        seen_RT1 = exchange.seen(counts)[..., None]
        used_R = (functional.one_hot(table.handed_on_RT, table.symbols) * seen_RT1).amax(1).sum(-1)
        loss_R = -best_R / counts.sum((1, 2, 3)).clamp_min(1)
        return {
            f"loss/layer{k}": loss_R,
            f"codes/layer{k}_agree": agree_R.to(loss_R),
            f"codes/layer{k}_in_use": used_R.to(loss_R),
        }

    def tracked(self, estimates: dict[str, Tensor]) -> dict[str, Tensor]:
        """Counts with those of the step, and the codes and objective of a fraction of the cells that decide again by them."""
        found: dict[str, Tensor] = {}
        for k, name in self.learning():
            table, estimate = self.table(k), estimates[f"{name}.counts_RYTT"]
            counts = table.get_buffer("counts_RYTT") + (self.data.world * estimate).round()
            codes_RST = self.decided(k, counts.double())
            found[f"{name}.counts_RYTT"] = counts
            found[f"{name}.codes_RST"] = codes_RST.to(counts.dtype)
            found[f"{name}.objective_RS"] = exchange.objective(counts.double(), codes_RST, table.symbols, self.evidence(k))
        return found

    def decided(self, k: int, counts_RYTT: Tensor) -> Tensor:
        """The codes of layer ``k`` after a fraction of the cells, first of those that have been seen, has decided again."""
        table = self.table(k)
        codes_RST, K = table.codes_RST, table.symbols
        S, T = codes_RST.shape[1:]
        N, keys_R = max(1, round(self.fraction * T)), self.step_keys(k)
        seen_R1T = exchange.seen(counts_RYTT)[:, None]
        cells_RSN = (uniform(fold(keys_R, "order"), (S, T)) + seen_R1T).topk(N, -1).indices
        gumbel_RSNK = -(-uniform(fold(keys_R, "noise"), (S, N, K)).log()).log()
        left = max(0.0, 1 - (self.now - self.start(k)) / (self.falling * self.turn))
        noise_R = self.temperature * left * exchange.counts_a_cell(counts_RYTT)
        return exchange.redecide(
            counts_RYTT, codes_RST, cells_RSN, noise_R[:, None, None, None] * gumbel_RSNK, K, self.evidence(k)
        )

    def step_keys(self, k: int) -> Tensor:
        """A key of each replica for what layer ``k`` draws in a step, on the device."""
        return seed_keys(self.data.seeds_R, type(self).__name__, k, self.now)

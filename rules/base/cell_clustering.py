"""Rules that count which cells stand side by side and give each cell a code by its counts; a subclass says how.

Shape suffixes: R replica, B batch (string), D position or pair, G groups of positions (always 1 here), M rows
(strings times positions), E units, S codebooks, Y contexts, T cells, N classes; P pairs of a step.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.nn import functional

from datamodules import SiblingPairs
from networks import CellLayer, CodeNetwork
from networks.cells import CodeTable
from rhm import InvalidInput
from rhm.hashing import seed_keys
from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.maths import exchange


class CellClustering(LocalRule):
    """Cells get codes by the cells that they stand beside, layer by layer.

    A layer has a cell ``t`` for each tuple of the codes below, a code ``z(t)`` for each cell, and Hebbian counts ``C[y, a, b]``
    of cells seen side by side under one parent, ``a`` left of ``b``; ``y`` is a context, one and the same where a rule knows
    none, and of three siblings and more also the place of ``a``. In each step of a layer's turn a subclass decides on codes
    anew by what has been counted so far, in each of the layer's codebooks, of which the best is handed on.

    Each of the training strings is counted once in a turn, however often it is shown; an endless stream is counted as long as
    the turn lasts.

    Sees: its own cells, their siblings', and counts over the batch, which ranks sum: not local to a synapse, but to a layer.
    Learned: ``z``; no weight has a gradient. The layers above those that have siblings learn with the readout, from labels.

    Args:
        network: a :class:`networks.CodeNetwork`; its ``bottleneck`` is the number of codes, its ``codebooks`` tries.
        optimizer, clip: of the layers above and the readout, see :class:`rules.base.local_rule.LocalRule`.
        turn: steps that a layer learns.
        one_by_one: layers learn one after another, from the first; false lets all learn in the first turn, a control in which
            upper layers count codes that are not yet found.

    Raises:
        InvalidInput: a value out of its range; another network; pairs that are not siblings, or layers that have none.
    """

    family = "self-supervised"
    knowledge = "none"
    uses_pairs = True
    takes_codes = True
    locality = Locality(partner=True, batch=True, lateral=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=3e-3, fused=True),
        clip: float | None = None,
        turn: int = 150,
        one_by_one: bool = True,
    ):
        super().__init__(network, optimizer, clip)
        if not isinstance(network, CodeNetwork):
            got = type(self.network_config).__name__
            raise InvalidInput("model.network", got, f"CodeNetwork for {type(self).__name__}")
        if turn < 1:
            raise InvalidInput("model.turn", turn, "a number of steps, at least 1")
        self.turn, self.one_by_one = turn, one_by_one
        self.rate = 1.0  # what is tracked is the sum itself

    @abstractmethod
    def decided(self, k: int, counts_RYTT: Tensor) -> Tensor:
        """The codes of layer ``k`` after a step in which counts were ``counts_RYTT``, integers ``[R, S, T]``."""

    @abstractmethod
    def objective(self, k: int, counts_RYTT: Tensor, codes_RST: Tensor) -> Tensor:
        """How good the codes of layer ``k`` are by what was counted, ``[R, S]``; the codebook with the most is handed on."""

    # ---------------------------------------------------------------- what there is

    def build(self) -> None:
        if not isinstance(self.pairs, SiblingPairs):
            raise InvalidInput("data.pairs", type(self.pairs).__name__, f"SiblingPairs for {type(self).__name__}")
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
        return 1

    @property
    def order(self) -> list[int]:
        """The layers in the order of their turns, where they learn one by one."""
        return list(range(1, self.trained_layers + 1))

    def contexts(self, k: int) -> int:
        """``Y`` of layer ``k``: classes times places."""
        return self.classes(k) * self.places(k)

    def table(self, k: int) -> CodeTable:
        """The codes of layer ``k``, from 1."""
        layer = self.network.layers[k - 1]
        assert isinstance(layer, CellLayer)
        return layer.code

    @property
    def turns_end(self) -> int:
        return self.turn * (len(self.order) if self.one_by_one else 1)

    def on_fit_start(self) -> None:
        """Say so if a run is too short for all layers to have their turn, or a turn for all strings."""
        super().on_fit_start()
        if (steps := self.trainer.max_steps) < self.turns_end:
            needed = f"{self.turns_end // self.turn} turns of {self.turn} steps need {self.turns_end}"
            rank_zero_warn(f"trainer.max_steps={steps} leaves layers untrained: {needed}")
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

    @property
    def passed(self) -> int:
        """Steps of the turn before this one."""
        return self.now % self.turn

    def learning(self) -> Iterator[tuple[int, str]]:
        """The layers whose turn it is, from 1, each with the name of its table."""
        turns = [[k] for k in self.order] if self.one_by_one else [self.order]
        for k in turns[self.now // self.turn] if self.now < len(turns) * self.turn else []:
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
        R, Y, T, _ = self.table(k).get_buffer("counts_RYTT").shape
        classes, known = self.classes_of(k, step, active_RBD1[..., 0])
        context = classes * places + torch.arange(left.shape[2], device=left.device) % places
        entry_RP = ((context * T + left[..., 0]) * T + right[..., 0]).flatten(1)
        once_RP = (self.first_shown(step)[..., None] * known).expand(left.shape[:3]).flatten(1)
        return once_RP.new_zeros(R, Y * T * T).scatter_add(1, entry_RP, once_RP).view(R, Y, T, T)

    def classes_of(self, k: int, step: Step, cells_RBD: Tensor) -> tuple[Tensor, Tensor]:
        """The class in which each pair of siblings of layer ``k`` is counted, and whether it is; of one class, 0 and all.

        Args:
            k: layer.
            step: its batch gives the strings.
            cells_RBD: active at each position of the layer.

        Returns:
            Both ``[R, B, pairs]``, or 1 for a dimension in which all are the same.
        """
        none = cells_RBD.new_zeros(1, 1, 1)
        return none, none == 0

    def first_shown(self, step: Step) -> Tensor:
        """1 for the strings that have not yet been counted in this turn, 0 for others, ``[R, B]``.

        Those are the strings of the first epoch that starts and ends in the turn or, in a turn without one, of its first ``P``.
        """
        R, B = step.batch.y_RB.shape
        dtype, device, size = self.readout.bias_R1N.dtype, step.batch.y_RB.device, self.data.batch_size
        if self.data.train_sizes_R is None:
            return torch.ones(R, B, dtype=dtype, device=device)
        first, P_R1 = (self.now - self.passed) * size, self.data.train_sizes_R[:, None].to(device)
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
        """Counts with those of the step, and the codes and objective of the layers whose turn it is by them."""
        found: dict[str, Tensor] = {}
        for k, name in self.learning():
            table, estimate = self.table(k), estimates[f"{name}.counts_RYTT"]
            before = table.get_buffer("counts_RYTT") if self.passed else 0  # a turn counts anew
            counts = before + (self.data.world * estimate).round()
            of_turn = counts[:, : self.contexts(k)].double()
            codes_RST = self.decided(k, of_turn)
            found[f"{name}.counts_RYTT"] = counts
            found[f"{name}.codes_RST"] = codes_RST.to(counts.dtype)
            found[f"{name}.objective_RS"] = self.objective(k, of_turn, codes_RST)
        return found

    def step_keys(self, k: int) -> Tensor:
        """A key of each replica for what layer ``k`` draws in a step, on the device."""
        return seed_keys(self.data.seeds_R, type(self).__name__, k, self.now)

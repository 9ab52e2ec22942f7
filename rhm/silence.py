"""The Sparse Random Hierarchy Model (Tomasini, Wyart, ICML 2024, arXiv 2404.10727): symbols that stand among silent positions.

Shape suffixes: R replica, B batch, D position of a level, I informative symbol of a level, E place in a sub-patch.
"""

from __future__ import annotations

from typing import SupportsIndex

import torch
from torch import Tensor, nn

from rhm.derivation import Derivation
from rhm.errors import InvalidInput, InvalidString
from rhm.hashing import below
from rhm.model import CHUNK, RandomHierarchyModel
from rhm.task import SparseTask

Places = tuple[Tensor, ...]
"""For each level below the class where its symbols stand, each in its sub-patch: numbers from 0 to ``S0``, ``[R, B, s**(L-l)]``
at level ``l``."""


class SparseHierarchyModel(nn.Module):
    """Strings of random grammars in which informative symbols stand among silent ones.

    Each of the ``s`` children of a symbol stands somewhere in a sub-patch of its own of ``S0 + 1`` positions, at a place that
    is uniform and independent at every node; the other ``S0`` positions are silent, as is everything below them. So a symbol
    has a patch of ``s (S0 + 1)`` positions, and a string ``(s (S0 + 1))**L`` tokens. A silent position shows one more symbol,
    ``v``. This is the paper's sparsity A; in its sparsity B, which is not here, children stand anywhere in the patch, in order.

    The grammar, its strings and their numbers are those of :class:`rhm.RandomHierarchyModel`. Where the symbols of string ``i``
    stand is a pure function of (data seed, ``i``), so that each of the ``P_max`` strings is shown with one set of places.

    Args:
        grammar: of the informative symbols.
        silent: ``S0``; with 0 the strings are those of the grammar.

    Attributes:
        task: sizes of the strings.

    Raises:
        InvalidInput: ``silent`` is no integer of at least 0, or makes strings too long, see :class:`rhm.SparseTask`.
    """

    def __init__(self, grammar: RandomHierarchyModel, silent: int):
        super().__init__()
        self.grammar, self.task = grammar, SparseTask(grammar.task, silent)
        most = max(self.task.v, grammar.task.n, grammar.task.m) - 1
        self.dtype = next(t for t in (torch.uint8, torch.int16, torch.int32, torch.int64) if most <= torch.iinfo(t).max)

    @property
    def replicas(self) -> int:
        """Number of grammars."""
        return self.grammar.replicas

    @property
    def index_range(self) -> int:
        """How many numbers strings have."""
        return self.grammar.index_range

    # ---------------------------------------------------------------- strings

    def sample(self, i: Tensor) -> Derivation:
        """The strings of given numbers, as :meth:`rhm.RandomHierarchyModel.sample` takes them, with all levels' symbols."""
        i_RB = i.to(self.grammar.seeds_R.device).expand(self.replicas, -1)
        step = max(1, CHUNK // (self.task.length * self.replicas))
        parts = [self._sample(chunk) for chunk in i_RB.split(step, dim=1)]
        return Derivation(tuple(torch.cat(level, 1) for level in zip(*(part.symbols for part in parts), strict=True)))

    def _sample(self, i_RB: Tensor) -> Derivation:
        drawn = self.grammar.sample(i_RB)
        return self.silenced(drawn, self._places(drawn, "places", self.task.L, i_RB[..., None]))

    def exchange(self, derivation: Derivation, level: int, key: SupportsIndex | Tensor = 0) -> Derivation:
        """Synonyms exchanged as by :meth:`rhm.RandomHierarchyModel.exchange`; all symbols stay where they are."""
        informative, places = self.unsilenced(derivation)
        return self.silenced(self.grammar.exchange(informative, level, key), places)

    def resample(self, derivation: Derivation, below_level: int, key: SupportsIndex | Tensor = 0) -> Derivation:
        """Other strings with the same symbols, at the same positions, from a level up: all rules of that level and below are
        drawn again, as by :meth:`rhm.RandomHierarchyModel.resample`, and so are the places of what stands below."""
        informative, places = self.unsilenced(derivation)
        fresh = self.grammar.resample(informative, below_level, key)
        return self.silenced(fresh, self._places(fresh, "places again", below_level, key) + places[below_level:])

    def move(self, derivation: Derivation, level: int, key: SupportsIndex | Tensor = 0) -> Derivation:
        """The same symbols at other positions: the places of the children of each symbol of that level are drawn again, which
        takes along all that stands below them. (The paper's discretised diffeomorphism.)

        Args:
            derivation: the strings.
            level: in ``1..L``.
            key: makes the draw; a tensor ``[R, B, 1]`` gives each string its own, whatever the rest of the batch.

        Raises:
            InvalidInput: no such level.
        """
        self.grammar.check_level("level", level)
        informative, places = self.unsilenced(derivation)
        moved = self._places(informative, "moved", level, key)
        return self.silenced(informative, (*places[: level - 1], moved[-1], *places[level:]))

    def _places(self, informative: Derivation, name: str, levels: int, key: SupportsIndex | Tensor) -> Places:
        """Places of the symbols of so many levels, from the tokens up, drawn for a purpose."""
        bits = [self.grammar.draws(informative.symbols[level], name, level, key) for level in range(levels)]
        return tuple(below(of_level, self.task.silent + 1) for of_level in bits)

    # ---------------------------------------------------------------- among silent positions and back

    def silenced(self, derivation: Derivation, places: Places) -> Derivation:
        """A derivation of the grammar with its symbols at their places.

        Args:
            derivation: informative symbols, ``[R, B, s**(L-l)]`` at level ``l``.
            places: of all levels below the class.

        Returns:
            symbols ``[R, B, (s (S0 + 1))**(L-l)]``.
        """
        task, symbols = self.task, [derivation.symbols[-1].to(self.dtype)]
        R, B = derivation.y_RB.shape
        position_RBI = torch.zeros_like(derivation.symbols[-1], dtype=torch.int64)
        for level in range(task.L - 1, -1, -1):
            position_RBI = self._sub_patches(position_RBI) * (task.silent + 1) + places[level]
            silence = torch.full((R, B, task.width(level)), task.silence, dtype=self.dtype, device=position_RBI.device)
            symbols.append(silence.scatter_(2, position_RBI, derivation.symbols[level].to(self.dtype)))
        return Derivation(tuple(symbols[::-1]))

    def unsilenced(self, derivation: Derivation) -> tuple[Derivation, Places]:
        """The inverse of :meth:`silenced`: a derivation of the grammar, and the places of its symbols."""
        task = self.task
        symbols, places = [derivation.symbols[-1]], list[Tensor]()
        position_RBI = torch.zeros_like(derivation.symbols[-1], dtype=torch.int64)
        for level in range(task.L - 1, -1, -1):
            sub_patch_RBI = self._sub_patches(position_RBI)
            all_RBDE = derivation.symbols[level].unflatten(2, (-1, task.silent + 1))
            own_RBIE = all_RBDE.gather(2, sub_patch_RBI[..., None].expand(-1, -1, -1, task.silent + 1))
            place_RBI = (own_RBIE != task.silence).to(torch.uint8).argmax(3)
            symbols.append(own_RBIE.gather(3, place_RBI[..., None])[..., 0])
            places.append(place_RBI)
            position_RBI = sub_patch_RBI * (task.silent + 1) + place_RBI
        return Derivation(tuple(symbols[::-1])).map(lambda t: t.to(self.grammar.rules(1).dtype)), tuple(places[::-1])

    def _sub_patches(self, parents: Tensor) -> Tensor:
        """The sub-patches of the children of symbols at some positions, ``[R, B, parents * s]``, counted from the first of the
        level below."""
        s = self.task.informative.s
        return (parents[..., None] * s + torch.arange(s, device=parents.device)).flatten(2)

    def parse(self, x_RBD: Tensor) -> Derivation:
        """The derivation of given strings, with its silent positions.

        Args:
            x_RBD: integer tokens ``[R, B, (s (S0 + 1))**L]``.

        Raises:
            InvalidString: a token outside of ``[0, v]``; a sub-patch with no informative symbol, or several, in a patch that is
                not silent; informative tokens that the grammar cannot have produced.
        """
        task = self.task
        if x_RBD.dim() != 3 or x_RBD.shape[0] != self.replicas or x_RBD.shape[2] != task.length:
            allowed = f"[R={self.replicas}, B, (s (S0 + 1))**L={task.length}]"
            raise InvalidInput("x_RBD", f"shape {list(x_RBD.shape)}", allowed)
        x_RBD = x_RBD.long()
        if (outside := (x_RBD < 0) | (x_RBD > task.silence)).any():
            r, b, d = outside.nonzero()[0].tolist()
            allowed = f"tokens in [0, {task.v}), the last for silence"
            raise InvalidString(f"string {b} of replica {r}", f"token {x_RBD[r, b, d]} at position {d}", allowed)
        here, outline = x_RBD != task.silence, [x_RBD]
        for level in range(task.L):
            counts = here.unflatten(2, (-1, task.informative.s, task.silent + 1)).sum(4)
            here = counts.any(3) if level < task.L - 1 else torch.ones_like(counts[..., 0], dtype=torch.bool)
            wrong = here[..., None] & (counts != 1)
            if wrong.any():
                raise self._misplaced(level, counts, wrong)
            outline.append(torch.where(here, 0, task.silence))
        found, places = self.unsilenced(Derivation(tuple(outline)))
        try:
            return self.silenced(self.grammar.parse(found.x_RBD), places)
        except InvalidString as error:
            raise InvalidString(error.key, f"{error.got}, of the informative ones", error.allowed) from None

    def _misplaced(self, level: int, counts: Tensor, wrong: Tensor) -> InvalidString:
        """What to say of the first sub-patch of a level that has none or several informative symbols."""
        r, b, patch, child = wrong.nonzero()[0].tolist()
        tokens = (self.task.silent + 1) * self.task.s**level
        first = (patch * self.task.informative.s + child) * tokens
        number = int(counts[r, b, patch, child])
        got = f"{number or 'no'} informative symbols of level {level} at tokens {first} to {first + tokens - 1}"
        return InvalidString(f"string {b} of replica {r}", got, "one in each sub-patch, or a patch that is silent as a whole")

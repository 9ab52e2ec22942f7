"""How positive pairs are made, and which knowledge that takes.

Shape suffixes: R replica, B batch, D position, C channel, N classes, P training string.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from rhm import Derivation, InvalidInput, RandomHierarchyModel, SparseHierarchyModel, TaskSizes
from rhm.hashing import below, uniform
from rhm.memory import check_memory

MOST_STRINGS = 2**26  # of a list of each class: 1 GiB of numbers and places for each replica
WITHOUT_GRAMMAR = (
    "SiblingPairs",
    "ClassPairs",
    "SelfPairs",
    "HalfPairs",
    "RandomHalfPairs",
    "PositionHalfPairs",
    "MaskedPairs",
)


class Strings(Protocol):
    """What pairs are made from: a datamodule's training strings and, where there is one, its grammar.

    Attributes:
        task: its sizes.
        grammar: one of each replica; None for strings that no grammar has made.
        seeds_R: of each replica.
        train_sizes_R: training strings of each replica; None is an endless stream, which a grammar alone has.
        batch_size: strings of a step and replica.
    """

    task: TaskSizes
    grammar: RandomHierarchyModel | SparseHierarchyModel | None
    seeds_R: Tensor
    train_sizes_R: Tensor | None
    batch_size: int

    def strings(self, index: Tensor) -> Derivation:
        """The strings of given numbers, ``[R, B]``, or ``[B]`` for the same numbers in every replica."""
        ...

    def shown(self, x_RBD: Tensor, key: Tensor) -> Tensor:
        """Tokens as a network sees them, see :meth:`datamodules.ReplicaDataModule.shown`."""
        ...


def grammar_of(data: Strings, pairs: str) -> RandomHierarchyModel | SparseHierarchyModel:
    """The grammar that pairs ask.

    Raises:
        InvalidInput: there is none.
    """
    if data.grammar is None:
        allowed = f"{', '.join(WITHOUT_GRAMMAR)}: no grammar has made these strings"
        raise InvalidInput("data.pairs", pairs, allowed)
    return data.grammar


class Pairs(ABC):
    """Makes the positive pairs of a self-supervised rule.

    Attributes:
        knowledge: what telling the pairs takes beyond the strings: ``none``, ``labels`` or ``grammar``.
        two_strings: whether the halves of a pair come from two strings.
        two_copies: whether they come from two copies of a string, see :meth:`Pairs.half`.
        random_halves: whether channels are dealt to the sides in each step, see :meth:`Pairs.drawn`; a side has zeros in place
            of the other's.
    """

    knowledge: ClassVar[str]
    two_strings: ClassVar[bool] = False
    two_copies: ClassVar[bool] = False
    random_halves: ClassVar[bool] = False

    def prepare(self, data: Strings) -> None:  # noqa: B027  (most schemes have nothing to prepare)
        """Check the scheme against the task and look up what :meth:`Pairs.view` needs.

        Raises:
            InvalidInput: the task cannot give these pairs.
        """

    def view(self, data: Strings, derivation: Derivation, index_RB: Tensor, bits_RB: Tensor) -> Tensor | None:
        """Tokens of each string's partner, ``[R, B, D]``; None where both halves of a pair come from one string.

        Args:
            data: gives the grammar and the training strings.
            derivation: the batch.
            index_RB: its string numbers.
            bits_RB: random bits, one for each string of the run.
        """
        return None

    def half(self, data: Strings, bits_RB: Tensor) -> Tensor | None:
        """Half of each string's positions, boolean ``[R, B, D]``: the first of two copies shows these and hides the others, the
        second the other way round; None where pairs need no copies.

        Args:
            data: the training strings.
            bits_RB: random bits, one for each string of the run, of whole steps.
        """
        return None

    def drawn(self, key_R: Tensor) -> Pairs:
        """The pairs of one step and layer, by their random bits; themselves where ``random_halves`` is false."""
        return self

    def layers(self, patches: list[int]) -> int:
        """How many layers, from the first, have pairs, in a network whose layers merge ``patches`` positions."""
        return len(patches)

    def channels(self, channels: int, positions: int) -> int:
        """Channels of a side of a pair, for a layer with so many channels and positions.

        Raises:
            InvalidInput: the layer cannot give these pairs.
        """
        return channels

    def symbols(self, derivation: Derivation, positions: int, patch: int) -> Tensor | None:
        """The hidden symbol that the two sides of each pair have in common, ``[R, B, pairs of a string]``, to count false
        negatives; None where no level has a symbol for each pair.

        Args:
            derivation: the batch.
            positions: of the layer.
            patch: positions that the next layer merges.
        """
        return next((symbols for symbols in derivation.symbols if symbols.shape[2] == positions), None)

    @abstractmethod
    def positives(self, h_RBDC: Tensor, view_RBDC: Tensor | None, patch: int) -> tuple[Tensor, Tensor]:
        """The two sides of all pairs, each ``[R, B, pairs of a string, channels of a side]``.

        Args:
            h_RBDC: a layer's output; its output for the first copies where there are two.
            view_RBDC: its output for the partners, or for the second copies.
            patch: positions that the next layer merges.
        """

    @abstractmethod
    def hand_back(self, first_RBDC: Tensor, second_RBDC: Tensor, patch: int) -> tuple[Tensor, Tensor | None]:
        """The adjoint of :meth:`positives`: gradients of the two sides as gradients of the output and of the partners' output,
        in the order of their numbers; the caller gives them the output's shape."""


class SiblingPairs(Pairs):
    """Neighbouring positions that the next layer merges: tuples under one parent. No label, no grammar, no second string."""

    knowledge = "none"

    def prepare(self, data: Strings) -> None:
        if data.task.L < 2 or data.task.s < 2:
            raise InvalidInput(
                "data.pairs",
                f"SiblingPairs at L={data.task.L}, s={data.task.s}",
                "L >= 2 and s >= 2: siblings share a parent below the class",
            )

    def layers(self, patches: list[int]) -> int:
        below_top = patches[1:]
        return next((k for k, patch in enumerate(below_top) if patch < 2), len(below_top))

    def symbols(self, derivation: Derivation, positions: int, patch: int) -> Tensor | None:
        parents = super().symbols(derivation, positions // patch, patch)
        return parents if parents is None or patch == 2 else parents.repeat_interleave(patch, 2)

    def positives(self, h_RBDC: Tensor, view_RBDC: Tensor | None, patch: int) -> tuple[Tensor, Tensor]:
        tuples = h_RBDC.unflatten(2, (-1, patch))
        if patch == 2:
            return tuples[:, :, :, 0], tuples[:, :, :, 1]
        return h_RBDC, tuples.roll(-1, dims=3).flatten(2, 3)  # each with the next one, the last with the first

    def hand_back(self, first_RBDC: Tensor, second_RBDC: Tensor, patch: int) -> tuple[Tensor, Tensor | None]:
        if patch == 2:
            return torch.stack([first_RBDC, second_RBDC], 3).flatten(2, 3), None
        return first_RBDC + second_RBDC.unflatten(2, (-1, patch)).roll(1, dims=3).flatten(2, 3), None


class ViewPairs(Pairs):
    """Two strings that share hidden symbols. What a layer knows of a shared symbol stands in all positions below it: a side
    of a pair is their representation as one vector. In layers at or above the symbols each position is a side.

    Attributes:
        shared: how many symbols the two strings share at the lowest level where they do.
    """

    two_strings = True
    shared: int

    @abstractmethod
    def view(self, data: Strings, derivation: Derivation, index_RB: Tensor, bits_RB: Tensor) -> Tensor: ...

    def channels(self, channels: int, positions: int) -> int:
        if positions > self.shared and positions % self.shared:
            got = f"{type(self).__name__} with a layer of {positions} positions"
            raise InvalidInput("data.pairs", got, f"positions that {self.shared} shared symbols divide, or fewer")
        return channels * max(1, positions // self.shared)

    def symbols(self, derivation: Derivation, positions: int, patch: int) -> Tensor | None:
        return super().symbols(derivation, min(self.shared, positions), patch)

    def positives(self, h_RBDC: Tensor, view_RBDC: Tensor | None, patch: int) -> tuple[Tensor, Tensor]:
        assert view_RBDC is not None
        sides = min(self.shared, h_RBDC.shape[2])
        first, second = (h.unflatten(2, (sides, -1)).flatten(3) for h in (h_RBDC, view_RBDC))
        return first, second

    def hand_back(self, first_RBDC: Tensor, second_RBDC: Tensor, patch: int) -> tuple[Tensor, Tensor | None]:
        return first_RBDC, second_RBDC  # the outputs' numbers in the same order: the layer's shape is the caller's


class ClassPairs(ViewPairs):
    """Another training string of the same class; a string that is alone in its class is its own partner.

    With an endless stream the partner is a fresh string of the class.
    """

    knowledge = "labels"
    shared = 1

    def prepare(self, data: Strings) -> None:
        if data.train_sizes_R is None:
            return
        if max(data.train_sizes_R.tolist()) > MOST_STRINGS:
            allowed = f"at most {MOST_STRINGS} with ClassPairs, which keeps a list of each class; null for an endless stream"
            raise InvalidInput("data.train_size", max(data.train_sizes_R.tolist()), allowed)
        longest, replicas = max(data.train_sizes_R.tolist()), len(data.train_sizes_R)
        check_memory("data.train_size", longest, f"ClassPairs of {replicas} replicas", 6 * 8 * longest * replicas)
        classes, device = data.task.n, data.seeds_R.device
        index_P = torch.arange(int(data.train_sizes_R.max()), device=device)
        y_RP = data.strings(index_P).y_RB.long()
        y_RP = torch.where(index_P < data.train_sizes_R[:, None], y_RP, classes)  # shorter replicas are filled up
        self.by_class_RP = y_RP.argsort(stable=True)
        self.place_RP = self.by_class_RP.argsort()
        self.count_RN = torch.zeros(len(y_RP), classes + 1, dtype=torch.int64, device=device)
        self.count_RN.scatter_add_(1, y_RP, torch.ones_like(y_RP))
        self.start_RN = self.count_RN.cumsum(1) - self.count_RN

    def view(self, data: Strings, derivation: Derivation, index_RB: Tensor, bits_RB: Tensor) -> Tensor:
        if data.train_sizes_R is None:
            fresh = grammar_of(data, "ClassPairs").resample(derivation, data.task.L, key=bits_RB[..., None])
            return data.shown(fresh.x_RBD, bits_RB)
        y_RB = derivation.y_RB.long()
        start, count = self.start_RN.gather(1, y_RB), self.count_RN.gather(1, y_RB)
        others = (count - 1).clamp_min(1)
        step = 1 + below(bits_RB, others)
        place = start + (self.place_RP.gather(1, index_RB) - start + step) % count
        partner_RB = self.by_class_RP.gather(1, place)
        return data.shown(data.strings(partner_RB).x_RBD, partner_RB)


class SynonymPairs(ViewPairs):
    """A fresh string with the same symbols from ``level`` up, all rules below drawn again: the grammar itself makes views.

    Args:
        level: from 1 to ``L``.
    """

    knowledge = "grammar"

    def __init__(self, level: int):
        self.level = level

    def prepare(self, data: Strings) -> None:
        grammar_of(data, "SynonymPairs")
        if not 1 <= self.level <= data.task.L:
            raise InvalidInput("data.pairs.level", self.level, f"a level from 1 to L={data.task.L}")
        self.shared = data.task.width(self.level)

    def view(self, data: Strings, derivation: Derivation, index_RB: Tensor, bits_RB: Tensor) -> Tensor:
        fresh = grammar_of(data, "SynonymPairs").resample(derivation, self.level, key=bits_RB[..., None])
        return data.shown(fresh.x_RBD, bits_RB)


class HalfPairs(Pairs):
    """The two halves of one representation, channel by channel: a weak control that knows nothing of the hierarchy."""

    knowledge = "none"

    def channels(self, channels: int, positions: int) -> int:
        if channels % 2:
            raise InvalidInput("data.pairs", f"HalfPairs with {channels} channels", "an even number of channels")
        return channels // 2

    def positives(self, h_RBDC: Tensor, view_RBDC: Tensor | None, patch: int) -> tuple[Tensor, Tensor]:
        first, second = h_RBDC.chunk(2, -1)
        return first, second

    def hand_back(self, first_RBDC: Tensor, second_RBDC: Tensor, patch: int) -> tuple[Tensor, Tensor | None]:
        return torch.cat([first_RBDC, second_RBDC], -1), None


class RandomHalfPairs(Pairs):
    """A random half of the channels and the other half, drawn anew in each step: :class:`HalfPairs` without fixed halves.

    A side has all channels, with zeros in place of those that the other side has, so that a loss's matrix meets each channel at
    its own place; of an odd number the second side has one more. A loss that compares the sides channel by channel would see
    nothing and needs a head (``model.block.head``). A draw is a function of replica, step and layer, the same for all
    strings and positions: what is hidden does not tell a pair from a negative. The source group's public code of 2024
    draws for each string, over the channels of all positions at once, and has the whole layer predict the half.
    """

    knowledge = "none"
    random_halves = True
    key_R: Tensor

    def drawn(self, key_R: Tensor) -> Pairs:
        pairs = RandomHalfPairs()
        pairs.key_R = key_R
        return pairs

    def channels(self, channels: int, positions: int) -> int:
        if channels < 2:
            raise InvalidInput("data.pairs", f"RandomHalfPairs with {channels} channels", "at least 2 channels")
        return channels

    def positives(self, h_RBDC: Tensor, view_RBDC: Tensor | None, patch: int) -> tuple[Tensor, Tensor]:
        half_R11C = self._half(h_RBDC)
        return h_RBDC * half_R11C, h_RBDC * ~half_R11C

    def hand_back(self, first_RBDC: Tensor, second_RBDC: Tensor, patch: int) -> tuple[Tensor, Tensor | None]:
        return torch.where(self._half(first_RBDC), first_RBDC, second_RBDC), None

    def _half(self, h_RBDC: Tensor) -> Tensor:
        return random_half(self.key_R, h_RBDC.shape[3])[:, None, None]


class SelfPairs(Pairs):
    """Each position's representation with itself: only negatives tell something (Chen et al. 2025, arXiv 2409.11593)."""

    knowledge = "none"

    def positives(self, h_RBDC: Tensor, view_RBDC: Tensor | None, patch: int) -> tuple[Tensor, Tensor]:
        return h_RBDC, h_RBDC

    def hand_back(self, first_RBDC: Tensor, second_RBDC: Tensor, patch: int) -> tuple[Tensor, Tensor | None]:
        return first_RBDC + second_RBDC, None


class PositionHalfPairs(Pairs):
    """The two halves of one layer by position, each as one vector: one half of the string predicts the other.

    One of the schemes in the source group's public code of 2024; :class:`HalfPairs`, :class:`RandomHalfPairs` and
    :class:`MaskedPairs` are others. All that the halves share is the class, and no symbol below it. Layers with one position
    have none.
    """

    knowledge = "none"

    def prepare(self, data: Strings) -> None:
        if data.task.length % 2:
            raise InvalidInput("data.pairs", f"PositionHalfPairs at s={data.task.s}", "an even s: a string of two halves")

    def layers(self, patches: list[int]) -> int:
        return sum(math.prod(patches[k:]) % 2 == 0 for k in range(1, len(patches)))

    def channels(self, channels: int, positions: int) -> int:
        return channels * (positions // 2)

    def symbols(self, derivation: Derivation, positions: int, patch: int) -> Tensor | None:
        return super().symbols(derivation, 1, patch)

    def positives(self, h_RBDC: Tensor, view_RBDC: Tensor | None, patch: int) -> tuple[Tensor, Tensor]:
        first, second = (half.flatten(2)[:, :, None] for half in h_RBDC.chunk(2, 2))
        return first, second

    def hand_back(self, first_RBDC: Tensor, second_RBDC: Tensor, patch: int) -> tuple[Tensor, Tensor | None]:
        return torch.cat([first_RBDC, second_RBDC], -1), None


class MaskedPairs(Pairs):
    """Two copies of a string: the first shows a random half of its positions, the second the other half. A layer's activity for
    the one, all of it as one vector, predicts that for the other.

    One of the schemes in the source group's public code of 2024, which draws for each string. Here a draw is a function of
    replica and step, the same for all strings: what is hidden does not tell a pair from a negative. Of an odd number of
    positions the second copy shows one more. A hidden token is a zero at the input, the mean of the whitened code. Beside the
    two copies the string itself goes through the network, for the readout, which is shown whole strings.
    """

    knowledge = "none"
    two_copies = True

    def prepare(self, data: Strings) -> None:
        if data.task.length < 2:
            raise InvalidInput("data.pairs", f"MaskedPairs at s={data.task.s}", "s >= 2: a string of at least 2 tokens")

    def half(self, data: Strings, bits_RB: Tensor) -> Tensor:
        of_each_step = random_half(bits_RB[:, :: data.batch_size], data.task.length)
        return of_each_step.repeat_interleave(data.batch_size, 1)

    def channels(self, channels: int, positions: int) -> int:
        return channels * positions

    def symbols(self, derivation: Derivation, positions: int, patch: int) -> Tensor | None:
        return super().symbols(derivation, 1, patch)

    def positives(self, h_RBDC: Tensor, view_RBDC: Tensor | None, patch: int) -> tuple[Tensor, Tensor]:
        assert view_RBDC is not None
        return h_RBDC.flatten(2)[:, :, None], view_RBDC.flatten(2)[:, :, None]

    def hand_back(self, first_RBDC: Tensor, second_RBDC: Tensor, patch: int) -> tuple[Tensor, Tensor | None]:
        return first_RBDC, second_RBDC


def random_half(key: Tensor, size: int) -> Tensor:
    """Which of ``size`` things a random half has, boolean ``[*key, size]``; of an odd number it has the smaller part."""
    drawn = uniform(key.flatten(), (size,)).unflatten(0, key.shape)
    return drawn < drawn.sort(-1).values[..., size // 2, None]

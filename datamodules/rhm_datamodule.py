"""Strings of the Random Hierarchy Model for training, probing and testing.

Shape suffixes: R replica, B batch, D position.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from datamodules.batch import Batch
from datamodules.numbers import Seeds, Sizes, integer, said
from datamodules.pairs import Pairs
from rhm import InvalidInput, RandomHierarchyModel, Task
from rhm.hashing import fold, permutation, seed_keys

PROBE, TEST = 0, 1  # numbers of the loaders of validation and test: strings to fit probes on, test strings
ONE = "an integer of at least 1"
MOST_MEASURED = 2**26  # strings that accuracies are measured with: their error is below 1e-4, and they take minutes
BLOCK_TOKENS = 2**19  # several steps' strings are made at once, up to this many tokens


def replicas_of(
    seeds: list[int], train_size: int | list[int] | None, label_size: int | list[int] | None
) -> list[tuple[int, int | None, int | None]]:
    """Seed, training-set size and label size of each replica, in their order: all seeds crossed with all sizes."""
    return list(itertools.product(seeds, one_or_more(train_size), one_or_more(label_size)))


def one_or_more(size: Any) -> list[Any]:
    """The sizes of a list, or the one that there is."""
    return size if isinstance(size, list) else [size]


def _whole(value: Any, least: int = 1, end: int = 2**63) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < end


def _different(values: list[Any], least: int, end: int) -> bool:
    """Whether these are integers in a range, one or more and no two alike."""
    return 0 < len(values) == len({*map(str, values)}) and all(_whole(value, least, end) for value in values)


class Steps:
    """Step numbers 0, 1, 2 and on without end."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()


class SizedSteps(Steps):
    """Step numbers below ``end``."""

    def __init__(self, end: int):
        self.end = end

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.end))

    def __len__(self) -> int:
        return self.end


class RHMDataModule(LightningDataModule):
    """Replicas of a task: every seed crossed with every training-set size and, if there are several, label size.

    A seed gives the grammar, the order of its strings and the order in which they are shown. Training strings are the first
    ``train_size`` numbers, test strings the last ``test_size``, the strings that probes are fitted on stand before those.
    The loaders yield step numbers; a batch is a pure function of the step, the rank and this module's arguments, and is made
    on the device that trains.

    Args:
        v: vocabulary size, symbols of a level.
        n: number of classes.
        m: synonyms, rules of each symbol.
        s: tuple size, symbols that one turns into.
        L: depth, levels between the class and the tokens. See :class:`rhm.Task`.
        train_size: training strings P; a list is crossed with the seeds; null is an endless stream of fresh strings.
        seeds: one replica, or one for each training-set size, a seed.
        pairs: how positive pairs are made; only rules that learn from pairs need it.
        batch_size: strings of a step and replica, over all ranks.
        test_size: strings, never trained on, that accuracies are measured with.
        probe_size: fresh strings that linear probes are fitted on. In a task with too few strings to keep them apart they
            may be training strings, see ``probes_trained_on``.
        eval_batch_size: strings of a step and replica in validation and test.
        labels: whether training strings have classes. Without, only rules that need none can learn, nor does the readout.
        label_size: how many of the training strings, from the first, have classes; a list is crossed with seeds and sizes; null
            is all. The readout and the layers that are its own learn from these alone, hidden layers see all strings; rules
            whose hidden layers learn from labels are refused.

    Attributes:
        rank, world: which of how many ranks that share a batch this is; known once a trainer runs.

    Raises:
        InvalidInput: an impossible task, a size under 1, more strings than there are, pairs that the task does not have.
    """

    def __init__(
        self,
        v: int = 8,
        n: int = 8,
        m: int = 4,
        s: int = 2,
        L: int = 4,
        train_size: Sizes | None = 2048,
        seeds: Seeds = [0],  # noqa: B006  (never changed; a tuple would not be a list in YAML)
        pairs: Pairs | None = None,
        batch_size: int = 128,
        test_size: int = 4096,
        probe_size: int = 2048,
        eval_batch_size: int = 512,
        labels: bool = True,
        label_size: Sizes | None = None,
    ):
        super().__init__()
        try:
            self.task = Task(*map(integer, (v, n, m, s, L)))
        except InvalidInput as error:
            raise InvalidInput(f"data.{error.key}", error.got, error.allowed) from None
        counts = {
            "batch_size": batch_size,
            "test_size": test_size,
            "probe_size": probe_size,
            "eval_batch_size": eval_batch_size,
        }
        given = said(counts | {"seeds": seeds, "train_size": train_size, "label_size": label_size})
        for key in counts:
            shown = key in ("test_size", "probe_size")
            if not _whole(given[key], end=MOST_MEASURED + 1 if shown else 2**63):
                allowed = f"an integer from 1 to {MOST_MEASURED}, all of which every validation shows" if shown else ONE
                raise InvalidInput(f"data.{key}", repr(given[key]), allowed)
        sizes = one_or_more(given["train_size"])
        if train_size is not None and not _different(sizes, 1, 2**52):
            allowed = "an integer of at least 1, a list of different ones, or null for an endless stream"
            raise InvalidInput("data.train_size", repr(given["train_size"]), allowed)
        most = min(size or 0 for size in sizes) if labels else 0
        if label_size is not None and not _different(one_or_more(given["label_size"]), 1, most + 1):
            allowed = f"null, or an integer (or different ones) from 1 to data.train_size, here {most}, with data.labels"
            raise InvalidInput("data.label_size", repr(given["label_size"]), allowed)
        if not isinstance(given["seeds"], list) or not _different(given["seeds"], 0, 2**63):
            raise InvalidInput("data.seeds", repr(given["seeds"]), "different integers in [0, 2**63), one or more")
        batch_size, test_size, probe_size, eval_batch_size = (given[key] for key in counts)
        self._have(replicas_of(given["seeds"], given["train_size"], given["label_size"]))
        largest, strings = max(size or 1 for size in sizes), self.grammar.index_range
        if largest + test_size > strings:
            raise InvalidInput(
                "data.train_size", f"{largest} with test_size {test_size}", f"train_size + test_size at most P_max = {strings}"
            )
        self.pairs, self.labels = pairs, labels
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.test_range = (strings - test_size, strings)
        self.probe_range = (max(0, strings - test_size - probe_size), strings - test_size)
        if pairs is not None:
            pairs.prepare(self)
        self.rank, self.world = 0, 1

    def _have(self, replicas: list[tuple[int, int | None, int | None]]) -> None:
        """Replicas of these seeds, training-set sizes and label sizes."""
        task = self.task
        self.replica_seeds = [seed for seed, _, _ in replicas]
        self.replica_sizes = [size for _, size, _ in replicas]
        self.replica_label_sizes = [labelled for _, _, labelled in replicas]
        try:
            self.grammar = RandomHierarchyModel(task.v, task.n, task.m, task.s, task.L, seeds=self.replica_seeds)
        except InvalidInput as error:
            raise InvalidInput(f"data.{error.key}", error.got, error.allowed) from None
        self.train_sizes_R = None if None in self.replica_sizes else torch.tensor(self.replica_sizes)
        self.label_sizes_R = None if None in self.replica_label_sizes else torch.tensor(self.replica_label_sizes)
        self._block: tuple[int, Batch] | None = None

    def keep_share(self, rank: int, world: int) -> None:
        """Keep one of ``world`` equal shares of the replicas, or nearly equal ones, in order; before a rule is prepared.

        Raises:
            InvalidInput: fewer replicas than shares.
        """
        if world > self.replicas:
            allowed = f"at most the number of replicas, {self.replicas}, if they are spread"
            raise InvalidInput("number of ranks", world, allowed)
        kept = range(self.replicas * rank // world, self.replicas * (rank + 1) // world)
        replicas = list(zip(self.replica_seeds, self.replica_sizes, self.replica_label_sizes, strict=True))
        self._have([replicas[r] for r in kept])
        if self.pairs is not None:
            self.pairs.prepare(self)

    @property
    def replicas(self) -> int:
        """Number of replicas: seeds times training-set sizes times label sizes."""
        return len(self.replica_seeds)

    # ---------------------------------------------------------------- Lightning's hooks

    def setup(self, stage: str) -> None:
        """Move the grammar to the device that trains; without a trainer all stays where it is."""
        if self.trainer is None:
            return
        self.rank, self.world = self.trainer.global_rank, self.trainer.world_size
        if self.batch_size % self.world:
            raise InvalidInput("data.batch_size", self.batch_size, f"a multiple of the number of ranks, {self.world}")
        self.move(self.trainer.strategy.root_device)

    def move(self, device: torch.device) -> None:
        """Make strings on another device from now on."""
        if self.grammar.seeds_R.device == device:
            return
        self._block = None
        self.grammar.to(device)
        if self.train_sizes_R is not None:
            self.train_sizes_R = self.train_sizes_R.to(device)
        if self.label_sizes_R is not None:
            self.label_sizes_R = self.label_sizes_R.to(device)
        if self.pairs is not None:
            self.pairs.prepare(self)

    def train_dataloader(self) -> Steps:
        """Steps without end: a run's length is ``trainer.max_steps``."""
        return Steps()

    def val_dataloader(self) -> list[Steps]:
        """Strings to fit probes on, then test strings."""
        return [self._eval_steps(*self.probe_range), self._eval_steps(*self.test_range)]

    @property
    def stream_length(self) -> int:
        """Strings that an endless stream has before it starts again: all that are not kept for probes and tests."""
        return self.probe_range[0] or self.test_range[0]

    @property
    def probes_trained_on(self) -> int:
        """How many of the strings that probes are fitted on some replica trains on too."""
        start, end = self.probe_range
        longest = max(size or self.stream_length for size in self.replica_sizes)
        return max(0, min(longest, end) - start)

    def warnings(self, steps: int, compares_strings: bool) -> list[str]:
        """What of a run is not as its sizes say, in a line each.

        Args:
            steps: its length.
            compares_strings: whether a string learns from the others of its batch.
        """
        lines, (start, end) = [], self.probe_range
        sizes = sorted({size or self.stream_length for size in self.replica_sizes})
        if self.probes_trained_on:
            of = f"{self.probes_trained_on:,} of the {end - start:,} strings that probes are fitted on"
            lines.append(f"{of} are training strings too: there are no more")
        if compares_strings and (small := [f"{size:,}" for size in sizes if size < self.batch_size]):
            of = f"data.batch_size={self.batch_size:,} is more than the {' or '.join(small)} training strings"
            lines.append(f"{of}: a batch holds strings twice, and each is a negative of its copies")
        unseen = [size for size in sizes if size > steps * self.batch_size] if self.train_sizes_R is not None else []
        if unseen:
            shown = f"trainer.max_steps={steps:,} show {steps * self.batch_size:,} strings"
            lines.append(f"{shown}, fewer than the {' or '.join(f'{size:,}' for size in unseen)} of data.train_size")
        return lines

    def test_dataloader(self) -> list[Steps]:
        """The same as in validation."""
        return self.val_dataloader()

    def _eval_steps(self, start: int, end: int) -> Steps:
        return SizedSteps(-(-(end - start) // self.eval_batch_size))

    def on_after_batch_transfer(self, batch: int, dataloader_idx: int) -> Batch:
        """Make the batch of a step, on the device."""
        assert self.trainer is not None
        if self.trainer.training:  # the trainer's step, not the loader's: it is right also after a resume
            return self.train_batch(self.trainer.global_step, self.rank, self.world)
        if dataloader_idx == PROBE:  # every rank fits its probes on all strings: so they are equal without being sent
            return self.eval_batch(batch, *self.probe_range)
        return self.eval_batch(batch, *self.test_range, self.rank, self.world)

    # ---------------------------------------------------------------- batches

    def train_batch(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """Strings of a step: each epoch shows each training string of a replica once, in an order of its own."""
        size = self.batch_size // world
        steps = max(1, BLOCK_TOKENS // (self.replicas * self.batch_size * self.task.length))
        first = step // steps * steps
        if self._block is None or self._block[0] != first:
            self._block = first, self._make(first, steps)
        block, start = self._block[1], (step - first) * self.batch_size + rank * size

        def cut(t: Tensor) -> Tensor:
            return t[:, start : start + size]

        view = None if block.view_RBD is None else cut(block.view_RBD)
        weight = None if block.weight_RB is None else cut(block.weight_RB)
        assert block.key_RB is not None
        return Batch(cut(block.x_RBD), cut(block.y_RB), view, cut(block.key_RB), block.derivation.map(cut), weight)

    def _make(self, first: int, steps: int) -> Batch:
        device = self.grammar.seeds_R.device
        position = torch.arange(first * self.batch_size, (first + steps) * self.batch_size, device=device)
        index_RB = self.train_index(position)
        derivation, view = self.grammar.sample(index_RB), None
        key_RB = fold(seed_keys(self.grammar.seeds_R, "noise")[:, None], position)
        if self.pairs is not None:
            bits_RB = fold(seed_keys(self.grammar.seeds_R, "pairs")[:, None], position)
            view = self.pairs.view(self, derivation, index_RB, bits_RB)
        return Batch(derivation.x_RBD, derivation.y_RB, view, key_RB, derivation, self._label_weights(index_RB))

    def _label_weights(self, index_RB: Tensor) -> Tensor | None:
        """What each string of whole steps counts in means over the batch that are to be means over labelled strings."""
        if self.label_sizes_R is None:
            return None
        labelled = (index_RB < self.label_sizes_R[:, None]).unflatten(1, (-1, self.batch_size)).double()
        return (labelled * self.batch_size / labelled.sum(-1, keepdim=True).clamp_min(1)).flatten(1)

    def train_index(self, position: Tensor) -> Tensor:
        """String numbers ``[R, B]`` at given positions ``[B]`` of the stream that a run sees."""
        if self.train_sizes_R is None:
            return (position % self.stream_length).expand(self.replicas, -1)
        size_R1 = self.train_sizes_R[:, None]
        key_RB = fold(seed_keys(self.grammar.seeds_R, "order")[:, None], torch.div(position, size_R1, rounding_mode="floor"))
        return permutation(position % size_R1, size_R1, key_RB)

    def eval_batch(self, step: int, start: int, end: int, rank: int = 0, world: int = 1) -> Batch:
        """A rank's share, which may be empty, of the strings ``start + step * eval_batch_size`` and on, below ``end``."""
        first = start + step * self.eval_batch_size
        index = torch.arange(first, min(first + self.eval_batch_size, end), device=self.grammar.seeds_R.device)
        derivation = self.grammar.sample(index[rank::world])
        return Batch(derivation.x_RBD, derivation.y_RB, None, None, derivation)

"""Replicas of strings for training, probing and testing, wherever the strings are from.

Shape suffixes: R replica, B batch, D position.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from datamodules.batch import Batch
from datamodules.numbers import Seeds, Sizes, said
from datamodules.pairs import Pairs
from rhm import Derivation, InvalidInput, RandomHierarchyModel, SparseHierarchyModel, TaskSizes
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


class ReplicaDataModule(LightningDataModule, ABC):
    """Replicas of a task: every seed crossed with every training-set size and, if there are several, label size.

    Training strings are the first ``train_size`` numbers of a replica, test strings the last ``test_size``, the strings that
    probes are fitted on stand before those. The loaders yield step numbers; a batch is a pure function of the step, the rank
    and this module's arguments, and is made on the device that trains. A subclass says which string has which number.

    Args:
        task: sizes of the strings.
        train_size, seeds, pairs, batch_size, test_size, probe_size, eval_batch_size, labels, label_size: see
            :class:`datamodules.RHMDataModule`.

    Attributes:
        grammar: that makes the strings, one of each replica; None where there is none.
        seeds_R: the seed of each replica.
        train_sizes_R, label_sizes_R: of each replica; None is an endless stream, and labels for all.
        rank, world: which of how many ranks that share a batch this is; known once a trainer runs.

    Raises:
        InvalidInput: a size under 1, more strings than there are, pairs that the task does not have.
    """

    grammar: RandomHierarchyModel | SparseHierarchyModel | None = None

    def __init__(
        self,
        task: TaskSizes,
        train_size: Sizes | None,
        seeds: Seeds,
        pairs: Pairs | None,
        batch_size: int,
        test_size: int,
        probe_size: int,
        eval_batch_size: int,
        labels: bool,
        label_size: Sizes | None,
    ):
        super().__init__()
        self.task = task
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
            allowed = f"an integer of at least 1, a list of different ones, or null for {self.null_size}"
            raise InvalidInput("data.train_size", repr(given["train_size"]), allowed)
        if not isinstance(labels, bool):
            raise InvalidInput("data.labels", repr(labels), "true or false")
        if not isinstance(pairs, Pairs | None):
            raise InvalidInput("data.pairs", repr(pairs), "null, or pairs such as SiblingPairs()")
        most = min(size or 0 for size in sizes) if labels else 0
        if label_size is not None and not _different(one_or_more(given["label_size"]), 1, most + 1):
            allowed = f"null, or an integer (or different ones) from 1 to data.train_size, here {most}, with data.labels"
            raise InvalidInput("data.label_size", repr(given["label_size"]), allowed)
        if not isinstance(given["seeds"], list) or not _different(given["seeds"], 0, 2**63):
            raise InvalidInput("data.seeds", repr(given["seeds"]), "different integers in [0, 2**63), one or more")
        batch_size, test_size, probe_size, eval_batch_size = (given[key] for key in counts)
        self._have(replicas_of(given["seeds"], given["train_size"], given["label_size"]))
        largest, strings = max(size or 1 for size in sizes), self.available
        if largest + test_size > strings:
            allowed = f"train_size + test_size at most {self.available_name} = {strings}"
            raise InvalidInput("data.train_size", f"{largest} with test_size {test_size}", allowed)
        self.pairs, self.labels = pairs, labels
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.probe_range, self.test_range = self.kept_apart(probe_size, test_size)
        if pairs is not None:
            pairs.prepare(self)
        self.rank, self.world = 0, 1

    # ---------------------------------------------------------------- what a subclass says

    available_name = "the number of strings"
    null_size = "an endless stream"

    @property
    @abstractmethod
    def available(self) -> int:
        """How many strings a replica has; they are numbered from 0."""

    @property
    def origin(self) -> dict[str, Any]:
        """What beside the task tells which strings these are, by the name of the setting; nothing if the task says all."""
        return {}

    def kept_apart(self, probe_size: int, test_size: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Numbers of the strings that probes are fitted on, and of those for tests: their first, and the one after the last."""
        start = self.available - test_size
        return (max(0, start - probe_size), start), (start, self.available)

    @property
    @abstractmethod
    def chance(self) -> float:
        """Accuracy of guessing the class without looking at the string."""

    @abstractmethod
    def strings(self, index: Tensor) -> Derivation:
        """The strings of given numbers, int64 ``[R, B]``, or ``[B]`` for the same numbers in every replica."""

    def shown(self, x_RBD: Tensor, key: Tensor) -> Tensor:
        """Tokens as a network sees them, ``[R, B, D]``: those of the strings, unless a subclass has noise.

        Args:
            x_RBD: of strings.
            key: int64 ``[R, B]`` or ``[B]``, makes the noise: a string's number, or random bits where it has none.
        """
        return x_RBD

    @abstractmethod
    def _make_strings(self) -> None:
        """Make what :meth:`strings` needs for the replicas that there are."""

    @abstractmethod
    def _move_strings(self, device: torch.device) -> None:
        """Make strings on another device from now on."""

    def _have(self, replicas: list[tuple[int, int | None, int | None]]) -> None:
        """Replicas of these seeds, training-set sizes and label sizes."""
        self.replica_seeds = [seed for seed, _, _ in replicas]
        self.replica_sizes = [size for _, size, _ in replicas]
        self.replica_label_sizes = [labelled for _, _, labelled in replicas]
        self.seeds_R = torch.tensor(self.replica_seeds)
        self._make_strings()
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
        """Move all to the device that trains; without a trainer it stays where it is.

        Raises:
            InvalidInput: a batch that ranks cannot share.
        """
        if self.trainer is None:
            return
        self.rank, self.world = self.trainer.global_rank, self.trainer.world_size
        if self.batch_size % self.world:
            raise InvalidInput("data.batch_size", self.batch_size, f"a multiple of the number of ranks, {self.world}")
        self.move(self.trainer.strategy.root_device)

    def move(self, device: torch.device) -> None:
        """Make strings on another device from now on."""
        if self.seeds_R.device == device:
            return
        self._block = None
        self.seeds_R = self.seeds_R.to(device)
        self._move_strings(device)
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
        if self.trainer.training:
            return self.train_batch(self._training_step, self.rank, self.world)
        if dataloader_idx == PROBE:  # every rank fits its probes on all strings: so they are equal without being sent
            return self.eval_batch(batch, *self.probe_range)
        return self.eval_batch(batch, *self.test_range, self.rank, self.world)

    @property
    def _training_step(self) -> int:
        """Which batch is next, right also after a resume: the trainer's count of batches, as a module may step its optimizers
        more or less than once a batch; its count of steps for our rules, which make several of a batch."""
        assert self.trainer is not None
        if hasattr(self.trainer.lightning_module, "steps_per_call"):
            return self.trainer.global_step
        return self.trainer.fit_loop.total_batch_idx + 1  # of the batch before; -1 at the start

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

        return block.map(cut)

    def _make(self, first: int, steps: int) -> Batch:
        device = self.seeds_R.device
        position = torch.arange(first * self.batch_size, (first + steps) * self.batch_size, device=device)
        index_RB = self.train_index(position)
        derivation, view, half = self.strings(index_RB), None, None
        key_RB = fold(seed_keys(self.seeds_R, "noise")[:, None], position)
        if self.pairs is not None:
            bits_RB = fold(seed_keys(self.seeds_R, "pairs")[:, None], position)
            view = self.pairs.view(self, derivation, index_RB, bits_RB)
            half = self.pairs.half(self, bits_RB)
        x_RBD = self.shown(derivation.x_RBD, index_RB)
        return Batch(x_RBD, derivation.y_RB, view, key_RB, derivation, self._label_weights(index_RB), half)

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
        key_RB = fold(seed_keys(self.seeds_R, "order")[:, None], torch.div(position, size_R1, rounding_mode="floor"))
        return permutation(position % size_R1, size_R1, key_RB)

    def eval_batch(self, step: int, start: int, end: int, rank: int = 0, world: int = 1) -> Batch:
        """A rank's share, which may be empty, of the strings ``start + step * eval_batch_size`` and on, below ``end``."""
        first = start + step * self.eval_batch_size
        index = torch.arange(first, min(first + self.eval_batch_size, end), device=self.seeds_R.device)
        index = index[rank::world]
        derivation = self.strings(index)
        return Batch(self.shown(derivation.x_RBD, index), derivation.y_RB, None, None, derivation)

"""Strings and labels of one's own, from a file or from tensors.

Shape suffixes: R replica, B batch, D position, P string.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from datamodules.base import ReplicaDataModule
from datamodules.numbers import ONE_SEED, Seeds, Sizes, integer
from datamodules.pairs import Pairs
from datamodules.string_files import checked_strings, read_strings
from rhm import Derivation, InvalidInput, OwnTask
from rhm.hashing import permutation, seed_keys


class StringsDataModule(ReplicaDataModule):
    """Replicas of strings that no grammar has made: every seed crossed with every training-set size and label size.

    A seed gives the split, the order in which strings are shown and the initial network. It permutes the strings: the first
    ``train_size`` are trained on, the last ``test_size`` are tested with, and no string is both. Vocabulary and classes are
    those that occur, from 0 to the largest; a string has ``s**L`` tokens, of which neighbours in groups of ``s`` are siblings.

    Of the hierarchy the tokens (level 0) and the class (level L) are known: probes read these, and what needs a grammar is
    refused, such as ``SynonymPairs`` and ``SynonymicSensitivity``.

    Args:
        path: an ``.npz`` or ``.pt`` file with strings ``x``, integers ``[strings, s**L]``, and labels ``y``, integers
            ``[strings]``; or a ``.csv`` file with a string a line, integers between commas, the last of which is its label.
        s: tuple size.
        x: tokens, in Python, in place of a path.
        y: labels, in Python.
        train_size: training strings P; a list is crossed with the seeds; null is all that are not tested with.
        seeds: one replica, or one for each training-set size, a seed.
        pairs: how positive pairs are made; only rules that learn from pairs need it.
        batch_size: strings of a step and replica, over all ranks.
        test_size: strings, never trained on, that accuracies are measured with; null is a fifth of them.
        probe_size: strings that linear probes are fitted on, the last before those for tests: training strings too, unless
            ``train_size`` leaves so many.
        eval_batch_size: strings of a step and replica in validation and test.
        labels: whether training strings have classes. Without, only rules that need none can learn, nor does the readout.
        label_size: how many of the training strings, from the first, have classes, see :class:`datamodules.RHMDataModule`.

    Attributes:
        x_PD: the strings in the order in which they were given.
        y_P: their labels.

    Raises:
        InvalidInput: a file that cannot be read, strings or labels that cannot be, see
            :func:`datamodules.string_files.checked_strings`; a size under 1, more strings than there are, pairs that the task
            does not have.
    """

    task: OwnTask
    null_size = "all that are not tested with"

    def __init__(
        self,
        path: str | None = None,
        s: int = 2,
        x: Any = None,
        y: Any = None,
        train_size: Sizes | None = None,
        seeds: Seeds = ONE_SEED,
        pairs: Pairs | None = None,
        batch_size: int = 128,
        test_size: int | None = None,
        probe_size: int = 2048,
        eval_batch_size: int = 512,
        labels: bool = True,
        label_size: Sizes | None = None,
    ):
        self.path, s = None if path is None else str(path), integer(s)
        if not isinstance(s, int) or isinstance(s, bool) or s < 2:
            raise InvalidInput("data.s", repr(s), "an integer of at least 2")
        if [path is None] * 2 != [x is not None, y is not None]:
            given = [name for name, value in (("path", path), ("x", x), ("y", y)) if value is not None]
            raise InvalidInput("data.path", " and ".join(given) or "nothing", "a file, or x and y in Python in its place")
        x, y = (x, y) if self.path is None else read_strings(self.path)
        self.x_PD, self.y_P, task = checked_strings(x, y, s, self.path)
        tested = max(1, task.strings // 5) if test_size is None else integer(test_size)
        if train_size is None and isinstance(tested, int):
            train_size = max(1, task.strings - tested)
        super().__init__(task, train_size, seeds, pairs, batch_size, tested, probe_size, eval_batch_size, labels, label_size)

    @property
    def available(self) -> int:
        return self.task.strings

    @property
    def chance(self) -> float:
        """The share of the commonest class."""
        return int(self.y_P.long().bincount().max()) / self.task.strings

    def strings(self, index: Tensor) -> Derivation:
        row_RB = self.row(index)
        x_RBD, y_RB = (given.index_select(0, row_RB.flatten()).unflatten(0, row_RB.shape) for given in (self.x_PD, self.y_P))
        return Derivation((x_RBD, y_RB[..., None]))

    def row(self, index: Tensor) -> Tensor:
        """Where the strings of given numbers stand among those that were given, ``[R, B]``."""
        index = index.to(self.seeds_R.device)
        return permutation(index.expand(self.replicas, -1), self.task.strings, self.split_R1)

    def _make_strings(self) -> None:
        self._move_strings(self.seeds_R.device)

    def _move_strings(self, device: torch.device) -> None:
        self.split_R1 = seed_keys(self.seeds_R, "split")[:, None]
        self.x_PD, self.y_P = self.x_PD.to(device), self.y_P.to(device)

    def warnings(self, steps: int, compares_strings: bool) -> list[str]:
        """Also which test strings are, token by token, training strings."""
        lines = super().warnings(steps, compares_strings)
        if most := max(self.trained_twins()):
            of = f" (the most of {self.replicas} replicas)" if self.replicas > 1 else ""
            start, end = self.test_range
            lines.append(f"{most:,} of the {end - start:,} test strings are the same, token by token, as a training string{of}")
        return lines

    def trained_twins(self) -> list[int]:
        """How many of each replica's test strings have the tokens of one of its training strings."""
        kind_P, found = self.x_PD.unique(dim=0, return_inverse=True)[1], []
        for row_P, size in zip(self.row(torch.arange(self.task.strings)), self.replica_sizes, strict=True):
            tested = kind_P[row_P[slice(*self.test_range)]]
            found.append(int(torch.isin(tested, kind_P[row_P[:size]]).sum()))
        return found

    # ---------------------------------------------------------------- kept in checkpoints

    def state_dict(self) -> dict[str, Any]:
        """How many strings each replica is trained on."""
        return {"train_sizes": self.replica_sizes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See that a run is measured with no string that it was trained on: ``train_size``, if null, follows ``test_size``.

        Raises:
            InvalidInput: another ``test_size`` than the run's.
        """
        if state_dict["train_sizes"] != self.replica_sizes:
            most, size = self.task.strings - max(state_dict["train_sizes"]), self.test_range[1] - self.test_range[0]
            raise InvalidInput("data.test_size", size, f"{most}, as in the run, which was trained on all the others")

"""Strings of the Random Hierarchy Model for training, probing and testing.

Shape suffixes: R replica, B string, D position.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor

from datamodules.base import ReplicaDataModule
from datamodules.numbers import ONE_SEED, Seeds, Sizes, integer
from datamodules.pairs import Pairs
from rhm import Derivation, InvalidInput, RandomHierarchyModel, SparseHierarchyModel, SparseTask, Task
from rhm.frequencies import PROBES, TESTS, Frequencies, checked_frequencies, zipf
from rhm.grammar_file import TASK, GrammarFile, read_grammar
from rhm.hashing import fold, seed_keys
from rhm.noise import replaced

MOST_COMPARED = 2**17
"""Training strings up to which a run says how many are different."""


class RHMDataModule(ReplicaDataModule):
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
        grammar: a JSON file with a grammar that all replicas have, as :meth:`rhm.RandomHierarchyModel.to_json` writes: then
            a seed gives the rest. ``v``, ``n``, ``m``, ``s`` and ``L`` are the file's; those that are given, other than the
            defaults, must be the same.
        zipf: the exponent ``a`` of rules of unequal frequency: the ``k``-th rule of a symbol is drawn in proportion to
            ``k**-(1 + a)`` (Cagnetta, Kang, Wyart 2025, arXiv 2505.07067); null is equal frequencies. Strings are then drawn
            one by one: some of the ``train_size`` may be the same, and what a string is decides whether it is trained on or
            tested with, see :mod:`rhm.frequencies`.
        zipf_level: at which level, from 1 to ``L``; null is all.
        noise: probability with which each token is replaced by one drawn from all ``v``, in strings to train on, in their
            partners, and in those for probes and tests. A string has the same noise whenever it is shown. Classes and hidden
            symbols are those without, so are the tokens that probes are to read.
        silent: ``S0`` of the Sparse Random Hierarchy Model (Tomasini, Wyart 2024, arXiv 2404.10727): each symbol stands
            somewhere among so many silent positions, see :class:`rhm.SparseHierarchyModel`. ``v``, ``n``, ``m``, ``s`` and
            ``L`` stay those of the grammar, and ``P_max`` its strings: a run sees each with one set of places, a function of
            its number, and no test string is a training string that stands elsewhere. Networks and rules see a task of
            ``v + 1`` symbols and tuples of ``s (S0 + 1)``. Noise replaces a token, silent or not, by any of the ``v + 1``;
            with ``zipf`` a string that is drawn again stands elsewhere.

    Attributes:
        grammar: the model that makes the strings, one grammar of each replica.
        grammar_file: path of the file; None without one.
        fingerprint: of the file's grammar; another one has another.
        rank, world: which of how many ranks that share a batch this is; known once a trainer runs.

    Raises:
        InvalidInput: an impossible task, a size under 1, more strings than there are, pairs that the task does not have; a file
            that has no grammar, one that cannot be, or one of another task, see :func:`rhm.grammar_file.read_grammar`.
    """

    task: Task | SparseTask
    grammar: RandomHierarchyModel | SparseHierarchyModel
    file: GrammarFile | None
    available_name = "P_max"

    def __init__(
        self,
        v: int = 8,
        n: int = 8,
        m: int = 4,
        s: int = 2,
        L: int = 4,
        train_size: Sizes | None = 2048,
        seeds: Seeds = ONE_SEED,
        pairs: Pairs | None = None,
        batch_size: int = 128,
        test_size: int = 4096,
        probe_size: int = 2048,
        eval_batch_size: int = 512,
        labels: bool = True,
        label_size: Sizes | None = None,
        grammar: str | None = None,
        zipf: float | None = None,
        zipf_level: int | None = None,
        noise: float | None = None,
        silent: int = 0,
    ):
        self.grammar_file, self.file = None if grammar is None else str(grammar), None
        self.zipf, self.zipf_level, self.noise = zipf, integer(zipf_level), noise
        if noise is not None and (isinstance(noise, bool) or not isinstance(noise, int | float) or not 0 <= noise <= 1):
            raise InvalidInput("data.noise", repr(noise), "a probability from 0 to 1, or null for none")
        given = dict(zip(TASK, map(integer, (v, n, m, s, L)), strict=True))
        try:
            if self.grammar_file is not None:
                self.file = read_grammar(self.grammar_file)
            task = Task(**given) if self.file is None else task_of(self.file, self.grammar_file, given)
            sparse = SparseTask(task, integer(silent))
        except InvalidInput as error:
            raise InvalidInput(f"data.{error.key}", error.got, error.allowed) from None
        self.frequencies = self._frequencies(task)
        self.fingerprint = None if self.file is None else self.file.fingerprint
        sizes = sparse if sparse.silent else task
        super().__init__(
            sizes, train_size, seeds, pairs, batch_size, test_size, probe_size, eval_batch_size, labels, label_size
        )

    @property
    def origin(self) -> dict[str, Any]:
        said = {
            "grammar": self.grammar_file,
            "fingerprint": self.fingerprint,
            "zipf": self.zipf,
            "zipf_level": self.zipf_level,
            "noise": self.noise,
            "silent": self.task.silent if isinstance(self.task, SparseTask) else None,
        }
        return {key: value for key, value in said.items() if value is not None}

    @property
    def available(self) -> int:
        return self.grammar.index_range

    @property
    def chance(self) -> float:
        return self.task.chance

    def kept_apart(self, probe_size: int, test_size: int) -> tuple[tuple[int, int], tuple[int, int]]:
        if not self.frequencies:
            return super().kept_apart(probe_size, test_size)
        return (PROBES, PROBES + probe_size), (TESTS, TESTS + test_size)

    def strings(self, index: Tensor) -> Derivation:
        return self.grammar.sample(index)

    def shown(self, x_RBD: Tensor, key: Tensor) -> Tensor:
        if not self.noise:
            return x_RBD
        key_RB = fold(seed_keys(self.seeds_R, "token noise")[:, None], key.to(self.seeds_R.device))
        return replaced(x_RBD, self.task.v, self.noise, key_RB)

    def warnings(self, steps: int, compares_strings: bool) -> list[str]:
        """Also how many of the training strings are different, where they are drawn."""
        lines = super().warnings(steps, compares_strings)
        size = max(size or 0 for size in self.replica_sizes)
        if self.frequencies and 0 < size <= MOST_COMPARED:
            of = " (the fewest of a replica)" if self.replicas > 1 else ""
            drawn = f"of {size:,} training strings {min(self.different(size)):,} are different{of}"
            lines.append(f"{drawn}: rules have unequal frequencies, and what is frequent is drawn again")
        return lines

    def different(self, size: int) -> list[int]:
        """How many different strings the first so many numbers have, in each replica that is trained on so many."""
        x_RBD = self.strings(torch.arange(size)).x_RBD
        return [len(x_BD.unique(dim=0)) for x_BD, own in zip(x_RBD, self.replica_sizes, strict=True) if own == size]

    def _frequencies(self, task: Task) -> Frequencies:
        """Of the rules of levels where they are not equal."""
        own = self.file.frequencies if self.file is not None else {}
        for key, value, refused in (
            ("zipf", self.zipf, "null, as data.grammar has frequencies of its own" if own else None),
            ("zipf_level", self.zipf_level, "null without data.zipf" if self.zipf is None else None),
        ):
            if value is not None and refused:
                raise InvalidInput(f"data.{key}", value, refused)
        if self.zipf is None:
            return own
        if isinstance(self.zipf, bool) or not isinstance(self.zipf, int | float) or not 0 <= self.zipf < math.inf:
            raise InvalidInput("data.zipf", repr(self.zipf), "a number of at least 0, or null for equal frequencies")
        levels = range(1, task.L + 1)
        if self.zipf_level is not None and (isinstance(self.zipf_level, bool) or self.zipf_level not in levels):
            raise InvalidInput("data.zipf_level", repr(self.zipf_level), f"a level from 1 to L={task.L}, or null for all")
        found = {level: zipf(task.m, self.zipf) for level in levels if self.zipf_level in (None, level)}
        try:
            return checked_frequencies(task, found)
        except InvalidInput as error:
            raise InvalidInput("data.zipf", f"{self.zipf} ({error.key}: {error.got})", error.allowed) from None

    def _make_strings(self) -> None:
        try:
            grammar = RandomHierarchyModel(**self.task.given, seeds=self.replica_seeds, frequencies=self.frequencies)
        except InvalidInput as error:
            raise InvalidInput(f"data.{error.key}", error.got, error.allowed) from None
        if self.file is not None:
            grammar.take_rules(self.file.rules)
        task = self.task
        self.grammar = SparseHierarchyModel(grammar, task.silent) if isinstance(task, SparseTask) else grammar

    def _move_strings(self, device: torch.device) -> None:
        self.grammar.to(device)


def task_of(file: GrammarFile, path: str | None, given: dict[str, Any]) -> Task:
    """The task of a file's grammar.

    Args:
        file, path: which.
        given: ``v``, ``n``, ``m``, ``s`` and ``L`` as a person gave them; a default says nothing.

    Raises:
        InvalidInput: one that is not the file's.
    """
    usual = inspect.signature(RHMDataModule).parameters
    for key, value in given.items():
        own = getattr(file.task, key)
        if value not in (own, usual[key].default):
            raise InvalidInput(key, repr(value), f"{own}, as in {path}")
    return file.task

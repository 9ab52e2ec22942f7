"""Strings of the Random Hierarchy Model for training, probing and testing."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from datamodules.base import ReplicaDataModule
from datamodules.numbers import Seeds, Sizes, integer
from datamodules.pairs import Pairs
from rhm import Derivation, InvalidInput, RandomHierarchyModel, Task
from rhm.grammar_file import TASK, GrammarFile, read_grammar


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

    Attributes:
        grammar: the model that makes the strings, one grammar of each replica.
        grammar_file: path of the file; None without one.
        fingerprint: of the file's grammar; another one has another.
        rank, world: which of how many ranks that share a batch this is; known once a trainer runs.

    Raises:
        InvalidInput: an impossible task, a size under 1, more strings than there are, pairs that the task does not have; a file
            that has no grammar, one that cannot be, or one of another task, see :func:`rhm.grammar_file.read_grammar`.
    """

    task: Task
    grammar: RandomHierarchyModel
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
        seeds: Seeds = [0],  # noqa: B006  (never changed; a tuple would not be a list in YAML)
        pairs: Pairs | None = None,
        batch_size: int = 128,
        test_size: int = 4096,
        probe_size: int = 2048,
        eval_batch_size: int = 512,
        labels: bool = True,
        label_size: Sizes | None = None,
        grammar: str | None = None,
    ):
        self.grammar_file, self.file = None if grammar is None else str(grammar), None
        given = dict(zip(TASK, map(integer, (v, n, m, s, L)), strict=True))
        try:
            if self.grammar_file is not None:
                self.file = read_grammar(self.grammar_file)
            task = Task(**given) if self.file is None else task_of(self.file, self.grammar_file, given)
        except InvalidInput as error:
            raise InvalidInput(f"data.{error.key}", error.got, error.allowed) from None
        self.fingerprint = None if self.file is None else self.file.fingerprint
        super().__init__(task, train_size, seeds, pairs, batch_size, test_size, probe_size, eval_batch_size, labels, label_size)

    @property
    def origin(self) -> dict[str, Any]:
        return {} if self.file is None else {"grammar": self.grammar_file, "fingerprint": self.fingerprint}

    @property
    def available(self) -> int:
        return self.grammar.index_range

    @property
    def chance(self) -> float:
        return self.task.chance

    def strings(self, index: Tensor) -> Derivation:
        return self.grammar.sample(index)

    def _make_strings(self) -> None:
        task = self.task
        try:
            self.grammar = RandomHierarchyModel(task.v, task.n, task.m, task.s, task.L, seeds=self.replica_seeds)
        except InvalidInput as error:
            raise InvalidInput(f"data.{error.key}", error.got, error.allowed) from None
        if self.file is not None:
            self.grammar.take_rules(self.file.rules)

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

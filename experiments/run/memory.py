"""How much memory a run takes, found without taking any: its rule is built, and a step computed, on tensors without content.

Shape suffixes: R replica.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from datamodules import ReplicaDataModule
from experiments.run.hollow import hollow, hollow_batch
from experiments.settings import DATA
from networks import HierarchicalNetwork
from rhm import InvalidInput, SparseTask, Task
from rhm.memory import check_memory
from rules import LocalRule

MOMENTS = 2
"""Numbers that an optimizer such as Adam keeps for each weight."""


def check_run(rule: LocalRule, data: ReplicaDataModule, on_gpu: bool, world: int = 1) -> None:
    """Refuse a run that does not fit into the memory that is free, on this machine and on its GPU.

    Args:
        rule: not yet prepared.
        data: of the run.
        on_gpu: whether it trains on a GPU.
        world: ranks that share a batch.

    Raises:
        InvalidInput: it does not fit; the key is the setting without which the run would be smallest.
    """
    weights, whole = bytes_of(rule, data, world)
    places: list[tuple[str, float, float | None]] = [
        ("the weights" if on_gpu else "the run", weights if on_gpu else whole, None)
    ]
    if on_gpu:
        places.append(("the run on the GPU", whole, torch.cuda.mem_get_info()[0]))
    for what, need, free in places:
        try:
            check_memory("model", type(rule).__name__, what, need, free)
        except InvalidInput as error:
            key, got = largest_setting(rule, data, world)
            raise InvalidInput(key, got, error.allowed) from None


def bytes_of(rule: LocalRule, data: ReplicaDataModule, world: int = 1) -> tuple[float, float]:
    """Memory of the weights, and the most that a rank has: as it draws them, or beside an optimizer in a step or an evaluation
    with its probes.

    Raises:
        InvalidInput: network, data and rule do not fit together.
    """
    twin = hollow(rule)
    try:
        with torch.device("meta"):
            building = _most(twin, lambda: twin.prepare(data))
            if not hasattr(twin, "network"):  # a rule of one's own that looks at what tensors hold: nothing is known of it
                return 0.0, 0.0
            weights = sum(p.nbytes for p in twin.parameters())
            step = _most(twin, lambda: twin.updates(twin.compute(hollow_batch(data, data.batch_size // world, training=True))))
            evaluation = _most(twin, lambda: twin.compute(hollow_batch(data, data.eval_batch_size // world, training=False)))
    except RuntimeError:  # sizes beyond 63 bits
        return float("inf"), float("inf")
    grams = [8 * data.replicas * layer.groups * layer.out_channels**2 for layer in twin.network.layers]
    probes = sum(grams) + 4 * max(grams)  # one layer's are solved at a time
    kept = (1 + MOMENTS) * weights + sum(b.nbytes for b in twin.buffers())
    return weights, max(building, kept + max(step, evaluation + probes))


Change = Callable[[LocalRule, ReplicaDataModule], None]
"""Sets something of a rule and of its data."""


def in_network(key: str, value: Any) -> Change:
    """Set a size of the network."""
    return lambda rule, data: setattr(rule.network_config, key, value)


def in_data(key: str, value: Any) -> Change:
    """Set a size of the data."""
    return lambda rule, data: setattr(data, key, value)


def in_task(key: str, value: int) -> Change:
    """Set a size of a grammar's task."""

    def change(rule: LocalRule, data: ReplicaDataModule) -> None:
        if isinstance(data.task, SparseTask):
            own = {"silent": value} if key == "silent" else {"informative": replace(data.task.informative, **{key: value})}
            data.task = replace(data.task, **own)
        else:
            assert isinstance(data.task, Task)
            data.task = replace(data.task, **{key: value})

    return change


def largest_setting(rule: LocalRule, data: ReplicaDataModule, world: int = 1) -> tuple[str, Any]:
    """The setting without which a run would be smallest, and what it is."""
    found: dict[str, tuple[float, Any]] = {}

    def look(key: str, value: Any, usual: Any, change: Change) -> None:
        if isinstance(value, int) and value > usual:
            other, others_data = copy.copy(rule), copy.copy(data)
            other.network_config, others_data.pairs = copy.copy(rule.network_config), copy.copy(data.pairs)
            try:
                change(other, others_data)
                if others_data.pairs is not None and others_data.train_sizes_R is None:
                    others_data.pairs.prepare(others_data)
                found[key] = bytes_of(other, others_data, world)[1], value
            except InvalidInput:  # no task, or no network for it
                pass

    usual_network = vars(HierarchicalNetwork()) | {"bottleneck": DATA["v"], "depth": DATA["L"], "codebooks": 1}
    for key, value in vars(rule.network_config).items():
        usual = usual_network.get(key)
        if isinstance(usual, int) and not isinstance(value, bool):
            look(f"model.network.{key}", value, usual, in_network(key, usual))
    for key in "batch_size", "eval_batch_size":
        look(f"data.{key}", getattr(data, key), DATA[key], in_data(key, DATA[key]))
    silent = {"silent": data.task.silent} if isinstance(data.task, SparseTask) else {}
    for key, value in (data.task.given | silent).items() if data.grammar is not None else ():  # own strings are as they are
        look(f"data.{key}", value, DATA[key], in_task(key, DATA[key]))
    look("data.seeds", data.replicas, 1, in_data("replica_seeds", data.replica_seeds[:1]))
    if not found:
        return "model", type(rule).__name__
    key = min(found, key=lambda key: found[key][0])
    got = found[key][1]
    return key, f"{got} replicas, with their sizes" if key == "data.seeds" else got


def _most(rule: LocalRule, compute: Callable[[], Any]) -> int:
    """The most bytes that live at once, beside a rule's own, while something is computed, or until what has no content cannot
    be gone on with."""
    live = Live()
    live.known.update(own.untyped_storage()._cdata for own in (*rule.parameters(), *rule.buffers()))
    with live, torch.no_grad():
        try:
            compute()
        except (RuntimeError, NotImplementedError) as error:
            if "overflow" in str(error):
                raise
    return live.most


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make, as long as they live.

    Attributes:
        now, most: bytes at this moment, and the largest number so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known = set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do the operation and count what it has made."""
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and (storage := made.untyped_storage())._cdata not in self.known:
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._freed, storage._cdata, storage.nbytes())
        return out

    def _freed(self, storage: int, size: int) -> None:
        self.known.discard(storage)
        self.now -= size

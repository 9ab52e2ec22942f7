"""Networks of scalar units: which positions a layer merges, and which share weights."""

from __future__ import annotations

from networks.config import NetworkConfig
from rhm import InvalidInput, TaskSizes


class HierarchicalNetwork(NetworkConfig):
    """Each layer merges ``patch`` neighbours; all positions share weights (the CNN of Cagnetta et al. 2024).

    Args:
        width, depth, bottleneck, activation, normalise, label_slot: see :class:`NetworkConfig`.
        patch: positions that a layer merges; the task's ``s`` by default.
    """

    def __init__(
        self,
        width: int = 256,
        depth: int | None = None,
        bottleneck: int | str | None = None,
        activation: str = "relu",
        normalise: bool = False,
        label_slot: bool = False,
        patch: int | None = None,
    ):
        super().__init__(width, depth, bottleneck, activation, normalise, label_slot)
        if patch is not None and patch < 1:
            raise InvalidInput("model.network.patch", patch, "an integer of at least 1")
        self.patch = patch

    def shapes(self, task: TaskSizes, depth: int) -> list[tuple[int, int]]:
        return [(1, patch) for _, patch in self._merged(task, depth)]

    def _merged(self, task: TaskSizes, depth: int) -> list[tuple[int, int]]:
        """Output positions and patch of each layer."""
        patch = self.patch or task.s
        if task.length % patch**depth:
            key = "model.network.patch" if self.depth is None else "model.network.depth"
            got = f"depth={depth}, patch={patch}"
            raise InvalidInput(key, got, f"patch**depth that divides the string length s**L = {task.length}")
        return [(task.length // patch**k, patch) for k in range(1, depth + 1)]


class LocallyConnectedNetwork(HierarchicalNetwork):
    """As the hierarchical network, with a set of weights for each position."""

    def shapes(self, task: TaskSizes, depth: int) -> list[tuple[int, int]]:
        return self._merged(task, depth)


class DenseNetwork(NetworkConfig):
    """Every unit of a layer sees the whole layer below."""

    def shapes(self, task: TaskSizes, depth: int) -> list[tuple[int, int]]:
        return [(1, task.length if k == 0 else 1) for k in range(depth)]

"""How to build a network for a task that is not known yet.

Shape suffixes: R replica.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod

from torch import Tensor

from networks.activations import ACTIVATIONS
from networks.layer import Layer
from networks.layered import LayeredNetwork
from rhm import InvalidInput, TaskSizes
from rhm.hashing import seed_keys

MULTIPLE = re.compile(r"([1-9]\d*)?v")


def checked_size(key: str, size: int | str | None) -> int | str | None:
    """A size that is a number or follows the task: ``v``, ``2v`` and so on.

    Raises:
        InvalidInput: it is neither, or a number under 1.
    """
    size = int(size) if isinstance(size, str) and size.isdecimal() else size
    if isinstance(size, str) and not MULTIPLE.fullmatch(size):
        raise InvalidInput(key, size, "an integer of at least 1, v, 2v, 3v ... or null")
    if isinstance(size, int) and size < 1:
        raise InvalidInput(key, size, "an integer of at least 1")
    return size


def size_on(task: TaskSizes, size: int | str | None) -> int | None:
    """What such a size is on a task; None stays None."""
    return int(size[:-1] or 1) * task.v if isinstance(size, str) else size


class NetworkConfig(ABC):
    """How to build a network for a task that is not known yet: sizes that are None follow the task.

    Args:
        width: units of a layer.
        depth: number of layers; the task's ``L`` by default.
        bottleneck: every layer but the last hands on a normalised projection of this width instead of its units: a number, or
            the task's symbols, ``v``, ``2v`` and so on.
        activation: ``relu``, ``tanh`` or ``linear``.
        normalise: every layer hands on its units with a mean square of 1; a bottleneck does so anyway.
        label_slot: show a class in ``n`` channels of every input position; only Forward-Forward does.

    Raises:
        InvalidInput: a size under 1, a bottleneck that is neither a number nor a multiple of ``v``, an unknown activation.
    """

    def __init__(
        self,
        width: int = 256,
        depth: int | None = None,
        bottleneck: int | str | None = None,
        activation: str = "relu",
        normalise: bool = False,
        label_slot: bool = False,
    ):
        bottleneck = checked_size("model.network.bottleneck", bottleneck)
        for key, value in ("width", width), ("depth", depth):
            if value is not None and value < 1:
                raise InvalidInput(f"model.network.{key}", value, "an integer of at least 1")
        if activation not in ACTIVATIONS:
            raise InvalidInput("model.network.activation", activation, f"one of {', '.join(ACTIVATIONS)}")
        self.width, self.depth, self.bottleneck, self.activation = width, depth, bottleneck, activation
        self.normalise, self.label_slot = normalise, label_slot

    def settle(self) -> None:  # noqa: B027
        """Nothing; but the argument parser's lazy default has its sizes only after its first call."""

    def handed_on(self, task: TaskSizes) -> int | None:
        """The bottleneck's width on a task; None without one."""
        return size_on(task, self.bottleneck)

    def build(self, task: TaskSizes, seeds_R: Tensor) -> LayeredNetwork:
        """The network of one replica for each seed, on the CPU, in torch's default type.

        Raises:
            InvalidInput: a depth or patch that does not fit the task.
        """
        depth = self.depth or task.L
        layers: list[Layer] = []
        channels = task.v + (task.n if self.label_slot else 0)
        for k, (groups, patch) in enumerate(self.shapes(task, depth), 1):
            keys_R = seed_keys(seeds_R, "layer", k)
            bottleneck = self.handed_on(task) if k < depth else None
            layers.append(Layer(keys_R, groups, patch, channels, self.width, bottleneck, self.activation, self.normalise))
            channels = layers[-1].out_channels
        return LayeredNetwork(task, layers, self.label_slot)

    @abstractmethod
    def shapes(self, task: TaskSizes, depth: int) -> list[tuple[int, int]]:
        """Groups of positions that share weights, and positions that are merged, for each layer."""

"""A network of codes: a layer has a cell for each tuple of the codes below it, and a table says which code a cell hands on.

Shape suffixes: R replica, B batch, D position, C channel; G groups of positions (always 1 here), M rows (strings times
positions), F inputs, E units, T cells, S codebooks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks.architectures import HierarchicalNetwork
from networks.layer import Layer
from networks.layered import LayeredNetwork
from networks.state import LayerState, LayerUpdate
from rhm import InvalidInput, TaskSizes, whitened_one_hot
from rhm.hashing import fold, seed_keys, uniform


class CodeTable(nn.Module):
    """The code of each cell in ``S`` codebooks; the most active cell's code in the best of them is handed on, one-hot.

    A cell is a unit that stands for one tuple of the codes below. Codes start at random. No gradient passes them.

    Args:
        keys_R: int64 keys of the initial codes.
        cells: ``T``.
        symbols: codes that are handed on, ``K``.
        codebooks: ``S``.

    Attributes:
        codes_RST: of each cell, integers.
        objective_RS: of each codebook; whoever changes codes says it.
    """

    codes_RST: Tensor
    objective_RS: Tensor

    def __init__(self, keys_R: Tensor, cells: int, symbols: int, codebooks: int):
        super().__init__()
        self.symbols = symbols
        codes_RST = (uniform(fold(keys_R, "codes"), (codebooks, cells)) * symbols).long()
        self.register_buffer("codes_RST", codes_RST)
        self.register_buffer("objective_RS", torch.zeros(codes_RST.shape[:2], dtype=torch.get_default_dtype()))

    @property
    def chosen_R(self) -> Tensor:
        """The codebook with the largest objective."""
        return self.objective_RS.argmax(-1)

    @property
    def handed_on_RT(self) -> Tensor:
        """Each cell's code in the chosen codebook."""
        replica_R = torch.arange(len(self.codes_RST), device=self.codes_RST.device)
        return self.codes_RST[replica_R, self.chosen_R]

    def forward(self, units_RME: Tensor) -> Tensor:
        """The codes of the most active cells as whitened one-hot vectors, ``[R, M, K]``."""
        code_RM = self.handed_on_RT.gather(1, units_RME.argmax(-1))
        return whitened_one_hot(code_RM, self.symbols, units_RME.dtype)


class CellLayer(Layer):
    """``K**s`` units, of which one is active: ``relu(2 (matches - s) + 1)``, with as many matches as codes of its own tuple.

    The weights are fixed, a code of whitened one-hot vectors each. What is handed on is the active cell's code.

    Args:
        keys_R: int64 keys of the initial codes.
        patch: ``s``, neighbouring positions that are merged into one.
        channels: ``K``, codes below.
        symbols: codes that are handed on.
        codebooks: tables, of which the best is used.
    """

    OWN = ("weight_RGFE", "bias_RG1E")

    def __init__(self, keys_R: Tensor, patch: int, channels: int, symbols: int, codebooks: int):
        super().__init__(keys_R, 1, patch, channels, channels**patch, None, "relu")
        spread = math.sqrt((1 - 1 / channels) / channels) if channels > 1 else 1.0  # of a one-hot vector's coordinates
        own_FE = functional.one_hot(tuples_of(patch, channels), channels).flatten(1).T
        self.weight_RGFE.data.copy_((2 * spread * own_FE.double()).expand_as(self.weight_RGFE))
        self.bias_RG1E.data.fill_(2 * patch / channels - 2 * patch + 1)
        self.code = CodeTable(keys_R, channels**patch, symbols, codebooks)

    @property
    def out_channels(self) -> int:
        return self.code.symbols

    def hand_on(self, units_RGME: Tensor, projection_noise: Tensor | None = None) -> tuple[Tensor, None]:
        return self.code(units_RGME[:, 0])[:, None], None

    def backward_output(
        self, state: LayerState, grad_RBDC: Tensor, projection_RGEC: Tensor | None = None
    ) -> tuple[LayerUpdate, Tensor]:
        """No signal passes a code.

        Raises:
            InvalidInput: always.
        """
        raise InvalidInput("model.network", "CodeNetwork", "a network without codes for a rule that sends signals back")


def tuples_of(patch: int, channels: int) -> Tensor:
    """The codes of each cell's tuple, ``[T, patch]``: the digits of its number."""
    return torch.cartesian_prod(*[torch.arange(channels)] * patch).view(-1, patch)


class CodeNetwork(HierarchicalNetwork):
    """Every layer but the last hands on a code of each tuple of the codes below it; the last is a layer of ReLUs.

    Args:
        width: units of the last layer.
        depth, patch: see :class:`networks.HierarchicalNetwork`.
        bottleneck: ``K``, codes of a layer: a number, or the task's symbols, ``v``, ``2v`` and so on.
        codebooks: tables of each layer, of which the best is used.
        most_cells: refuse layers of more cells, ``K**s`` (``v**s`` in the first): what is counted takes ``4 cells**2`` bytes.

    Raises:
        InvalidInput: fewer than two codes, a size under 1; for a task, a layer with more cells.
    """

    def __init__(
        self,
        width: int = 256,
        depth: int | None = None,
        bottleneck: int | str = "v",
        codebooks: int = 4,
        patch: int | None = None,
        most_cells: int = 1024,
    ):
        if bottleneck is None or bottleneck in (1, "1"):
            raise InvalidInput("model.network.bottleneck", bottleneck, "at least 2 codes for CodeNetwork, or v, 2v, 3v ...")
        for key, value in ("codebooks", codebooks), ("most_cells", most_cells):
            if value < 1:
                raise InvalidInput(f"model.network.{key}", value, "an integer of at least 1")
        super().__init__(width, depth, bottleneck, patch=patch)
        self.codebooks, self.most_cells = codebooks, most_cells

    def build(self, task: TaskSizes, seeds_R: Tensor) -> LayeredNetwork:
        """The network of one replica for each seed, on the CPU, in torch's default type.

        Raises:
            InvalidInput: a depth or patch that does not fit the task, a layer with more than ``most_cells``.
        """
        symbols, depth = self.handed_on(task), self.depth or task.L
        assert symbols is not None
        layers: list[Layer] = []
        channels = task.v
        for k, (_, patch) in enumerate(self.shapes(task, depth), 1):
            keys_R = seed_keys(seeds_R, "layer", k)
            if k < depth:
                self._check_cells(k, channels, patch)
                layers.append(CellLayer(keys_R, patch, channels, symbols, self.codebooks))
                channels = symbols
            else:
                layers.append(Layer(keys_R, 1, patch, channels, self.width, None, "relu"))
        return LayeredNetwork(task, layers)

    def _check_cells(self, k: int, channels: int, patch: int) -> None:
        if channels**patch > self.most_cells:
            of = f"{channels}**{patch} = {channels**patch} cells of layer {k}"
            instead = "data.v" if k == 1 else "model.network.bottleneck"
            raise InvalidInput("model.network.most_cells", self.most_cells, f"at least the {of}, or a smaller {instead}")

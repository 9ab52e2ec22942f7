"""Discrete codes in place of a projection, as prototypes of what units predict, or as a table of cells.

Shape suffixes: R replica, M rows (strings times positions), E units, S codebooks, K symbols of a codebook, J = 2 K predictions,
P = S J, T cells.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from rhm import whitened_one_hot
from rhm.hashing import fold, normal, uniform


class Code(nn.Module):
    """``q = (u - mean u) U``, ``k = argmax_k cos(q, c_k)`` in each of ``S`` codebooks; one is handed on, one-hot.

    Weights are shared by all positions. No gradient passes a winner. The predictor is a parameter; what else a rule learns here
    are running averages, buffers: prototypes ``c``, the mean of ``u``, and how often the symbols of two siblings win together.

    Args:
        keys_R: int64 keys of the initial weights.
        units: number of units that it reads.
        symbols: ``K``.
        codebooks: ``S``.
    """

    mean_R1E: Tensor
    prototypes_RSKJ: Tensor
    joint_RSKK: Tensor

    def __init__(self, keys_R: Tensor, units: int, symbols: int, codebooks: int):
        super().__init__()
        self.symbols, self.codebooks = symbols, codebooks
        dtype = torch.get_default_dtype()
        predictor = normal(fold(keys_R, "predictor"), (units, codebooks * 2 * symbols)) / math.sqrt(units)
        self.predictor_REP = nn.Parameter(predictor.to(dtype))
        prototypes = normal(fold(keys_R, "prototypes"), (codebooks, symbols, 2 * symbols)) / symbols
        self.register_buffer("prototypes_RSKJ", prototypes.to(dtype))
        self.register_buffer("mean_R1E", torch.zeros(len(keys_R), 1, units, dtype=dtype))
        shape = (len(keys_R), codebooks, symbols, symbols)
        self.register_buffer("joint_RSKK", torch.full(shape, 1 / symbols**2, dtype=dtype))

    def predict(self, units_RME: Tensor, predictor_REP: Tensor | None = None) -> Tensor:
        """``q`` of each codebook, or of those that a part of the predictor stands for, ``[R, M, S, J]``."""
        predictor = self.predictor_REP if predictor_REP is None else predictor_REP
        q = torch.bmm(units_RME - self.mean_R1E, predictor).to(self.mean_R1E.dtype)
        return q.unflatten(-1, (-1, 2 * self.symbols))

    def scores(self, q_RMSJ: Tensor, prototypes_RSKJ: Tensor | None = None) -> Tensor:
        """Cosine of predictions with prototypes, ``[R, M, S, K]``."""
        prototypes = self.prototypes_RSKJ if prototypes_RSKJ is None else prototypes_RSKJ
        q, c = functional.normalize(q_RMSJ, dim=-1), functional.normalize(prototypes, dim=-1)
        return torch.matmul(q.transpose(1, 2), c.transpose(-1, -2)).transpose(1, 2)

    @property
    def frequency_RSK(self) -> Tensor:
        """How often each symbol of each codebook wins."""
        return (self.joint_RSKK.sum(-1) + self.joint_RSKK.sum(-2)) / 2

    @property
    def chosen_R(self) -> Tensor:
        """The codebook whose codes of siblings tell most of one another."""
        return mutual_information(self.joint_RSKK).argmax(-1)

    def forward(self, units_RME: Tensor) -> Tensor:
        """The chosen codebook's winners as whitened one-hot vectors, ``[R, M, K]``."""
        replica_R, chosen_R = torch.arange(len(self.mean_R1E), device=units_RME.device), self.chosen_R
        predictor = self.predictor_REP.unflatten(-1, (self.codebooks, -1))[replica_R, :, chosen_R]
        prototypes = self.prototypes_RSKJ[replica_R, chosen_R][:, None]
        winner = self.scores(self.predict(units_RME, predictor), prototypes).argmax(-1)[..., 0]
        return whitened_one_hot(winner, self.symbols, units_RME.dtype)


class CodeTable(nn.Module):
    """The code of each cell in ``S`` codebooks; the most active cell's code in the best of them is handed on, one-hot.

    A cell is a unit that stands for one tuple of the codes below. Codes start at random. No gradient passes them.

    Args:
        keys_R: int64 keys of the initial codes.
        cells: ``T``.
        symbols: ``K``.
        codebooks: ``S``.

    Attributes:
        codes_RST: of each cell, integers.
        objective_RS: of each codebook; whoever changes codes says it.
    """

    codes_RST: Tensor
    objective_RS: Tensor

    def __init__(self, keys_R: Tensor, cells: int, symbols: int, codebooks: int):
        super().__init__()
        self.symbols, self.codebooks = symbols, codebooks
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


def mutual_information(joint: Tensor) -> Tensor:
    """``sum p(a, b) log p(a, b) / p(a) p(b)`` of joint distributions ``[..., K, K]``, in nats."""
    product = joint.sum(-1, keepdim=True) * joint.sum(-2, keepdim=True)
    return (torch.xlogy(joint, joint) - torch.xlogy(joint, product)).sum((-1, -2))

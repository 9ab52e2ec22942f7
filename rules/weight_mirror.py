"""Weight mirror: the feedback matrices learn the weights from the layers' answers to noise.

Shape suffixes: R replica, B batch, S samples of a string; G groups of positions, M rows, F inputs, E units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from networks import Layer, multiply
from rhm import InvalidInput
from rules.base.contract import Step, Updates
from rules.base.layered_feedback import LayeredFeedback
from rules.base.local_rule import NetworkConfig, OptimizerCallable, default_network
from rules.maths.feedback import random_like


class WeightMirror(LayeredFeedback):
    """Weight mirror (Akrout et al. 2019): ``delta_l = D_l B_{l+1} delta_{l+1}``, ``B`` a running mean of ``x y^T``.

    ``x`` is noise of unit variance at a layer's input, drawn for each layer by itself, and ``y = phi(W x + b)`` the layer's
    answer (linear for projection and readout). Noise comes in pairs ``x, -x``, so that ``y`` is centred exactly.
    By Stein's lemma ``E[x y_i] = w_i E[phi'(a_i)]``: ``B`` becomes ``W^T`` itself in a linear network, and with ReLU each
    unit's weights times the share of noise that it answers to, a half if its bias is 0.

    Random: ``B`` at the start. Learned: ``B``, ``B <- B + rate (E[x y^T] - B)``; the running mean stands for the paper's decay.
    The authors alternate with a mirror phase over all data, use uniform noise of standard deviation .03 and sigmoids, do not
    centre, and their public code's growth control has no effect; here every step does both and none is needed.

    Args:
        network, optimizer, clip, form: see :class:`rules.base.layered_feedback.LayeredFeedback`.
        samples: pairs of noise vectors for each string of a batch.
        rate: step of ``B`` towards a batch's estimate.

    Raises:
        InvalidInput: ``samples`` under 1; ``rate`` not in (0, 1]; an unknown form.
    """

    takes_vectors = False
    source = "Akrout et al. 2019, arXiv 1904.05391"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        form: str = "explicit",
        samples: int = 1,
        rate: float = 0.02,
    ):
        super().__init__(network, optimizer, clip, form)
        if samples < 1:
            raise InvalidInput("model.samples", samples, "an integer of at least 1")
        if not 0 < rate <= 1:
            raise InvalidInput("model.rate", rate, "a number in (0, 1]")
        self.samples, self.rate = samples, rate

    def build(self) -> None:
        for k, name, matrix in self.carriers():
            self.register_buffer(f"feedback_{k}_{name}", random_like(matrix, self.keys_R(k, name)))

    def feedback(self, k: int, name: str) -> Tensor:
        return self.get_buffer(f"feedback_{k}_{name}")

    def mirror(self, step: Step, k: int, name: str, matrix: Tensor) -> Tensor:
        """``E[x y^T]`` over a batch's noise, in the parameter's shape."""
        part, matrix_RGFE = self.parts[k - 1], matrix if matrix.dim() == 4 else matrix[:, None]
        shape = (self.samples, *matrix_RGFE.shape[1:3])
        x_RBSGF = self.noise(step.batch, f"mirror {k} {name}", shape)
        x_RGMF = x_RBSGF.permute(0, 3, 1, 2, 4).flatten(2, 3)
        y = multiply(x_RGMF, matrix_RGFE)
        if isinstance(part, Layer) and name == "weight_RGFE":
            phi, bias = part.activation.phi, part.bias_RG1E
            y = (phi(bias + y) - phi(bias - y)) / 2
        return multiply(x_RGMF.transpose(-1, -2) / x_RGMF.shape[2], y.to(x_RGMF.dtype)).view_as(matrix)

    def layer_updates(self, step: Step) -> Updates:
        estimates = {f"feedback_{k}_{name}": self.mirror(step, k, name, matrix) for k, name, matrix in self.carriers()}
        return Updates(super().layer_updates(step).layers, estimates)

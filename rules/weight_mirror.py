"""Feedback that is measured: noise goes through the weights, and what comes out is correlated with what went in.

Shape suffixes: R replica, B batch, G groups of positions that share weights, F inputs, E units, N classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from networks import Layer, LayerUpdate
from networks.layered import multiply
from rhm import InvalidInput
from rules.feedback_alignment import LayeredFeedback, random_like
from rules.local_rule import NetworkConfig, OptimizerCallable, Step, default_network


class WeightMirror(LayeredFeedback):
    """Weight mirror (Akrout et al. 2019, eq. 7): feedback alignment with ``B += rate (E[xi y^T] / E[phi'] - B)``.

    ``y = phi(W^T xi + b)`` for normal noise ``xi`` at the layer's input, one draw for each string of the batch and each layer
    by itself. By Stein's lemma ``E[xi y^T] = E[phi'(a)] W`` for each unit, so that dividing by the unit's own mean slope
    makes ``B`` tend to ``W``. The authors instead bound the growth of ``B``; in their code that bound has no effect.
    Projections and readout are linear.

    Learned: ``B``, from a random start.

    Args:
        network, optimizer, clip, form: see :class:`rules.feedback_alignment.LayeredFeedback`.
        mirror_rate: how far ``B`` goes towards a step's estimate.

    Raises:
        InvalidInput: ``mirror_rate`` outside (0, 1]; an unknown form.
    """

    takes_vectors = False
    source = "Akrout et al. 2019, arXiv 1904.05391"

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        form: str = "explicit",
        mirror_rate: float = 0.02,
    ):
        super().__init__(network, optimizer, clip, form)
        if not 0 < mirror_rate <= 1:
            raise InvalidInput("model.mirror_rate", mirror_rate, "a number in (0, 1]")
        self.rate = mirror_rate

    def build(self) -> None:
        for k, name, matrix in self.carriers():
            self.register_buffer(f"feedback_{k}_{name}", random_like(matrix, self.keys_R(k, name)))

    def feedback(self, step: Step, k: int, name: str) -> Tensor:
        return self.get_buffer(f"feedback_{k}_{name}")

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        for k, name, matrix in self.carriers():
            self.estimates[f"feedback_{k}_{name}"] = self._mirror(step, k, name, matrix)
        return super().layer_updates(step)

    def _mirror(self, step: Step, k: int, name: str, matrix: Tensor) -> Tensor:
        """What a batch of noise tells of a matrix, in its shape."""
        weight_RGFE = matrix if matrix.dim() == 4 else matrix[:, None]
        noise = self.noise(step.batch, f"mirror {k} {name}", tuple(weight_RGFE.shape[1:3])).transpose(1, 2)
        answer = multiply(noise, weight_RGFE)
        slope = torch.ones_like(answer[:, :, :1])
        if name == "weight_RGFE":
            layer = self.network.layers[k - 1]
            assert isinstance(layer, Layer)
            a = answer + layer.bias_RG1E
            answer, slope = layer.activation.phi(a), layer.activation.mask(a).mean(2, keepdim=True).clamp_min(0.01)
        answer = answer - answer.mean(2, keepdim=True)
        return (multiply(noise.transpose(2, 3), answer) / (noise.shape[2] * slope)).view(matrix.shape)

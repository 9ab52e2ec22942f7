"""Difference target propagation: targets instead of errors go down, through learned inverses of the layers.

Shape suffixes: R replica, B batch, D position, C channel; G groups of positions, M rows, F inputs of a layer,
E channels that it hands on, or units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from datamodules import Batch
from networks import LayerState, LayerUpdate, multiply
from networks.activations import ACTIVATIONS
from rhm import InvalidInput
from rhm.hashing import normal
from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.maths.precision import full_precision


class DifferenceTargetPropagation(LocalRule):
    """Difference target propagation (DTP, Lee et al. 2015): ``h'_{l-1} = h_{l-1} + g_l(h'_l) - g_l(h_l)``.

    ``h'_L = h_L - reach W_o e`` at the top, and each layer descends ``1/2 |f_l(h_{l-1}) - h'_l|^2 / reach``, so that its first
    order in ``reach`` has the size of a gradient. ``g_l = phi(V_l h_l + c_l)``, without ``phi`` where the layer below
    normalises what it hands on, learns to undo its layer near the activity of each string,

        1/2 |g_l(f_l(x)) - x|^2,    x = h_{l-1} + sigma noise.

    ``h_l`` is what the layer hands on. A difference of two inverses need not be right in what both miss. It has the masks of
    ``g_l`` on its way down, not those of the layers above. Random: ``V_l`` at the start. Learned: the weights, ``V_l`` and
    ``c_l``, all by one optimizer; the authors have tanh units and RMSprop.

    Kind: the second (a feedback network of its own, layer by layer, although not a symmetric one; no settling).

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        reach: of the top layer's target, down the gradient.
        sigma: standard deviation of the noise with which inverses learn.

    Raises:
        InvalidInput: ``reach`` or ``sigma`` not above 0; vector units.
    """

    source = "Lee, Zhang, Fischer, Bengio 2015, arXiv 1412.7525"
    family = "feedback"
    takes_vectors = False
    knowledge = "labels"
    locality = Locality(error=True, other_layers=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        reach: float = 0.1,
        sigma: float = 0.1,
    ):
        super().__init__(network, optimizer, clip)
        for key, value in ("reach", reach), ("sigma", sigma):
            if value <= 0:
                raise InvalidInput(f"model.{key}", value, "a number above 0")
        self.reach, self.sigma = reach, sigma
        self.locality = self.locality.through_output(network)

    def build(self) -> None:
        for k, layer in enumerate(list(self.network.layers)[1:], 2):
            R, G, F, _ = layer.weight_RGFE.shape
            matrix = normal(self.keys_R("inverse", k), (G, layer.out_channels, F)) / math.sqrt(layer.out_channels)
            layer.register_parameter("inverse_RGEF", nn.Parameter(matrix.to(torch.get_default_dtype())))
            layer.register_parameter("inverse_bias_RG1F", nn.Parameter(torch.zeros(R, G, 1, F)))

    def inverse(self, k: int, z_RGME: Tensor) -> tuple[Tensor, Tensor]:
        """``g_k`` of rows of what layer ``k`` from 2 hands on, ``[R, G, M, F]``, and the slope of its units."""
        layer = self.network.layers[k - 1]
        phi = ACTIVATIONS["linear" if self.network.layers[k - 2].normalise else self.network_config.activation]
        pre = multiply(z_RGME, layer.get_parameter("inverse_RGEF")) + layer.get_parameter("inverse_bias_RG1F")
        return phi.phi(pre), phi.mask(pre)

    def compute(self, batch: Batch) -> Step:
        """The forward pass, in full precision: targets are near to what they differ from."""
        with full_precision(batch.x_RBD):
            return super().compute(batch)

    def targets(self, step: Step) -> list[Tensor]:
        """``h'_l`` of each layer, ``[R, B, D, C]``."""
        top = step.states[-1].out_RBDC
        strings = top.shape[1]
        found = [top - self.reach * strings * self.readout.hand_down(step.readout, top.shape)]
        for k in range(len(self.network), 1, -1):
            layer, state = self.network.layers[k - 1], step.states[k - 1]
            there, here = (self.inverse(k, layer.by_group(z))[0] for z in (found[0], state.out_RBDC))
            found.insert(0, step.states[k - 2].out_RBDC + layer.unfold(there - here, strings))
        return found

    def layer_updates(self, step: Step) -> Updates:
        with full_precision(step.batch.x_RBD):
            updates, losses = [], {}
            for k, (layer, state, target) in enumerate(
                zip(self.network.layers, step.states, self.targets(step), strict=True), 1
            ):
                missed = (state.out_RBDC - target) / (self.reach * target.shape[1])
                updates.append(layer.backward(state, missed)[0])
                if k > 1:
                    inverse, losses[f"loss/inverse{k}"] = self.inverse_update(step, k, state)
                    updates[-1] |= inverse
            return Updates(updates, losses=losses)

    def inverse_update(self, step: Step, k: int, state: LayerState) -> tuple[LayerUpdate, Tensor]:
        """Gradients of ``V_k`` and ``c_k``, and their loss ``[R]``."""
        layer, strings = self.network.layers[k - 1], state.out_RBDC.shape[1]
        h = layer.unfold(state.input_RGMF, strings)
        x_RBDC = h + self.sigma * self.noise(step.batch, f"inverse {k}", tuple(h.shape[2:]))
        z_RGME, x_RGMF = layer.by_group(layer(x_RBDC).out_RBDC), layer.fold(x_RBDC)
        found, slope = self.inverse(k, z_RGME)
        missed = (found - x_RGMF) / strings
        delta = slope * missed
        update = {"inverse_RGEF": multiply(z_RGME.transpose(-1, -2), delta), "inverse_bias_RG1F": delta.sum(-2, keepdim=True)}
        return update, strings * missed.square().sum((1, 2, 3)) / 2

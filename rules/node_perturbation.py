"""Learning from a scalar: noise that made the loss smaller is made permanent.

Shape suffixes: R replica, B batch, D position, E units.
"""

from __future__ import annotations

import torch

from datamodules import Batch
from networks import LayerUpdate
from rhm import InvalidInput
from rules.local_rule import Locality, LocalRule, NetworkConfig, OptimizerCallable, Step, default_network


class NodePerturbation(LocalRule):
    """Node perturbation (Williams 1992; Fiete, Seung 2006): ``dW_l = -eta (loss' - loss) / sigma^2 xi_l h_{l-1}^T``.

    ``loss'`` is a string's loss when every pre-activation of every layer has noise ``xi ~ N(0, sigma^2)`` at once. On average
    over the noise this is the gradient, up to order ``sigma^2``; its variance grows with the number of units.

    A layer sees its own noise and one number a string, the change of the loss, which the output broadcasts.

    Args:
        network, optimizer, clip: see :class:`rules.local_rule.LocalRule`.
        sigma: standard deviation of the noise.

    Raises:
        InvalidInput: ``sigma`` not above 0; a network with a bottleneck, whose projection has no unit to perturb.
    """

    family = "feedback"
    takes_vectors = False
    source = "Williams 1992; Fiete, Seung 2006"
    knowledge = "labels"
    locality = Locality(label=True, output_error=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        sigma: float = 0.01,
    ):
        super().__init__(network, optimizer, clip)
        if sigma <= 0:
            raise InvalidInput("model.sigma", sigma, "a number above 0")
        self.sigma = sigma

    def build(self) -> None:
        if self.network_config.bottleneck is not None:
            raise InvalidInput("model.network.bottleneck", self.network_config.bottleneck, "null for NodePerturbation")

    def compute(self, batch: Batch) -> Step:
        step, noisy = super().compute(batch), []
        h_RBDC = self.network.encode(batch.x_RBD)
        for k, layer in enumerate(self.network.layers, 1):
            units = layer.weight_RGFE.shape[-1]
            noise = self.sigma * self.noise(batch, k, (self.network.positions[k - 1], units))
            noisy.append(layer(h_RBDC, layer.by_group(noise)))
            h_RBDC = noisy[-1].out_RBDC
        return step._replace(view_states=noisy, view_readout=self.readout(h_RBDC, batch.y_RB))

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        assert step.view_readout is not None
        change_RB = step.view_readout.loss_RB - step.readout.loss_RB
        updates = []
        for k, (layer, state) in enumerate(zip(self.network.layers, step.states, strict=True), 1):
            noise = self.sigma * self.noise(step.batch, k, (self.network.positions[k - 1], layer.weight_RGFE.shape[-1]))
            delta_RBDE = change_RB[:, :, None, None] / (self.sigma**2 * change_RB.shape[1]) * noise
            updates.append(layer.hebbian(state, layer.by_group(delta_RBDE.to(state.pre_RGNE.dtype))))
        return updates

"""Node perturbation: all units are jittered, and what made the loss grow is unlearned.

Shape suffixes: R replica, B batch, D position, C channel; G groups of positions, M rows, F inputs, E units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules import Batch
from networks import LayerUpdate, multiply
from rhm import InvalidInput
from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.maths.precision import full_precision


class NodePerturbation(LocalRule):
    """Node perturbation (Williams 1992; Werfel et al. 2005): ``dW_l = -lr (loss' - loss) / sigma^2 * nu_l h_{l-1}^T``.

    An update is a mean over strings. ``loss'`` is a string's loss in a second pass with noise ``nu ~ N(0, sigma^2)`` at all
    pre-activations at once, drawn for each string, position and unit. As ``sigma`` goes to 0 the mean over noise is the
    gradient of the loss, with a variance that grows with the number of units. All that reaches a layer from outside is one
    scalar a string. No mask: noise at ``a_l`` has passed it.

    With a bottleneck the projection is jittered too, with noise of its own before it is normalised, and learns alike from
    the units of the clean pass. The readout learns by its own exact gradient. Presynaptic activity is the clean pass's;
    other authors take the noisy pass's, which differs by order ``sigma``. Both passes run in full precision, as the losses
    differ little.

    Its gradient is noisy, and 1,500 steps are few: with normalised layers, AdamW, weight decay .1 and a falling rate of
    3e-3 they come to .38 and .41 at 1,408 and 5,632 strings, L = 3 (docs/rules-at-their-best.md).

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        sigma: standard deviation of the noise.

    Raises:
        InvalidInput: ``sigma`` not above 0.
    """

    source = "Williams 1992; Werfel, Xie, Seung 2005"
    family = "feedback"
    takes_vectors = False
    knowledge = "labels"
    locality = Locality(scalar_error=True)

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

    def perturbation(self, batch: Batch, k: int) -> tuple[Tensor, Tensor | None]:
        """Unit noise at the pre-activations of layer ``k`` from 1, ``[R, B, D, E]``, and at its projection, ``[R, B, D,
        C]``."""
        layer, positions = self.network.layers[k - 1], self.network.positions[k - 1]
        units = self.noise(batch, f"units {k}", (positions, layer.weight_RGFE.shape[-1]))
        if layer.projection_RGEC is None:
            return units, None
        return units, self.noise(batch, f"projection {k}", (positions, layer.out_channels))

    def compute(self, batch: Batch) -> Step:
        """The clean and the noisy pass: the second one gives ``view_states`` and ``view_readout``."""
        with full_precision(batch.x_RBD):
            h = self.network.encode(batch.x_RBD)
            states = self.network.forward_from(0, h)
            noisy = []
            for k, layer in enumerate(self.network.layers, 1):
                noise = [None if nu is None else self.sigma * layer.by_group(nu) for nu in self.perturbation(batch, k)]
                noisy.append(layer(h, *noise))
                h = noisy[-1].out_RBDC
            readouts = [self.readout(out, batch.y_RB) for out in (states[-1].out_RBDC, h)]
        return Step(batch, states, noisy, *readouts)

    def layer_updates(self, step: Step) -> Updates:
        assert step.view_readout is not None
        change_RB11 = (step.view_readout.loss_RB - step.readout.loss_RB)[..., None, None]
        factor = change_RB11 / (self.sigma * change_RB11.shape[1])
        updates: list[LayerUpdate] = []
        for k, (layer, state) in enumerate(zip(self.network.layers, step.states, strict=True), 1):
            units, projection = self.perturbation(step.batch, k)
            update = layer.hebbian(state, layer.by_group(factor * units))
            if projection is not None:
                update["projection_RGEC"] = multiply(state.units_RGME.transpose(-1, -2), layer.by_group(factor * projection))
            updates.append(update)
        return Updates(updates)

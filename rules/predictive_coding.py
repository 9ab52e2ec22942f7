"""Predictive coding: activities settle between what is predicted from below and what the answer asks for, then weights learn.

Shape suffixes: R replica, B batch, D position, C channel; G groups of positions, M rows, F inputs, E units.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules import Batch
from networks import LayerState, LayerUpdate
from rhm import InvalidInput
from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.maths.precision import full_precision


class PredictiveCoding(LocalRule):
    """Supervised predictive coding (Whittington, Bogacz 2017): settle ``z_l``, then ``dW_l = -lr/nudge dF/dW_l``.

    ``F = sum_l 1/2 |eps_l|^2 + nudge CE(z_L)``, ``eps_l = z_l - f_l(z_{l-1})``, ``f_l`` a layer with all that it has.
    Activities start at the forward pass and go down ``F`` in ``steps`` steps for each batch, all layers at once:

        z_l <- z_l - rate (eps_l - J_{l+1}^T eps_{l+1}),    z_L <- z_L - rate (eps_L + nudge W_o e(z_L)),

    with ``J_{l+1} = df_{l+1}/dz_l`` at the settled activity, masks included. As the nudge tends to 0, ``eps_l / nudge`` of
    activities that have settled tends to backpropagation's ``-delta_l``; one step carries the error one layer down, so that
    fewer steps than layers leave the lowest ones without. The authors clamp the output and have squared errors there; with
    cross-entropy the output's energy is that of its prediction (Pinchetti et al. 2022), and ``nudge`` its weight. Weights
    learn once a batch, from settled activity on both sides; the readout learns by its own gradient from the forward pass.

    Kind: the second (the errors come down through the transposed weights, and activities settle): each batch takes ``steps``
    passes up and down, 20 unless set otherwise. That is a start: in networks of 12 ReLUs, L = 3, a thirtieth of the slope was
    left after 200. A normalised output needs a smaller ``rate``. ``loss/energy`` is ``F`` at the end, ``loss/unsettled`` the
    length of ``dF/dz`` there over that at the start; 0 is an equilibrium.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        steps: of settling, for each batch.
        rate: of settling.
        nudge: weight of the output's loss.

    Raises:
        InvalidInput: ``steps`` under 1; ``rate`` or ``nudge`` not above 0; vector units.
    """

    source = "Whittington, Bogacz 2017, doi 10.1162/NECO_a_00949; Pinchetti et al. 2022, arXiv 2211.03481"
    family = "feedback"
    takes_vectors = False
    knowledge = "labels"
    locality = Locality(error=True, other_layers=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        steps: int = 20,
        rate: float = 0.2,
        nudge: float = 1.0,
    ):
        super().__init__(network, optimizer, clip)
        if steps < 1:
            raise InvalidInput("model.steps", steps, "an integer of at least 1: activities settle in so many steps")
        for key, value in ("rate", rate), ("nudge", nudge):
            if value <= 0:
                raise InvalidInput(f"model.{key}", value, "a number above 0")
        self.steps, self.settling_rate, self.nudge = steps, rate, nudge
        self.locality = self.locality.through_output(network)

    def compute(self, batch: Batch) -> Step:
        """The forward pass and, as view, the settled one: a layer's prediction is in its state, its activity in the next one's
        input, the top layer's in the readout's features."""
        with full_precision(batch.x_RBD):
            states = self.network(batch.x_RBD)
            z = [state.out_RBDC for state in states]
            for _ in range(self.steps):
                z = [
                    activity - self.settling_rate * slope
                    for activity, slope in zip(z, self.slopes(states, z, batch), strict=True)
                ]
            answer = self.readout(states[-1].out_RBDC, batch.y_RB)
            return Step(batch, states, self.predictions(states, z), answer, self.readout(z[-1], batch.y_RB))

    def predictions(self, states: list[LayerState], z_RBDC: list[Tensor]) -> list[LayerState]:
        """Each layer's state for the activity below it."""
        return [states[0], *(layer(z) for layer, z in zip(list(self.network.layers)[1:], z_RBDC[:-1], strict=True))]

    def slopes(self, states: list[LayerState], z_RBDC: list[Tensor], batch: Batch) -> list[Tensor]:
        """``dF/dz_l`` of each layer's activity, string by string."""
        predicted = self.predictions(states, z_RBDC)
        errors = [z - state.out_RBDC for z, state in zip(z_RBDC, predicted, strict=True)]
        answer = self.readout(z_RBDC[-1], batch.y_RB)
        strings = z_RBDC[0].shape[1]
        found = [errors[-1] + self.nudge * strings * self.readout.hand_down(answer, z_RBDC[-1].shape)]
        for k in range(len(self.network) - 1, 0, -1):
            layer, state = self.network.layers[k], predicted[k]
            signal = layer.activation.masked(layer.backward_output(state, errors[k])[1], state.pre_RGME)
            found.insert(0, errors[k - 1] - layer.hand_down(signal, strings))
        return found

    def layer_updates(self, step: Step) -> Updates:
        assert step.view_states is not None and step.view_readout is not None
        updates: list[LayerUpdate] = []
        for layer, state, error in zip(self.network.layers, step.view_states, self.errors(step), strict=True):
            updates.append(layer.backward(state, -error / (self.nudge * error.shape[1]))[0])
        return Updates(updates, losses=self.losses(step))

    def activities(self, step: Step) -> list[Tensor]:
        """``z_l``, ``[R, B, D, C]``."""
        assert step.view_states is not None and step.view_readout is not None
        inputs = zip(list(self.network.layers)[1:], step.view_states[1:], strict=True)
        below = [layer.unfold(state.input_RGMF, step.batch.x_RBD.shape[1]) for layer, state in inputs]
        return [*below, step.view_readout.features_RBF.view(step.view_states[-1].out_RBDC.shape)]

    def errors(self, step: Step) -> list[Tensor]:
        """``eps_l``, ``[R, B, D, C]``."""
        assert step.view_states is not None
        return [z - state.out_RBDC for z, state in zip(self.activities(step), step.view_states, strict=True)]

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The energy, and how much is left of the slope along which activities have settled."""
        assert step.view_readout is not None
        energies = [error.square().sum((2, 3)).mean(1) / 2 for error in self.errors(step)]
        energy_R = torch.stack(energies).sum(0) + self.nudge * step.view_readout.loss_R
        at_start = self.nudge * self.readout.hand_down(step.readout, step.states[-1].out_RBDC.shape)
        left = torch.cat([slope.flatten(1) for slope in self.slopes(step.states, self.activities(step), step.batch)], 1)
        unsettled_R = left.norm(dim=1) / (len(at_start[0]) * at_start.flatten(1).norm(dim=1))
        return {"loss/energy": energy_R, "loss/unsettled": unsettled_R}

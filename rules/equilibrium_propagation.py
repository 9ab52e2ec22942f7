"""Equilibrium propagation: a network that settles freely, and again with its answer nudged; weights learn from the difference.

Shape suffixes: R replica, B batch, D position, C channel; G groups of positions, M rows, E units.
"""

from __future__ import annotations

import torch
from jsonargparse import lazy_instance
from torch import Tensor

from datamodules import Batch
from networks import HierarchicalNetwork, LayerState, LayerUpdate
from rhm import InvalidInput
from rules.base.contract import Locality, Step, Updates, add
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable
from rules.maths.precision import full_precision

tanh_network = lazy_instance(HierarchicalNetwork, activation="tanh")


class EquilibriumPropagation(LocalRule):
    """Equilibrium propagation (Scellier, Bengio 2017), nudged both ways (Laborieux et al. 2021).

    ``dW_l = -lr (s_l- s_{l-1}-^T - s_l+ s_{l-1}+^T) / (2 nudge)``, ``s+`` and ``s-`` at rest with the loss nudged by ``+nudge``
    and ``-nudge``. Activities lower ``E = sum_l G(s_l) - s_l . (W_l s_{l-1} + b_l) +- nudge CE(W_o s_L)``, ``G' = tanh^-1``:
    one layer after the other, from the first, goes to where the others, as they stand, want it,

        s_l <- tanh(W_l s_{l-1} + b_l + W_{l+1}^T s_{l+1}),    s_L <- tanh(W_L s_{L-1} + b_L -+ nudge W_o e(s_L)).

    Without a nudge that is its lowest point, so that the energy falls with each sweep and there is always a rest. At rest, as
    the nudge tends to 0, the update is the gradient of the loss *of the settled network*. That network answers, in tests too,
    and its readout learns by its own gradient from the free rest. The classifier stands outside the free energy, as in
    Laborieux et al.; units are tanh in the place of their clipped ones: both are bounded, ReLUs would not come to rest.
    A layer's activity is what its network computes, settling included: with the rests given, an update sees nothing else.

    Kind: the second (errors come down through the transposed weights, and activities settle): each batch takes ``free_steps``
    sweeps of all layers and then ``nudged_steps`` for each sign, 20 + 2 x 8 unless set otherwise; a test string ``free_steps``.
    ``loss/unsettled`` is how far a further free sweep would move activities, over their length.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`; the network has tanh units and neither
            normalisation nor a bottleneck.
        free_steps, nudged_steps: sweeps.
        nudge: weight of the loss.

    Raises:
        InvalidInput: steps under 1; ``nudge`` not above 0; another network.
    """

    source = "Scellier, Bengio 2017, arXiv 1602.05179; Laborieux et al. 2021, arXiv 2006.03824"
    family = "feedback"
    takes_vectors = False
    knowledge = "labels"
    locality = Locality(error=True)

    def __init__(
        self,
        network: NetworkConfig = tanh_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        free_steps: int = 20,
        nudged_steps: int = 8,
        nudge: float = 0.2,
    ):
        super().__init__(network, optimizer, clip)
        for key, value in ("free_steps", free_steps), ("nudged_steps", nudged_steps):
            if value < 1:
                raise InvalidInput(f"model.{key}", value, "an integer of at least 1: activities settle in so many sweeps")
        if nudge <= 0:
            raise InvalidInput("model.nudge", nudge, "a number above 0")
        self.free_steps, self.nudged_steps, self.nudge = free_steps, nudged_steps, nudge

    def check_network(self) -> None:
        super().check_network()
        network, name = self.network_config, type(self).__name__
        if network.activation != "tanh":
            raise InvalidInput("model.network.activation", network.activation, f"tanh for {name}: activities must come to rest")
        if network.bottleneck is not None:
            raise InvalidInput("model.network.bottleneck", network.bottleneck, f"null for {name}, whose energy has none")
        if network.normalise:
            raise InvalidInput("model.network.normalise", True, f"false for {name}, whose energy has no normalisation")

    def forward(self, x_RBD: Tensor) -> list[LayerState]:
        """The free rest: what the network answers with."""
        x_RBDC = self.network.encode(x_RBD)
        start = [state.out_RBDC for state in self.network.forward_from(0, x_RBDC)]
        return self.sweeps(x_RBDC, start, self.free_steps)

    def sweeps(
        self, x_RBDC: Tensor, s_RBDC: list[Tensor], steps: int, nudge: float = 0.0, y_RB: Tensor | None = None
    ) -> list[LayerState]:
        """The layers' states after some sweeps from given activities, with a weight of each string's loss."""
        states: list[LayerState] = []
        for _ in range(steps):
            below, states = x_RBDC, []
            for k, layer in enumerate(self.network.layers):
                above = self.from_above(s_RBDC, k, nudge, y_RB)
                states.append(layer(below, None if above is None else layer.by_group(above)))
                below = states[-1].out_RBDC
            s_RBDC = [state.out_RBDC for state in states]
        return states

    def from_above(self, s_RBDC: list[Tensor], k: int, nudge: float, y_RB: Tensor | None) -> Tensor | None:
        """What a layer, from 0, hears of the next one's activity, or of the loss."""
        strings = s_RBDC[k].shape[1]
        if k + 1 < len(s_RBDC):
            layer = self.network.layers[k + 1]
            return layer.hand_down(layer.by_group(s_RBDC[k + 1]), strings)
        if y_RB is None:
            return None
        return -nudge * strings * self.readout.hand_down(self.readout(s_RBDC[k], y_RB), s_RBDC[k].shape)

    def compute(self, batch: Batch) -> Step:
        """The free rest; as views that with the loss nudged up and, after them, down."""
        with full_precision(batch.x_RBD):
            states, x_RBDC = self(batch.x_RBD), self.network.encode(batch.x_RBD)
            free = [state.out_RBDC for state in states]
            up, down = (self.sweeps(x_RBDC, free, self.nudged_steps, sign * self.nudge, batch.y_RB) for sign in (1.0, -1.0))
            views = [joined(*ends) for ends in zip(up, down, strict=True)]
            return Step(batch, states, views, self.readout(states[-1].out_RBDC, batch.y_RB))

    def layer_updates(self, step: Step) -> Updates:
        assert step.view_states is not None
        updates, size = [], step.batch.y_RB.shape[1]
        for layer, both in zip(self.network.layers, step.view_states, strict=True):
            update: LayerUpdate = {}
            for sign, state in zip((1.0, -1.0), layer.split(both, size), strict=True):
                add(update, layer.hebbian(state, -sign * state.units_RGME / (2 * self.nudge * size)))
            updates.append(update)
        return Updates(updates, losses={"loss/unsettled": self.unsettled(step)})

    def unsettled(self, step: Step) -> Tensor:
        """How far one more free sweep moves activities, over their length, ``[R]``."""
        before = [state.out_RBDC for state in step.states]
        after = self.sweeps(self.network.encode(step.batch.x_RBD), before, 1)
        moved = torch.cat([(state.out_RBDC - s).flatten(1) for state, s in zip(after, before, strict=True)], 1)
        return moved.norm(dim=1) / torch.cat([s.flatten(1) for s in before], 1).norm(dim=1)

    def end_to_end(self, step: Step) -> Updates:
        """Backpropagation of the same weights in one pass forward: the network that does not settle, to compare with."""
        return super().end_to_end(self.one_pass(step))

    def top_errors(self, step: Step) -> list[tuple[list[LayerState], Tensor]]:
        return super().top_errors(self.one_pass(step))

    def one_pass(self, step: Step) -> Step:
        """The strings without settling."""
        return super().compute(step.batch)


def joined(first: LayerState, second: LayerState) -> LayerState:
    """The states of some strings and, after them, of others: what :meth:`networks.Layer.split` takes apart."""
    inner = [None if a is None or b is None else torch.cat([a, b], 2) for a, b in zip(first[:-1], second[:-1], strict=True)]
    return LayerState._make([*inner, torch.cat([first.out_RBDC, second.out_RBDC], 1)])

"""One error vector for all units: global error-vector broadcasting.

Shape suffixes: R replica, B batch, D position, C channel, N classes; G groups of positions, F inputs, E units, K components of
a unit.
"""

from __future__ import annotations

import torch
from jsonargparse import lazy_instance

from networks import LayerUpdate, VectorNetwork
from rhm import InvalidInput
from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable

vector_network = lazy_instance(VectorNetwork)


class GlobalErrorVectorBroadcast(LocalRule):
    """GEVB (Clark, Abbott, Chung 2021, eq. 7): ``dw_ij = -eta m_i (h_j . e)``.

    The network has vector units with one component a class; a weight changes by the agreement of the presynaptic vector with
    the output error, if the postsynaptic gate ``m_i`` is open. No feedback weights: with non-negative weights above the first
    layer a string's true gradient is this times a non-negative number for each unit and position, the sum over open paths
    to the output, so that signs agree string by string; sums over strings need not. After each step these weights, and the
    readout's, are cut off at 0, as in the authors' last code (an earlier one takes absolute values).

    Args:
        network: a :class:`networks.vector.VectorNetwork` without signed weights.
        optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.

    Raises:
        InvalidInput: another network, or signed weights.
    """

    family = "feedback"
    source = "Clark, Abbott, Chung 2021, arXiv 2106.04089"
    knowledge = "labels"
    locality = Locality(error=True)

    def __init__(
        self,
        network: NetworkConfig = vector_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
    ):
        super().__init__(network, optimizer, clip)
        if not isinstance(network, VectorNetwork):
            raise InvalidInput("model.network", type(network).__name__, "VectorNetwork for GlobalErrorVectorBroadcast")
        if network.signed:
            raise InvalidInput("model.network.signed", True, "false for GlobalErrorVectorBroadcast")

    def layer_updates(self, step: Step) -> Updates:
        error_RBK = step.readout.error_RBN / step.readout.error_RBN.shape[1]
        updates: list[LayerUpdate] = []
        for layer, state in zip(self.network.layers, step.states, strict=True):
            batch, positions, channels = state.out_RBDC.shape[1:]
            every_unit = error_RBK.repeat(1, 1, channels // error_RBK.shape[-1])  # the same vector for each
            signal_RBDC = every_unit[:, :, None].expand(-1, batch, positions, channels)
            updates.append(layer.backward(state, signal_RBDC.to(state.out_RBDC.dtype))[0])
        return Updates(updates)

    @torch.no_grad()
    def after_step(self) -> None:
        for layer in self.network.layers[1:]:
            layer.weight_RGFE.clamp_(min=0)
        self.readout.weight_RFN.clamp_(min=0)

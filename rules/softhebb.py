"""Competitive Hebbian learning without labels, pairs or errors.

Shape suffixes: R replica; G groups of positions, M rows, F inputs, E units.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from networks import MOMENTUM, LayerUpdate, moments, multiply
from rhm import InvalidInput
from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network

SILENT = 1e-30
"""Shares of a softmax up to which a unit is silent: smaller ones become numbers that a CPU multiplies ten times as slowly."""


class SoftHebbDescent(torch.optim.Adam):
    """The steps of Journe et al. 2023: ``W_k += eta |1 - |W_k||^q dW_k / max |dW|``, and Adam for the readout.

    The largest entry is that of a layer in one replica; what a rank or a replica sees of others does not matter, as the steps
    are made of gradients that are averaged already.

    Args:
        params: parameter groups by name, the last of them ``readout``.
        lr: of the readout.
        eta: of the layers; with 0 they stay as they are.
        norm_power: ``q``; with 0 a unit's rate does not depend on its length.

    Raises:
        InvalidInput: a negative rate or power.
    """

    def __init__(self, params: list[dict[str, Any]], lr: float = 1e-2, eta: float = 1e-2, norm_power: float = 0.5):
        for key, value in ("eta", eta), ("norm_power", norm_power):
            if value < 0:
                raise InvalidInput(f"model.optimizer.{key}", value, "0 or more")
        rates = [lr if group["name"] == "readout" else eta for group in params]
        groups = [{**group, "lr": rate, "norm_power": norm_power} for group, rate in zip(params, rates, strict=True)]
        super().__init__(groups, lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make the step; the layers' gradients are used up."""
        for group in self.param_groups:
            for weight in group["params"] if group["name"] != "readout" else []:
                if weight.grad is not None:
                    largest_R = weight.grad.abs().flatten(1).amax(1).clamp_min(1e-30)
                    rate_RG1E = group["lr"] * (1 - weight.norm(dim=-2, keepdim=True)).abs() ** group["norm_power"]
                    weight -= rate_RG1E * weight.grad / largest_R[:, None, None, None]
                    weight.grad = None
        return super().step(closure)


class SoftHebb(LocalRule):
    """SoftHebb (Moraitis et al. 2022, eq. 4; Journe et al. 2023): ``dW_ik = eta s_k y_k (x_i - u_k W_ik)``.

    ``u = W^T x``, ``y = softmax(u / t)`` over the units of a position, ``s_k = -1`` for all units but the most active one if
    losers unlearn (Journe et al. 2023), else 1. A mean over strings and the positions that share weights. Without unlearning
    the weights tend to unit length. What is handed on is not ``y`` but the network's own activation of ``a = u + b``; the bias
    does not learn. Journe et al. hand on ``relu(u - mean u)^p``, standardise each layer's input, divide the update by its
    largest entry and scale the rate by a unit's distance from unit length; that is left to the network and the optimizer.

    On the Random Hierarchy Model the authors' network and steps are ahead of ReLUs and Adam, but not of the same network with
    layers that stay random (``eta`` 0): what is gained is the network's (docs/rules-at-their-best.md).

    A bottleneck's projection stays random.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        temperature: ``t``.
        losers_unlearn: whether all units but the winner learn with the opposite sign.

    Raises:
        InvalidInput: a temperature not above 0; a network of vector units.
    """

    family = "self-supervised"
    knowledge = "none"
    takes_vectors = False
    takes_competition = True
    source = "Moraitis et al. 2022, arXiv 2107.05747; Journe et al. 2023, arXiv 2209.11883"
    locality = Locality(lateral=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        temperature: float = 1.0,
        losers_unlearn: bool = False,
    ):
        super().__init__(network, optimizer, clip)
        if temperature <= 0:
            raise InvalidInput("model.temperature", temperature, "a number above 0")
        self.temperature, self.losers_unlearn = temperature, losers_unlearn
        self.rate = MOMENTUM

    def layer_updates(self, step: Step) -> Updates:
        updates: list[LayerUpdate] = []
        for layer, state in zip(self.network.layers, step.states, strict=True):
            u = (state.pre_RGME - layer.bias_RG1E).to(layer.bias_RG1E.dtype)
            y = functional.threshold(torch.softmax(u / self.temperature, -1), SILENT, 0.0)
            if self.losers_unlearn:
                winner = u.argmax(-1, keepdim=True)
                y = (-y).scatter(-1, winner, y.gather(-1, winner))
            y = y / y.shape[2]
            attraction = multiply(state.input_RGMF.transpose(-1, -2), y.to(state.input_RGMF.dtype))
            updates.append({"weight_RGFE": (y * u).sum(2, keepdim=True) * layer.weight_RGFE - attraction})
        return Updates(updates, moments(self.network.layers, step.states))

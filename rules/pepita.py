"""PEPITA: a second forward pass whose input is modulated by the error; layers learn from how they change.

Shape suffixes: R replica, B batch, D position, C channel, N classes; G groups of positions, M rows, E units, F = D * C.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from datamodules import Batch
from networks import Layer, LayerState, LayerUpdate, multiply
from rhm import InvalidInput
from rhm.hashing import normal
from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.maths.feedback import broadcast_error
from rules.maths.plasticity import check_form
from rules.maths.precision import full_precision


class Pepita(LocalRule):
    """PEPITA (Dellaferrera, Kreiman 2022): ``dW_l = -lr (h_l - h'_l) h'_{l-1}^T``.

    ``h'`` comes from a second pass with input ``x + F e``. No mask and no backward pass: the error comes in at the input.
    ``h_l`` are the layer's units, also where it normalises them; a bottleneck's projection learns alike, ``-lr (z_l - z'_l)
    h'_l^T`` with what the layer hands on. Biases, which the authors do not have, learn as weights of an input of 1. The
    readout learns from the first pass by its own error; the authors' dense code takes the second pass's, their
    convolutional code the first's.

    Fixed: ``F``, random. Sources disagree about the sign: the paper has ``x + F e``, the follow-up of Srinivasan et al.
    (2024), as we remember it, ``x - F e``, and the authors' convolutional code the opposite update. By a linear argument
    the readout comes to suit either sign. Both passes run in full precision, as their difference is small.

    Tried: normalised layers with AdamW, weight decay .1 and a falling rate of 3e-3 (.39 and .49 at 1,408 and 5,632 strings,
    L = 3) and 1e-2 (.37, .48); the settings file has the first (docs/rules-at-their-best.md).

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        feedback_scale: standard deviation of ``F`` times ``sqrt(inputs / 2)``; the authors have .05.
        form: ``explicit`` products of local factors, or ``autograd`` of ``<a'_l, h_l - h'_l>``; both give the same update.

    Raises:
        InvalidInput: ``feedback_scale`` not above 0; an unknown form.
    """

    source = "Dellaferrera, Kreiman 2022, arXiv 2201.11665"
    family = "feedback"
    takes_vectors = False
    knowledge = "labels"
    locality = Locality(error=True)
    feedback_RNF: Tensor

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        feedback_scale: float = 0.05,
        form: str = "explicit",
    ):
        super().__init__(network, optimizer, clip)
        if feedback_scale <= 0:
            raise InvalidInput("model.feedback_scale", feedback_scale, "a number above 0")
        check_form(form)
        self.feedback_scale, self.form = feedback_scale, form

    def build(self) -> None:
        first = self.network.layers[0]
        inputs = self.data.task.length * (first.weight_RGFE.shape[2] // first.patch)
        scale = self.feedback_scale * math.sqrt(2 / inputs)
        feedback = normal(self.keys_R("feedback"), (self.data.task.n, inputs)) * scale
        self.register_buffer("feedback_RNF", feedback.to(torch.get_default_dtype()))

    def compute(self, batch: Batch) -> Step:
        """Both passes: the second one is the step's ``view_states``."""
        with full_precision(batch.x_RBD):
            x_RBDC = self.network.encode(batch.x_RBD)
            states = self.network.forward_from(0, x_RBDC)
            readout = self.readout(states[-1].out_RBDC, batch.y_RB)
            modulation = broadcast_error(readout.error_RBN, self.feedback_RNF, x_RBDC.shape)
            return Step(batch, states, self.network.forward_from(0, x_RBDC + modulation), readout)

    def layer_updates(self, step: Step) -> Updates:
        assert step.view_states is not None
        update = explicit_update if self.form == "explicit" else autograd_update
        return Updates([update(*layer) for layer in zip(self.network.layers, step.states, step.view_states, strict=True)])


def changes(layer: Layer, first: LayerState, second: LayerState) -> tuple[Tensor, Tensor]:
    """``h - h'`` of the units ``[R, G, M, E]`` and of what the layer hands on ``[R, G, M, C]``, over the number of strings."""
    strings = first.out_RBDC.shape[1]
    return (first.units_RGME - second.units_RGME) / strings, layer.by_group(first.out_RBDC - second.out_RBDC) / strings


def explicit_update(layer: Layer, first: LayerState, second: LayerState) -> LayerUpdate:
    """``(h - h') h'^T`` of presynaptic activity and postsynaptic change."""
    units, out = changes(layer, first, second)
    update = layer.hebbian(second, units)
    if layer.projection_RGEC is not None:
        update["projection_RGEC"] = multiply(second.units_RGME.transpose(-1, -2), out)
    return update


def autograd_update(layer: Layer, first: LayerState, second: LayerState) -> LayerUpdate:
    """The same as gradient of ``<a', h - h'> + <U h', z - z'>``, the differences and the presynaptic activity held fixed."""
    units, out = changes(layer, first, second)
    own = {name: p for name, p in layer.named_parameters() if name in Layer.OWN}
    with torch.enable_grad():
        again = layer(layer.unfold(second.input_RGMF, second.out_RBDC.shape[1]).detach())
        total = (again.pre_RGME * units).sum()
        if layer.projection_RGEC is not None:
            total = total + (multiply(again.units_RGME.detach(), layer.projection_RGEC) * out).sum()
        return dict(zip(own, torch.autograd.grad(total, list(own.values())), strict=True))

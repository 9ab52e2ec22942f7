"""Two forward passes: the second shows the input with the first one's error added, and a layer learns from the difference.

Shape suffixes: R replica, B batch, D position, C channel, N classes; N rows and E units of a layer's matrix product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from datamodules import Batch
from networks import Layer, LayerState, LayerUpdate
from rhm import InvalidInput
from rules.feedback import broadcast_error, random_feedback
from rules.local_rule import Locality, LocalRule, NetworkConfig, OptimizerCallable, Step, default_network


class Pepita(LocalRule):
    """PEPITA (Dellaferrera, Kreiman 2022): ``dW_l = -eta (h_l - h_l^err) (h_{l-1}^err)^T``, ``h_0^err = x + F e``.

    No mask and no backward pass. Fixed: ``F``, random. The readout learns from the first pass (the authors' code uses the first
    pass in one place and the second in another). A sign of ``F e`` is a convention, since ``F`` is symmetric around zero.

    Args:
        network, optimizer, clip: see :class:`rules.local_rule.LocalRule`.
        feedback_scale: the standard deviation of ``F`` times ``sqrt(n)``.
        form: ``explicit`` products, or ``autograd`` of ``<a_l(h^err), h - h^err>``; both give the same update.

    Raises:
        InvalidInput: ``feedback_scale`` not above 0; an unknown form; a network with a bottleneck, since the rule has one
            matrix a layer.
    """

    family = "feedback"
    takes_vectors = False
    source = "Dellaferrera, Kreiman 2022, arXiv 2201.11665"
    knowledge = "labels"
    locality = Locality(label=True, output_error=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        feedback_scale: float = 0.5,
        form: str = "explicit",
    ):
        super().__init__(network, optimizer, clip)
        if feedback_scale <= 0:
            raise InvalidInput("model.feedback_scale", feedback_scale, "a number above 0")
        if form not in ("explicit", "autograd"):
            raise InvalidInput("model.form", form, "explicit or autograd")
        self.feedback_scale, self.form = feedback_scale, form

    def build(self) -> None:
        if self.network_config.bottleneck is not None:
            raise InvalidInput("model.network.bottleneck", self.network_config.bottleneck, "null for Pepita")
        first, n = self.network.layers[0], self.data.task.n
        channels = first.weight_RGFE.shape[2] // first.patch
        positions = first.patch * self.network.positions[0]
        self.register_buffer("feedback", random_feedback(self.keys_R("F"), n, positions, channels, self.feedback_scale))

    def compute(self, batch: Batch) -> Step:
        x_RBDC = self.network.encode(batch.x_RBD)
        states = self.network.forward_from(0, x_RBDC)
        readout = self.readout(states[-1].out_RBDC, batch.y_RB)
        modulated = x_RBDC + broadcast_error(readout.error_RBN, self.get_buffer("feedback"), x_RBDC.shape)
        return Step(batch, states, self.network.forward_from(0, modulated.to(x_RBDC.dtype)), readout)

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        assert step.view_states is not None
        update = {"explicit": Layer.hebbian, "autograd": autograd_hebbian}[self.form]
        triples = zip(self.network.layers, step.states, step.view_states, strict=True)
        strings = step.batch.y_RB.shape[1]
        return [update(layer, err, (clean.units_RGNE - err.units_RGNE) / strings) for layer, clean, err in triples]


def autograd_hebbian(layer: Layer, state: LayerState, delta_RGNE: Tensor) -> LayerUpdate:
    """What :meth:`networks.Layer.hebbian` returns, by autograd of ``<a, delta>`` with the layer run again."""
    parameters = {"weight_RGFE": layer.weight_RGFE, "bias_RG1E": layer.bias_RG1E}
    with torch.enable_grad():
        pre = layer(layer.unfold(state.input_RGNF, state.out_RBDC.shape[1])).pre_RGNE
        grads = torch.autograd.grad((pre * delta_RGNE).sum(), list(parameters.values()))
    return dict(zip(parameters, grads, strict=True))

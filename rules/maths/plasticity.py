"""The two forms of a layer's update for a signal at its output: a product of local factors, and autograd of a scalar.

Shape suffixes: R replica, B batch, D position, C channel; G groups of positions that share weights, M rows, F inputs, E units.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from networks import Layer, LayerState, LayerUpdate, multiply
from rhm import InvalidInput


def autograd_backward(
    layer: Layer, state: LayerState, grad_RBDC: Tensor, projection_RGEC: Tensor | None = None
) -> tuple[LayerUpdate, Tensor]:
    """What :meth:`networks.Layer.backward` returns, by autograd of ``<output, signal>`` with the layer run again."""
    with torch.enable_grad():
        h = layer.unfold(state.input_RGMF, state.out_RBDC.shape[1]).detach()
        own = {name: p for name, p in layer.named_parameters() if name in Layer.OWN}
        if projection_RGEC is None:
            new = layer(h)
            grads = torch.autograd.grad((new.out_RBDC * grad_RBDC).sum(), [*own.values(), new.pre_RGME])
            return dict(zip(own, grads, strict=False)), grads[-1]
        # two scalars: the signal passes to the units through a matrix that is not the projection
        assert layer.projection_RGEC is not None
        units = state.units_RGME.detach()
        z = multiply(units, layer.projection_RGEC)
        scale = z.shape[-1] ** 0.5 / z.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        grad_z, projection = torch.autograd.grad((z * scale * layer.by_group(grad_RBDC)).sum(), [z, layer.projection_RGEC])
        pre = layer(h).pre_RGME
        signal = multiply(grad_z, projection_RGEC.transpose(-1, -2))
        inner = [layer.weight_RGFE, layer.bias_RG1E, pre]
        weight, bias, delta = torch.autograd.grad((layer.activation.phi(pre) * signal).sum(), inner)
    return {"weight_RGFE": weight, "bias_RG1E": bias, "projection_RGEC": projection}, delta


Backward = Callable[..., tuple[LayerUpdate, Tensor]]
FORMS: dict[str, Backward] = {"explicit": Layer.backward, "autograd": autograd_backward}


def check_form(form: str) -> None:
    """``explicit``: presynaptic activity times mask times signal. ``autograd``: the same from a graph.

    Raises:
        InvalidInput: another form.
    """
    if form not in FORMS:
        raise InvalidInput("model.form", form, "explicit or autograd")


def backward_of(form: str) -> Backward:
    """A layer's backward pass in a form.

    Raises:
        InvalidInput: another form than those of :func:`check_form`.
    """
    check_form(form)
    return FORMS[form]

"""Activity perturbation: noise at the activities, and how the loss would change along it, by forward-mode derivatives.

Shape suffixes: R replica, B batch, D position, C channel, N classes, F = D * C; E outputs of a layer's classifier.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from networks import LayerUpdate, error_and_loss
from rhm import InvalidInput
from rhm.hashing import normal
from rules.base.contract import Locality, Step, Updates
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.maths.forward_mode import tangents

LOSSES = ("local", "output")


class ActivityPerturbation(LocalRule):
    """Activity-perturbed forward gradient (Ren et al. 2022): ``delta_l = D_l v_l (v_l . dLoss/dh_l)``, ``v_l`` standard normal.

    The directional derivative ``t = v_l . dLoss/dh_l`` is found by a forward pass of tangents, so that nothing is sent back: on
    average over noise ``t v_l`` is the gradient at ``h_l``, with a variance that grows with the numbers that share a ``t``.
    ``h_l`` is what the layer hands on; its own mask ``D_l`` is exact, and so are the masks that tangents pass on their way up.

    Local losses: a linear classifier on every layer, ``CE(U_l h_l, y)``, trained by its own gradient and used forward only,
    ``t = e . U_l v_l``. As in the paper the loss is replicated: each position, and in it each group of channels, is perturbed
    alone and has a ``t`` of its own. The output's loss: one ``t`` a string, of the noise of all layers at once.
    Sources: the paper perturbs ``a_l`` in its equations, where a silent unit has noise and no derivative; here it is ``h_l``.

    Kind: with the output's loss the first (direct feedback of one number a string, no feedback weights, no settling); it keeps
    all masks. With local losses a control: supervised layerwise, without transport of ``U_l``.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        loss: ``local`` or ``output``.
        group: how many neighbouring channels of a position share a ``t`` of a local loss; None: all of them.

    Raises:
        InvalidInput: an unknown loss; ``group`` under 1, or given with the output's loss.
    """

    source = "Ren, Kornblith, Liao, Hinton 2022, arXiv 2210.03310"
    family = "feedback"
    knowledge = "labels"
    locality = Locality(lateral=True, label=True)

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        loss: str = "local",
        group: int | None = None,
    ):
        super().__init__(network, optimizer, clip)
        if loss not in LOSSES:
            raise InvalidInput("model.loss", loss, "local or output")
        if group is not None and (group < 1 or loss == "output"):
            raise InvalidInput("model.group", group, "an integer of at least 1, or null; null with the output's loss")
        self.loss, self.group = loss, group
        if loss == "output":
            self.locality = replace(self.locality, label=False, error=True, other_layers=True)
        self.locality = self.locality.through_output(network)

    def build(self) -> None:
        if self.loss == "output":
            return
        for k, layer in enumerate(self.network.layers, 1):
            inputs = self.network.positions[k - 1] * layer.out_channels
            head = normal(self.keys_R("head", k), (inputs, self.data.task.n)) / math.sqrt(inputs)
            layer.register_parameter("label_head_RFE", nn.Parameter(head.to(torch.get_default_dtype())))

    def noises(self, step: Step) -> list[Tensor]:
        """``v_l`` at what each layer hands on, ``[R, B, D, C]``."""
        shapes = [tuple(state.out_RBDC.shape[2:]) for state in step.states]
        return [self.noise(step.batch, f"tangent {k}", shape) for k, shape in enumerate(shapes, 1)]

    def layer_updates(self, step: Step) -> Updates:
        return self.from_local_losses(step) if self.loss == "local" else self.from_the_output(step)

    def from_local_losses(self, step: Step) -> Updates:
        """``t`` of each string, position and group of channels, from each layer's own classifier."""
        updates, losses = [], {}
        layers = zip(self.network.layers, step.states, self.noises(step), strict=True)
        for k, (layer, state, noise) in enumerate(layers, 1):
            head = layer.get_parameter("label_head_RFE")
            flat = state.out_RBDC.flatten(2).to(head.dtype)
            error, loss_RB = error_and_loss(torch.bmm(flat, head).to(head.dtype), step.batch.y_RB)
            error = error / error.shape[1]
            slope = along_each_group(noise, head, error, self.group or layer.out_channels)
            update = layer.backward(state, (slope * noise).to(state.out_RBDC.dtype))[0]
            updates.append(update | {"label_head_RFE": torch.bmm(flat.transpose(1, 2), error).to(head.dtype)})
            losses[f"loss/layer{k}"] = loss_RB.mean(1)
        return Updates(updates, losses=losses)

    def from_the_output(self, step: Step) -> Updates:
        """One ``t`` of each string, from the tangent of the logits along the noise of all layers."""
        noises, error_RBN = self.noises(step), step.readout.error_RBN / step.readout.error_RBN.shape[1]
        tangent = tangents(self.network, step.states, noises)[-1]
        slope_RB = (error_RBN * self.readout.tangent(tangent.flatten(2))).sum(-1)
        updates: list[LayerUpdate] = []
        for layer, state, noise in zip(self.network.layers, step.states, noises, strict=True):
            signal = slope_RB[..., None, None] * noise
            updates.append(layer.backward(state, signal.to(state.out_RBDC.dtype))[0])
        return Updates(updates)


def along_each_group(noise_RBDC: Tensor, head_RFE: Tensor, error_RBE: Tensor, size: int) -> Tensor:
    """``t = e . U v`` with noise at one position and ``size`` of its channels alone, for each of these: ``[R, B, D, C]``."""
    (R, B, D, C), groups = noise_RBDC.shape, -(-noise_RBDC.shape[3] // size)
    rest = (0, groups * size - C)  # the last group may be smaller
    noise = functional.pad(noise_RBDC, rest).reshape(R, B, D * groups, size).transpose(1, 2)
    head = functional.pad(head_RFE.view(R, D, C, -1).transpose(2, 3), rest).transpose(2, 3).reshape(R, D * groups, size, -1)
    change = noise @ head  # of the classifier's outputs
    slope = (change.to(error_RBE.dtype) * error_RBE[:, None]).sum(-1).transpose(1, 2)
    return slope.reshape(R, B, D, groups).repeat_interleave(size, 3)[..., :C]

"""Signal propagation: classes take the way of the strings, forward through the layers, and meet them at each.

Shape suffixes: R replica, B batch, D position, C channel, N classes, F = D * C; G groups of positions, E units.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from datamodules import Batch
from networks import LayerState, error_and_loss
from rhm import InvalidInput
from rhm.hashing import normal
from rules.base.contract import Locality, Step, Updates, add
from rules.base.local_rule import LocalRule


class SignalPropagation(LocalRule):
    """Signal propagation (sigprop, Kohan, Rietman, Siegelmann 2022): ``CE(softmax_n(h_l . t_l^n), y)`` at every layer.

    ``t_1^n = phi(S_n)`` is a target for each class in the place of the first layer's output, and ``t_l^n = f_l(t_{l-1}^n)``: it
    passes the same layers as the strings do. A layer's weights learn from both, what is below them held fixed, so that nothing
    is sent back; the classes' targets are the signal of the strings, and the strings' activity that of the targets. The product
    is a mean over positions of sums over channels, over ``sqrt(C)``.

    Learned: the weights, and ``S`` with the first layer. Random: ``S`` at the start, the size of pre-activations. In the
    authors' code each string of a batch brings its own class's target and is compared with all of these; here there is one for
    each class, so that strings do not meet.

    Kind: a control (supervised layerwise, forward passes alone).

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`; the network hands on its units.

    Raises:
        InvalidInput: a network with a bottleneck, normalisation or vector units.
    """

    source = "Kohan, Rietman, Siegelmann 2022, arXiv 2204.01723"
    family = "supervised layerwise"
    takes_vectors = False
    knowledge = "labels"
    locality = Locality(label=True, lateral=True)

    def check_network(self) -> None:
        super().check_network()
        network, name = self.network_config, type(self).__name__
        if network.bottleneck is not None:
            raise InvalidInput("model.network.bottleneck", network.bottleneck, f"null for {name}, whose targets are units")
        if network.normalise:
            raise InvalidInput("model.network.normalise", True, f"false for {name}, whose targets are units")

    def build(self) -> None:
        first, positions = self.network.layers[0], self.network.positions[0]
        targets = normal(self.keys_R("targets"), (self.data.task.n, positions * first.out_channels)) * first.activation.gain
        first.register_parameter("target_RNF", nn.Parameter(targets.to(torch.get_default_dtype())))

    def compute(self, batch: Batch) -> Step:
        """The strings' states and, as views, those of the classes' targets."""
        step = super().compute(batch)
        return step._replace(view_states=self.class_states())

    def class_states(self) -> list[LayerState]:
        """The targets' states; in the first layer they have no input."""
        layers = list(self.network.layers)
        first, matrix = layers[0], layers[0].get_parameter("target_RNF")
        pre = first.by_group(matrix.unflatten(2, (self.network.positions[0], -1)))
        units = first.activation.phi(pre)
        nothing = torch.zeros(*pre.shape[:3], first.weight_RGFE.shape[2], dtype=pre.dtype, device=pre.device)
        out = units.reshape(*matrix.shape[:2], self.network.positions[0], -1) if first.groups == 1 else units.transpose(1, 2)
        states = [LayerState(nothing, pre, units, None, out)]
        for layer in layers[1:]:
            states.append(layer(states[-1].out_RBDC))
        return states

    def layer_updates(self, step: Step) -> Updates:
        assert step.view_states is not None
        updates, losses = [], {}
        for k, (layer, strings, classes) in enumerate(zip(self.network.layers, step.states, step.view_states, strict=True), 1):
            h, t = strings.out_RBDC.flatten(2), classes.out_RBDC.flatten(2).to(strings.out_RBDC.dtype)
            scale = strings.out_RBDC.shape[2] * math.sqrt(strings.out_RBDC.shape[3])
            scores = torch.bmm(h, t.transpose(1, 2)).to(step.readout.loss_RB.dtype) / scale
            error, loss_RB = error_and_loss(scores, step.batch.y_RB)
            error = error / (scale * error.shape[1])
            to_strings = torch.bmm(error.to(t.dtype), t).view_as(strings.out_RBDC)
            to_classes = torch.bmm(error.to(h.dtype).transpose(1, 2), h).view_as(classes.out_RBDC)
            update = layer.backward(strings, to_strings)[0]
            of_targets, delta = layer.backward(classes, to_classes)
            if k == 1:
                update["target_RNF"] = layer.by_position(delta, classes).flatten(2)
            else:
                add(update, of_targets)
            updates.append(update)
            losses[f"loss/layer{k}"] = loss_RB.mean(1)
        return Updates(updates, losses=losses)

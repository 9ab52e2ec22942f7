"""A step in which one thing was changed: what a rule may not look at must not move what it says.

:mod:`rules.checking` asks with these whether a rule's locality is true, and so do the tests of every rule.

Shape suffixes: R replica, B batch, D position, E units, M strings times positions, G groups of positions, C channel, F inputs,
N classes; S codebooks, T cells.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import torch
from torch import Tensor

from networks import CodeNetwork, Layer, LayerState, ReadoutState
from networks.vector import VectorLayer
from rules.base.contract import Step, Updates
from rules.base.local_rule import LocalRule

Answering = Callable[[Tensor, Tensor], ReadoutState]
"""What a readout answers to the top layer's output and the classes."""


@torch.no_grad()
def compute(rule: LocalRule, step: int = 0) -> Step:
    """The forward passes for the strings of a step."""
    return rule.compute(rule.data.train_batch(step))


@torch.no_grad()
def said(rule: LocalRule, step: Step) -> Updates:
    """All that a rule says of a step."""
    return rule.layer_updates(step)


def same(a: list[dict[str, Tensor]], b: list[dict[str, Tensor]]) -> list[bool]:
    """For each pair of layers whether their gradients are the same, bit for bit."""
    return [x.keys() == y.keys() and all(torch.equal(x[name], y[name]) for name in x) for x, y in zip(a, b, strict=True)]


def copied(rule: LocalRule) -> LocalRule:
    """A copy on the same data."""
    other = copy.deepcopy(rule)
    other.__dict__["data"] = rule.data
    return other


@torch.no_grad()
def shake(rule: LocalRule) -> None:
    """Noise on every parameter and buffer, so that nothing is zero, equal or symmetric by accident.

    Buffers keep their signs, as some are magnitudes or gates; those that start at 0 get noise.
    """
    noise = torch.Generator().manual_seed(0)
    for parameter in rule.parameters():
        size = 0.3 * parameter.square().mean().sqrt() + 0.1
        parameter.add_(size * torch.randn(parameter.shape, generator=noise, dtype=parameter.dtype))
    for _, buffer in rule.named_buffers():
        if buffer.is_floating_point() and buffer.any():
            buffer *= 1 + 0.5 * torch.rand(buffer.shape, generator=noise, dtype=buffer.dtype)
        elif buffer.is_floating_point():
            buffer += 0.3 * torch.randn(buffer.shape, generator=noise, dtype=buffer.dtype)


def layer_of(name: str) -> int | None:
    """The layer, from 1, that a buffer or an estimate belongs to: the first number in its name."""
    number = re.search(r"\d+", name)
    return None if number is None else int(number.group()) + name.startswith("network.layers.")


def of_layer(updates: Updates, k: int) -> dict[str, Tensor]:
    """Gradients and estimates of layer ``k``."""
    return {**updates.layers[k - 1], **{name: value for name, value in updates.estimates.items() if layer_of(name) == k}}


def unmoved(before: Updates, after: Updates) -> list[bool]:
    """Whether all that is said of each layer is the same, bit for bit."""
    layers = range(1, len(before.layers) + 1)
    return [same([of_layer(before, k)], [of_layer(after, k)])[0] for k in layers]


@torch.no_grad()
def answering(rule: LocalRule, step: Step, change: Callable[[Answering, Tensor, Tensor], ReadoutState]) -> Step:
    """The same strings, to which the readout answers something else."""
    other = copied(rule)
    answer = other.readout.forward
    other.readout.__dict__["forward"] = lambda out_RBDC, y_RB: change(answer, out_RBDC, y_RB)
    return other.compute(step.batch)


def with_other_labels(rule: LocalRule, step: Step) -> Step:
    """The same strings, shown with one another's classes; the readout's answer and error are those of before."""
    y_RB = step.batch.y_RB
    batch = step.batch._replace(y_RB=y_RB.roll(1, 1))
    return answering(rule, step._replace(batch=batch), lambda answer, out_RBDC, _: answer(out_RBDC, y_RB))


def with_other_error(rule: LocalRule, step: Step) -> Step:
    """The errors of other strings, for other classes and of another size."""

    def change(answer: Answering, out_RBDC: Tensor, y_RB: Tensor) -> ReadoutState:
        state = answer(out_RBDC, y_RB)
        return state._replace(
            logits_RBN=state.logits_RBN.flip(-1).roll(1, 1), error_RBN=1.1 * state.error_RBN.flip(-1).roll(1, 1)
        )

    return answering(rule, step, change)


def with_other_loss(rule: LocalRule, step: Step) -> Step:
    """The same answers and errors, whose losses are one another's."""

    def change(answer: Answering, out_RBDC: Tensor, y_RB: Tensor) -> ReadoutState:
        state = answer(out_RBDC, y_RB)
        return state._replace(loss_RB=state.loss_RB.roll(1, 1))

    return answering(rule, step, change)


def scrambled(state: LayerState) -> LayerState:
    """Other numbers in the place of all."""
    return state._replace(**{name: t.flip(-1) * 1.5 + 0.1 for name, t in state._asdict().items() if t is not None})


def with_other_layers(rule: LocalRule, step: Step, keep: int) -> Step:
    """States, weights, heads and buffers of all layers but one, and the readout's weights, changed."""

    def change(states: list[LayerState]) -> list[LayerState]:
        return [s if j == keep else scrambled(s) for j, s in enumerate(states)]

    with torch.no_grad():
        for j, module in enumerate(rule.parts):
            if j != keep:
                for parameter in module.parameters():
                    parameter.mul_(-0.5).add_(0.1)
        for name, buffer in rule.named_buffers():
            if buffer.is_floating_point() and layer_of(name) not in (None, keep + 1):
                buffer.mul_(0.5).add_(0.1)  # some stay positive
    first, seen = (None if states is None else change(states) for states in (step.first_states, step.view_states))
    step = step._replace(states=change(step.states), first_states=first, view_states=seen)
    if keep == len(step.states) - 1:
        return step
    views = step.view_readout
    return step._replace(readout=of_others(step.readout), view_readout=None if views is None else of_others(views))


def of_others(answer: ReadoutState) -> ReadoutState:
    """The answer, as it was, to other features: those are the top layer's activity."""
    return answer._replace(features_RBF=answer.features_RBF.flip(-1) * 1.5 + 0.1)


def part(rule: LocalRule, step: Step, start: int, stop: int) -> dict[str, Tensor]:
    """What a rule says of some strings of a batch, and what buffers move towards."""
    with torch.no_grad():
        answer = said(rule, rule.compute(step.batch.map(lambda t: t[:, start:stop])))
    gradients = {f"{name} of {k}": grad for k, layer in enumerate(answer.layers) for name, grad in layer.items()}
    return gradients | rule.tracked(answer.estimates)


def strings_add_up(rule: LocalRule, step: Step) -> bool:
    """Whether a batch's update, and what buffers move towards, is the mean of its halves'.

    Noise that is drawn once a batch is made the same in both.
    """
    assert step.batch.key_RB is not None
    key_RB = step.batch.key_RB.clone()
    key_RB[:, 8] = key_RB[:, 0]
    step = step._replace(batch=step.batch._replace(key_RB=key_RB))
    whole, first, second = (part(rule, step, *cut) for cut in ((0, 16), (0, 8), (8, 16)))
    return all(torch.allclose(value, (first[name] + second[name]) / 2, rtol=1e-9, atol=1e-12) for name, value in whole.items())


def changed_at(layer: Layer, state: LayerState, units_E: Tensor, positions_D: Tensor) -> LayerState:
    """A state in which some units have answered something else at some positions.

    What is handed on follows; where it is normalised, so does the scale.
    """
    pre_RBDE = layer.by_position(state.pre_RGME, state).clone()
    moved = (-0.7 * pre_RBDE.roll(1, 1) + 0.2)[:, :, positions_D]
    pre_RBDE[:, :, positions_D] = torch.where(units_E, moved, pre_RBDE[:, :, positions_D])
    pre = layer.by_group(pre_RBDE)
    units = layer.activation.phi(pre)
    z, scale = layer.hand_on(units)
    return LayerState(state.input_RGMF, pre, units, scale, layer.by_position(z, state))


def with_other_input(layer: Layer, state: LayerState, positions_D: Tensor, share: float) -> LayerState:
    """A state whose input at some positions is that of another string, times ``share``."""
    x = layer.unfold(state.input_RGMF, state.out_RBDC.shape[1]).unflatten(2, (-1, layer.patch)).clone()
    x[:, :, positions_D] = x[:, :, positions_D].roll(1, 1) * share
    return state._replace(input_RGMF=layer.fold(x.flatten(2, 3)))


def of_the_others(layer: Layer, update: dict[str, Tensor], units_E: Tensor) -> list[Tensor]:
    """Gradients of the weights of the units that were left alone, or, where those do not learn, of what such a unit sends."""
    alone_E = ~units_E
    if "weight_RGFE" in update:
        columns = alone_E[:: layer.components] if isinstance(layer, VectorLayer) else alone_E
        bias = [update["bias_RG1E"][..., alone_E]] if "bias_RG1E" in update else []
        return [update["weight_RGFE"][..., columns], *bias]
    return [update["projection_RGEC"][..., alone_E, :]] if "projection_RGEC" in update else []


def decided_by_the_others(rule: LocalRule, answer: Updates, k: int, units_E: Tensor) -> list[Tensor]:
    """The codes of cells that were left alone, where cells choose them by what is tracked."""
    chosen = rule.tracked(answer.estimates) if isinstance(rule.network_config, CodeNetwork) else {}
    return [value[..., ~units_E] for name, value in chosen.items() if name.endswith("codes_RST") and layer_of(name) == k]


def tracked_of_the_others(layer: Layer, answer: Updates, k: int, units_E: Tensor) -> list[Tensor]:
    """What is tracked for the units that were left alone, where a layer hands on its units: one column for each of them."""
    alone_E, found = ~units_E, []
    for name, value in answer.estimates.items():
        if layer_of(name) == k and layer.out_channels == len(alone_E) and value.shape[-1] % len(alone_E) == 0:
            found.append(value.unflatten(-1, (-1, len(alone_E)))[..., alone_E])
    return found


def changed(
    rule: LocalRule, step: Step, k: int, change: Callable[[LayerState], LayerState], partners_only: bool = False
) -> Step:
    """A step in which the states of layer ``k`` have been changed, for strings and views."""

    def of(states: list[LayerState]) -> list[LayerState]:
        return [change(s) if j == k else s for j, s in enumerate(states, 1)]

    first, views = (None if states is None else of(states) for states in (step.first_states, step.view_states))
    if partners_only:
        return step._replace(view_states=views)
    return step._replace(states=of(step.states), first_states=first, view_states=views)


@torch.no_grad()
def units_interact(rule: LocalRule, step: Step, k: int) -> bool:
    """Whether other units of layer ``k`` move what a unit's own weights learn, or what is tracked for it."""
    layer, state = rule.network.layers[k - 1], step.states[k - 1]
    components = layer.components if isinstance(layer, VectorLayer) else 1
    units = state.pre_RGME.shape[-1] // components
    units_E = torch.arange(units * components) // components < units // 2
    everywhere_D = torch.ones(state.out_RBDC.shape[2], dtype=torch.bool)
    after = changed(rule, step, k, lambda s: changed_at(layer, s, units_E, everywhere_D))
    answers = [said(rule, which) for which in (step, after)]
    both = [
        [
            *of_the_others(layer, answer.layers[k - 1], units_E),
            *tracked_of_the_others(layer, answer, k, units_E),
            *decided_by_the_others(rule, answer, k, units_E),
        ]
        for answer in answers
    ]
    return not all(torch.equal(a, b) for a, b in zip(*both, strict=True))


@torch.no_grad()
def positions_interact(rule: LocalRule, step: Step, k: int) -> bool:
    """Whether what layer ``k`` has seen and answered at odd positions, or for partners, moves what weights learn elsewhere.

    Where positions have weights of their own, those of even positions are looked at. Else odd positions, or partners, have no
    input before and after, so that they add nothing to the weights by themselves.
    """
    layer, positions = rule.network.layers[k - 1], step.states[k - 1].out_RBDC.shape[2]
    partners = step.view_states is not None and rule.uses_pairs
    odd_D = torch.ones(positions, dtype=torch.bool) if partners else torch.arange(positions) % 2 == 1
    all_E = torch.ones(step.states[k - 1].pre_RGME.shape[-1], dtype=torch.bool)
    apart = layer.groups > 1 and not partners

    def silent(state: LayerState) -> LayerState:
        return state if apart else with_other_input(layer, state, odd_D, share=0.0)

    def other(state: LayerState) -> LayerState:
        state = changed_at(layer, silent(state), all_E, odd_D)
        return with_other_input(layer, state, odd_D, share=1.0) if apart else state

    answers = [said(rule, changed(rule, step, k, way, partners)) for way in (silent, other)]
    before, after = (answer.layers[k - 1] for answer in answers)
    if not before:  # a rule that has no gradient
        return not same(*([of_layer(answer, k)] for answer in answers))[0]
    name = "weight_RGFE" if "weight_RGFE" in before else "projection_RGEC"
    groups = ~odd_D if apart else slice(None)
    return name in before and not torch.equal(before[name][:, groups], after[name][:, groups])

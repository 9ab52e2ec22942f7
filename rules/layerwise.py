"""Layerwise self-supervised rules: each layer minimises a loss on its own output, and nothing passes between layers.

Shape suffixes: R replica, B batch, D pair of a string, C channel.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from datamodules import Batch
from networks import Layer, LayerState, LayerUpdate
from rhm import InvalidInput
from rhm.hashing import below, fold, normal
from rules.local_rule import Locality, LocalRule, NetworkConfig, OptimizerCallable, Step, default_network
from rules.losses import cosine_scores, project

EXPANSIONS = ("backprop", "random", "local")


@dataclass(frozen=True)
class Block:
    """What stands between a layer's weights and its loss.

    Args:
        head: width of a linear head that the loss sees and the next layer does not (Chen et al. 2020); None has no head.
        separate_heads: a head for each side of a pair, for pairs whose sides are not alike, such as siblings.
        expansion: how the units below a bottleneck learn: ``backprop`` from the loss on the bottleneck, through its projection;
            ``local`` from the same loss on the units themselves; ``random`` not at all. With the last two no gradient passes a
            second matrix anywhere: layers above those that have pairs stay random, under a linear readout.
        end_to_end: only the top layer that has pairs has a loss, and it is propagated back through all layers below.
    """

    head: int | None = None
    separate_heads: bool = False
    expansion: str = "backprop"
    end_to_end: bool = False

    def check(self) -> None:
        """Refuse what does not fit together.

        Raises:
            InvalidInput: a head under 1, separate heads without a head, an unknown expansion, ``end_to_end`` with an expansion
                that takes no gradient.
        """
        if self.head is not None and self.head < 1:
            raise InvalidInput("model.block.head", self.head, "an integer of at least 1, or null")
        if self.separate_heads and self.head is None:
            raise InvalidInput("model.block.separate_heads", True, "true only with model.block.head")
        if self.expansion not in EXPANSIONS:
            raise InvalidInput("model.block.expansion", self.expansion, f"one of {', '.join(EXPANSIONS)}")
        if self.end_to_end and self.expansion != "backprop":
            raise InvalidInput("model.block.expansion", self.expansion, "backprop with model.block.end_to_end")


Activity = dict[tuple[int, str], list[Tensor]]


class Pair(NamedTuple):
    """The two sides of a layer's positive pairs.

    Attributes:
        z1_RBDC, z2_RBDC: the sides, behind the head if there is one; other strings of the batch give negatives.
        head: holds the parameters that the loss has for this layer.
        k: number of the layer, from 1.
        batch: the strings whose sides these are; a rule looks at no more than its locality says.
        activity: what the losses of all layers see, by layer and name of the head: for the strings and, if there are any, for
            their partners; with the same limit.
        step: what this rank has computed, with the same limit.
    """

    z1_RBDC: Tensor
    z2_RBDC: Tensor
    head: nn.Module
    k: int
    batch: Batch
    activity: Activity
    step: Step

    def shift_R(self, name: str = "negative") -> Tensor:
        """How many places further in the batch the strings' negatives stand: in ``[1, B)``, so none is its own."""
        assert self.batch.key_RB is not None
        return 1 + below(fold(self.batch.key_RB[:, 0], name, self.k), self.z1_RBDC.shape[1] - 1)


class PairGradient(NamedTuple):
    """A loss and its gradients.

    Attributes:
        loss_R: one loss a replica.
        z1_RBDC, z2_RBDC: gradients of the sum over replicas with respect to the sides.
        head: gradients of the head's parameters by name.
    """

    loss_R: Tensor
    z1_RBDC: Tensor
    z2_RBDC: Tensor
    head: LayerUpdate


class LayerwiseRule(LocalRule):
    """A loss on the positive pairs of each layer's output; a subclass gives the loss.

    The loss's gradient with respect to the output is all that reaches the layer, which turns it into updates of its own
    weights. What the layer hands on and what stands between its weights and the loss is :class:`Block`'s. Where several ranks
    share a batch, a loss that compares strings sees the sides of all of them, and each rank hands back its own strings' part.

    A batch of more strings than there are, or across the end of an epoch, holds some strings twice, and a string's negative may
    then be the string itself: one negative in ten thousand with batches of 128 of 300 strings.

    Args:
        network, optimizer, clip: see :class:`rules.local_rule.LocalRule`.
        block: see :class:`Block`.

    Attributes:
        hinged: whether a pair learns only while its score is under 1, and a negative while its score is above -1.
    """

    family = "self-supervised"
    uses_pairs = True
    locality = Locality(pair=True)
    end_to_end_needs_labels = False
    hinged: ClassVar[bool] = False
    compares_strings = True

    def __init__(
        self,
        network: NetworkConfig = default_network,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
        clip: float | None = None,
        block: Block = Block(),
    ):
        super().__init__(network, optimizer, clip)
        block.check()  # not when it is made: settings may change one of its values after the other
        self.block = block
        if block.end_to_end:
            self.locality = Locality(pair=True, other_layers=True)

    # ---------------------------------------------------------------- what a rule gives

    @abstractmethod
    def pair_loss(self, pair: Pair) -> Tensor:
        """A layer's loss ``[R]`` for the two sides of its pairs; differentiable."""

    def build_head(self, head: nn.Module, k: int, channels: int) -> None:
        """Give the head of layer ``k`` the parameters that the loss needs, for sides of so many channels; none by default."""

    def pair_gradient(self, pair: Pair) -> PairGradient:
        """The loss and its gradients, by autograd; a rule in explicit form computes them."""
        parameters = {name: p for name, p in pair.head.named_parameters() if name not in HEADS}
        with torch.enable_grad():
            z1, z2 = (z.detach().requires_grad_() for z in pair[:2])
            loss_R = self.pair_loss(pair._replace(z1_RBDC=z1, z2_RBDC=z2))
            g1, g2, *grads = torch.autograd.grad(
                loss_R.sum(), [z1, z2, *parameters.values()], allow_unused=True, materialize_grads=True
            )
        return PairGradient(loss_R.detach(), g1, g2, dict(zip(parameters, grads, strict=True)))

    # ---------------------------------------------------------------- building

    def add_matrix(self, head: nn.Module, name: str, k: int, shape: tuple[int, ...], scale: float) -> None:
        """Give a head a learned matrix ``[R, *shape]``, normal with standard deviation ``scale`` at the start."""
        key = (name, k) if head is self.network.layers[k - 1].head else (name, k, "units")
        head.register_parameter(name, nn.Parameter((normal(self.keys_R(*key), shape) * scale).to(torch.get_default_dtype())))

    def build(self) -> None:
        if self.trained_layers == 0:
            network, pairs = type(self.network_config).__name__, type(self.pairs).__name__
            got = f"{pairs} with a {network} of {len(self.network)} layers"
            raise InvalidInput("data.pairs", got, "pairs that a layer of the network has, such as ClassPairs or HalfPairs")
        for k, layer in enumerate(self.network.layers[: self.trained_layers], 1):
            if self.block.end_to_end and k < self.trained_layers:
                continue
            layer.head = nn.Module()
            self._build_head(layer.head, k, layer.out_channels)
            if self._trains_units_apart(layer):
                layer.units_head = nn.Module()
                self._build_head(layer.units_head, k, layer.weight_RGFE.shape[-1])

    def _build_head(self, head: nn.Module, k: int, channels: int) -> None:
        channels = self.pairs.channels(channels, self.network.positions[k - 1])
        if self.block.head is not None:
            for name in HEADS[: 2 if self.block.separate_heads else 1]:
                self.add_matrix(head, name, k, (channels, self.block.head), scale=1 / math.sqrt(channels))
            channels = self.block.head
        self.build_head(head, k, channels)

    def _trains_units_apart(self, layer: Layer) -> bool:
        return self.block.expansion == "local" and layer.projection_RGEC is not None

    @property
    def trained_layers(self) -> int:
        return self.pairs.layers([layer.patch for layer in self.network.layers])

    # ---------------------------------------------------------------- a step

    def layer_updates(self, step: Step) -> list[LayerUpdate]:
        if self.block.end_to_end:
            return self.end_to_end(step)
        updates = []
        layers = list(enumerate(self.network.layers[: self.trained_layers], 1))
        activity = self._activity(
            step, [(k, name) for k, layer in layers for name in ("head", "units_head")[: 1 + self._trains_units_apart(layer)]]
        )
        for k, layer in layers:
            states = self._states(step, k)
            signals, update = self._signals(step, k, "head", activity)
            through = self.block.expansion == "backprop" or layer.projection_RGEC is None
            for state, signal in zip(states, signals, strict=True):
                add(update, layer.backward(state, signal)[0] if through else layer.backward_output(state, signal)[0])
            if self._trains_units_apart(layer):
                signals, head = self._signals(step, k, "units_head", activity)
                add(update, head)
                for state, signal in zip(states, signals, strict=True):
                    add(update, layer.hebbian(state, layer.activation.masked(layer.by_group(signal), state.pre_RGNE)))
            updates.append(update)
        return updates

    def end_to_end(self, step: Step) -> list[LayerUpdate]:
        """The top layer's loss, propagated back through all layers below."""
        top, layer = self.trained_layers, self.network.layers[self.trained_layers - 1]
        signals, update = self._top_signals(step)
        deltas = []
        for state, signal in zip(self._states(step, top), signals, strict=True):
            part, delta = layer.backward(state, signal)
            add(update, part)
            deltas.append(delta)
        return [*self._below(step, top, deltas), update]

    def _top_signals(self, step: Step) -> tuple[list[Tensor], LayerUpdate]:
        """What the loss of the top layer that has pairs tells what it sees, and its head's updates."""
        top = self.trained_layers
        return self._signals(step, top, "head", self._activity(step, [(top, "head")]))

    def _below(self, step: Step, top: int, deltas: list[Tensor]) -> list[LayerUpdate]:
        """Updates of the layers below ``top`` for signals at its pre-activations, of the strings and their partners."""
        updates: list[LayerUpdate] = [{} for _ in range(top - 1)]
        for j, delta in enumerate(deltas):
            for k in range(top - 1, 0, -1):
                state = self._states(step, k)[j]
                signal = self.network.layers[k].hand_down(delta, state.out_RBDC.shape[1])
                part, delta = self.network.layers[k - 1].backward(state, signal)
                add(updates[k - 1], part)
        return updates

    def top_errors(self, step: Step) -> list[tuple[list[LayerState], Tensor]]:
        signals = [signal.flatten(2) for signal in self._top_signals(step)[0]]
        views = [step.states] if step.view_states is None else [step.states, step.view_states]
        return list(zip(views, signals, strict=True))

    def pair(self, step: Step, k: int) -> Pair:
        """The two sides of the pairs of layer ``k`` as its loss sees them, of a step's strings and of no other rank's."""
        layers = self.network.layers
        activity = {
            (j, "head"): [self.seen(layers[j - 1], state, "head") for state in self._states(step, j)]
            for j in (k, self.trained_layers)
        }
        head = layers[k - 1].get_submodule("head")
        sides = self._behind_head(*self._positives(activity[k, "head"], k), head)
        return Pair(*sides, head, k, step.batch, activity, step)

    def scores(self, pair: Pair) -> Tensor:
        """How well each string's first side fits each string's second side, ``[R, D, B, B]``: the rule's own score, or their
        cosine where the loss has none."""
        return cosine_scores(pair.z1_RBDC, pair.z2_RBDC)

    def upper_updates(self, step: Step, down_to: int) -> list[LayerUpdate]:
        if self.block.expansion == "backprop":
            return super().upper_updates(step, down_to)
        return [{} for _ in self.network.layers[down_to:]]

    @staticmethod
    def _states(step: Step, k: int) -> list[LayerState]:
        """The states of layer ``k`` for the strings and, if there are any, for their partners."""
        return [step.states[k - 1]] if step.view_states is None else [step.states[k - 1], step.view_states[k - 1]]

    def seen(self, layer: Layer, state: LayerState, name: str) -> Tensor:
        """What the loss of a head sees of a layer, ``[R, B, D, C]``."""
        return state.out_RBDC if name == "head" else layer.by_position(state.units_RGNE, state)

    def _activity(self, step: Step, heads: list[tuple[int, str]]) -> Activity:
        """What the losses of some heads see, for the strings of all ranks if they are compared: one gather for all heads."""
        layers = self.network.layers
        rows = [[self.seen(layers[k - 1], state, name) for state in self._states(step, k)] for k, name in heads]
        if self.compares_strings:
            wide = iter(self.strings_of_all_ranks([side for row in rows for side in row]))
            rows = [[next(wide) for _ in row] for row in rows]
        return dict(zip(heads, rows, strict=True))

    def _signals(self, step: Step, k: int, name: str, activity: Activity) -> tuple[list[Tensor], LayerUpdate]:
        """What the loss of a layer tells what it sees, for this rank's strings and their partners; and its head's updates."""
        layers, outs = self.network.layers, activity[k, name]
        batch = self.batch_of_all_ranks(step.batch) if self.compares_strings else step.batch
        head = layers[k - 1].get_submodule(name)
        h1, h2 = self._positives(outs, k)
        if self.block.head is None:
            loss_R, g1, g2, update = self.pair_gradient(Pair(h1, h2, head, k, batch, activity, step))
        else:
            u1, u2 = self._heads(head)
            z1, z2 = self._behind_head(h1, h2, head)
            loss_R, g1, g2, update = self.pair_gradient(Pair(z1, z2, head, k, batch, activity, step))
            products = [torch.bmm(h.flatten(1, 2).transpose(1, 2), g.flatten(1, 2)) for h, g in ((h1, g1), (h2, g2))]
            if self.block.separate_heads:
                update |= dict(zip(HEADS, products, strict=True))
            else:
                update[HEADS[0]] = products[0] + products[1]
            g1, g2 = project(g1, u1.transpose(1, 2)), project(g2, u2.transpose(1, 2))
        self.step_metrics[f"loss/layer{k}" if name == "head" else f"loss/units{k}"] = loss_R
        back = self.pairs.hand_back(g1, g2, self.merged(k))
        signals = [g.reshape(out.shape).to(out.dtype) for g, out in zip(back, outs, strict=False) if g is not None]
        if self.compares_strings:
            signals = [self.share(signal) for signal in signals]
        return signals, {f"{name}.{key}": grad for key, grad in update.items()}

    def merged(self, k: int) -> int:
        """How many positions of layer ``k`` the next layer merges."""
        return self.network.layers[k].patch if k < len(self.network) else 1

    def _positives(self, outs: list[Tensor], k: int) -> tuple[Tensor, Tensor]:
        """The two sides of the pairs of layer ``k``, before a head."""
        wide = [out.float() if out.dtype == torch.bfloat16 else out for out in outs]
        return self.pairs.positives(wide[0], wide[1] if len(wide) > 1 else None, self.merged(k))

    def _heads(self, head: nn.Module) -> tuple[Tensor, Tensor]:
        """The head's matrices for the two sides, which may be the same one."""
        first = head.get_parameter(HEADS[0])
        return first, head.get_parameter(HEADS[1]) if self.block.separate_heads else first

    def _behind_head(self, h1_RBDC: Tensor, h2_RBDC: Tensor, head: nn.Module) -> tuple[Tensor, Tensor]:
        """The sides as the loss sees them."""
        if self.block.head is None:
            return h1_RBDC, h2_RBDC
        u1, u2 = self._heads(head)
        return project(h1_RBDC, u1).to(h1_RBDC.dtype), project(h2_RBDC, u2).to(h2_RBDC.dtype)


HEADS = ("head_RCC", "second_head_RCC")


def add(total: LayerUpdate, part: LayerUpdate) -> None:
    """Add a layer's gradients to those that it has."""
    for name, grad in part.items():
        total[name] = total[name] + grad if name in total else grad

"""Layerwise self-supervised rules: each layer minimises a loss on its own output, and nothing passes between layers.

Shape suffixes: R replica, B batch, D position or pair of a string, C channel; G groups of positions, M rows, F inputs, E units.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from datamodules import Pairs
from networks import Layer, LayerState, LayerUpdate
from networks.config import size_on
from rhm import InvalidInput
from rhm.hashing import fold, normal
from rules.base.block import Block
from rules.base.contract import Locality, Step, Updates, add
from rules.base.local_rule import LocalRule, NetworkConfig, OptimizerCallable, default_network
from rules.base.pair import LossHead, Pair, PairGradient
from rules.maths.losses import cosine_scores

Activity = dict[tuple[int, str], list[Tensor]]
"""What the losses see, by layer and name of the head: for the strings and, if there are any, for their partners; or for the two
copies of each string."""


class Told(NamedTuple):
    """What a loss tells a layer.

    Attributes:
        loss_R: one loss a replica.
        signals: gradients by what the loss sees, ``[R, B, D, C]``, of this rank's strings and, if there are any,
            their partners.
        head: gradients of the loss's own matrices, by their names in the layer.
    """

    loss_R: Tensor
    signals: list[Tensor]
    head: LayerUpdate


class LayerwiseRule(LocalRule):
    """A loss on the positive pairs of each layer's output; a subclass gives the loss.

    The loss's gradient with respect to the output is all that reaches the layer, which turns it into updates of its own
    weights. What the layer hands on and what stands between its weights and the loss is :class:`rules.base.block.Block`'s.
    Where several ranks share a batch, a loss that compares strings sees the sides of all of them, and each rank hands back its
    own strings' part.

    A batch of more strings than there are, or across the end of an epoch, holds some strings twice, and a string's negative may
    then be the string itself: one negative in ten thousand with batches of 128 of 300 strings.

    Args:
        network, optimizer, clip: see :class:`rules.base.local_rule.LocalRule`.
        block: see :class:`rules.base.block.Block`.

    Attributes:
        hinged: whether a pair learns only while its score is under 1, and a negative while its score is above -1.
    """

    family = "self-supervised"
    knowledge = "none"
    uses_pairs = True
    locality = Locality(partner=True, batch=True, lateral=True)
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
        self.locality = block.locality(self.locality, network)
        self.upper_layers_learn = block.expansion == "backprop"

    # ---------------------------------------------------------------- what a rule gives

    @abstractmethod
    def pair_loss(self, pair: Pair) -> Tensor:
        """A layer's loss ``[R]`` for the two sides of its pairs; differentiable."""

    def build_head(self, head: LossHead, k: int, channels: int) -> None:
        """Give the head of layer ``k`` the matrices that the loss needs, for sides of so many channels; none by default."""

    def shown(self, step: Step, k: int, activity: Activity) -> tuple[Tensor, ...]:
        """What the loss of layer ``k`` is shown beside the sides of its pairs: nothing by default. A rule that shows more says
        so in its locality.

        Args:
            step: its batch holds the strings of all ranks if they are compared, its states this rank's.
            k: number of the layer, from 1.
            activity: what the losses of all layers see.
        """
        return ()

    def pair_gradient(self, pair: Pair) -> PairGradient:
        """The loss and its gradients, by autograd; a rule in explicit form computes them."""
        parameters = pair.head.own()
        with torch.enable_grad():
            z1, z2 = (z.detach().requires_grad_() for z in pair[:2])
            loss_R = self.pair_loss(pair._replace(z1_RBDC=z1, z2_RBDC=z2))
            g1, g2, *grads = torch.autograd.grad(
                loss_R.sum(), [z1, z2, *parameters.values()], allow_unused=True, materialize_grads=True
            )
        return PairGradient(loss_R.detach(), g1, g2, dict(zip(parameters, grads, strict=True)))

    def seen(self, layer: Layer, state: LayerState, name: str) -> Tensor:
        """What the loss of a head sees of a layer, ``[R, B, D, C]``."""
        return state.out_RBDC if name == "head" else layer.by_position(state.units_RGME, state)

    def learn(self, layer: Layer, state: LayerState, signal_RBDC: Tensor) -> tuple[LayerUpdate, Tensor]:
        """A layer's update for a signal at what its loss sees, and the signal at its pre-activations."""
        return layer.backward(state, signal_RBDC)

    def _update(self, layer: Layer, state: LayerState, signal_RBDC: Tensor) -> LayerUpdate:
        """The same, as far as the block lets the signal through."""
        if self.block.expansion == "backprop" or layer.projection_RGEC is None:
            return self.learn(layer, state, signal_RBDC)[0]
        return layer.backward_output(state, signal_RBDC)[0]

    def scores(self, pair: Pair) -> Tensor:
        """How well each string's first side fits each string's second side, ``[R, D, B, B]``: the rule's own score, or their
        cosine where the loss has none."""
        return cosine_scores(pair.z1_RBDC, pair.z2_RBDC)

    # ---------------------------------------------------------------- building

    def add_matrix(
        self, head: LossHead, name: str, k: int, shape: tuple[int, ...], scale: float, drawn_as: str | None = None
    ) -> None:
        """Give a head a learned matrix ``[R, *shape]``, normal with standard deviation ``scale`` at the start."""
        matrix = normal(self.keys_R(drawn_as or name, k, *head.key), shape) * scale
        head.register_parameter(name, nn.Parameter(matrix.to(torch.get_default_dtype())))

    def build(self) -> None:
        if self.trained_layers == 0:
            network, pairs = type(self.network_config).__name__, type(self.pairs).__name__
            got = f"{pairs} with a {network} of {len(self.network)} layers"
            raise InvalidInput("data.pairs", got, "pairs that a layer of the network has, such as ClassPairs or HalfPairs")
        for k, layer in enumerate(self.network.layers[: self.trained_layers], 1):
            if k not in self.layers_with_loss:
                continue
            layer.head = self._head(k, layer.out_channels)
            if self._trains_units_apart(layer):
                layer.units_head = self._head(k, layer.weight_RGFE.shape[-1], "units")

    def _head(self, k: int, channels: int, *key: str) -> LossHead:
        head, channels = LossHead(*key), self.pairs.channels(channels, self.network.positions[k - 1])
        if (width := size_on(self.data.task, self.block.head)) is not None:
            for name in LossHead.HEADS[: 2 if self.block.separate_heads else 1]:
                drawn_as = name.replace("_RCE", "_RCC")  # their first name: other random numbers would be other results
                self.add_matrix(head, name, k, (channels, width), 1 / math.sqrt(channels), drawn_as)
            channels = width
        self.build_head(head, k, channels)
        if self.pairs.random_halves and not [*head.parameters()]:
            got = f"{type(self.pairs).__name__} for {type(self).__name__}, whose loss takes the sides channel by channel"
            allowed = "other pairs, or a matrix such as model.block.head: each channel is hidden from one of the sides"
            raise InvalidInput("data.pairs", got, allowed)
        return head

    def _trains_units_apart(self, layer: Layer) -> bool:
        return self.block.expansion == "local" and layer.projection_RGEC is not None

    @property
    def trained_layers(self) -> int:
        return self.pairs.layers(self.patches)

    @property
    def layers_with_loss(self) -> list[int]:
        """Numbers of the layers, from 1, that have a loss of their own."""
        top = self.trained_layers
        return [top] if self.block.end_to_end and not self.block.all_losses else list(range(1, top + 1))

    # ---------------------------------------------------------------- a step

    def layer_updates(self, step: Step) -> Updates:
        if self.block.end_to_end:
            return self.end_to_end(step)
        updates, losses = [], {}
        layers = list(enumerate(self.network.layers[: self.trained_layers], 1))
        activity = self._activity(
            step, [(k, name) for k, layer in layers for name in ("head", "units_head")[: 1 + self._trains_units_apart(layer)]]
        )
        for k, layer in layers:
            told = self._told(step, k, "head", activity)
            losses[f"loss/layer{k}"] = told.loss_R
            update = dict(told.head)
            for state, signal in zip(self.states(step, k), told.signals, strict=True):
                add(update, self._update(layer, state, signal))
            if self._trains_units_apart(layer):
                told = self._told(step, k, "units_head", activity)
                losses[f"loss/units{k}"] = told.loss_R
                add(update, told.head)
                for state, signal in zip(self.states(step, k), told.signals, strict=True):
                    add(update, layer.hebbian(state, layer.activation.masked(layer.by_group(signal), state.pre_RGME)))
            updates.append(update)
        return Updates(updates, losses=losses)

    def end_to_end(self, step: Step) -> Updates:
        """The top layer's loss, or the sum of all layers', propagated back through all layers below."""
        top, layers = self.trained_layers, self.network.layers
        losing = self.layers_with_loss if self.block.all_losses else [top]
        activity = self._activity(step, [(k, "head") for k in losing])
        told = {k: self._told(step, k, "head", activity) for k in losing}
        updates: list[LayerUpdate] = [dict(told[k].head) if k in told else {} for k in range(1, top + 1)]
        for j, signal in enumerate(told[top].signals):
            part, delta = self.learn(layers[top - 1], self.states(step, top)[j], signal)
            add(updates[top - 1], part)
            for k in range(top - 1, 0, -1):
                state = self.states(step, k)[j]
                signal = layers[k].hand_down(delta, state.out_RBDC.shape[1])
                part, delta = layers[k - 1].backward(state, signal + told[k].signals[j] if k in told else signal)
                add(updates[k - 1], part)
        return Updates(updates, losses={f"loss/layer{k}": told[k].loss_R for k in losing})

    def top_errors(self, step: Step) -> list[tuple[list[LayerState], Tensor]]:
        signals = [signal.flatten(2) for signal in self._told_at_top(step).signals]
        return list(zip(self.passes(step), signals, strict=True))

    def pair(self, step: Step, k: int) -> Pair:
        """The two sides of the pairs of layer ``k`` as its loss sees them, of a step's strings and of no other rank's."""
        layers = self.network.layers
        activity = {
            (j, "head"): [self.seen(layers[j - 1], state, "head") for state in self.states(step, j)]
            for j in (k, self.trained_layers)
        }
        return self._pair(step, k, "head", self.positives(step, activity[k, "head"], k), activity)

    @staticmethod
    def passes(step: Step) -> list[list[LayerState]]:
        """The states of all layers for the strings and, if there are any, for their partners; or for the two copies."""
        first = step.states if step.first_states is None else step.first_states
        return [first] if step.view_states is None else [first, step.view_states]

    @classmethod
    def states(cls, step: Step, k: int) -> list[LayerState]:
        """The same of layer ``k``."""
        return [states[k - 1] for states in cls.passes(step)]

    def merged(self, k: int) -> int:
        """How many positions of layer ``k`` the next layer merges."""
        return self.network.layers[k].patch if k < len(self.network) else 1

    def positives(self, step: Step, outs: list[Tensor], k: int) -> tuple[Tensor, Tensor]:
        """The two sides of the pairs of layer ``k``, before a head, from what its loss sees of strings and partners."""
        wide = [out.float() if out.dtype == torch.bfloat16 else out for out in outs]
        return self._pairs_of(step, k).positives(wide[0], wide[1] if len(wide) > 1 else None, self.merged(k))

    def _pairs_of(self, step: Step, k: int) -> Pairs:
        """The pair scheme as it is drawn for a step and layer ``k``."""
        if not self.pairs.random_halves:
            return self.pairs
        assert step.batch.key_RB is not None
        return self.pairs.drawn(fold(step.batch.key_RB[:, 0], "half", k))

    def _activity(self, step: Step, heads: list[tuple[int, str]]) -> Activity:
        """What the losses of some heads see, for the strings of all ranks if they are compared: one gather for all heads."""
        layers = self.network.layers
        rows = [[self.seen(layers[k - 1], state, name) for state in self.states(step, k)] for k, name in heads]
        if self.compares_strings:
            wide = iter(self.strings_of_all_ranks([side for row in rows for side in row]))
            rows = [[next(wide) for _ in row] for row in rows]
        return dict(zip(heads, rows, strict=True))

    def _pair(self, step: Step, k: int, name: str, sides: tuple[Tensor, Tensor], activity: Activity) -> Pair:
        head = self.network.layers[k - 1].get_submodule(name)
        assert isinstance(head, LossHead)
        z1_RBDC, z2_RBDC = head(*sides)
        return Pair(z1_RBDC, z2_RBDC, head, k, step.batch.key_RB, self.shown(step, k, activity))

    def _told_at_top(self, step: Step) -> Told:
        top = self.trained_layers
        return self._told(step, top, "head", self._activity(step, [(top, "head")]))

    def _told(self, step: Step, k: int, name: str, activity: Activity) -> Told:
        """What the loss of a layer tells what it sees."""
        outs = activity[k, name]
        if self.compares_strings:
            step = step._replace(batch=self.batch_of_all_ranks(step.batch))
        h1, h2 = self.positives(step, outs, k)
        pair = self._pair(step, k, name, (h1, h2), activity)
        loss_R, g1, g2, update = self.pair_gradient(pair)
        g1, g2, heads = pair.head.backward(h1, h2, g1, g2)
        back = self._pairs_of(step, k).hand_back(g1, g2, self.merged(k))
        signals = [g.reshape(out.shape).to(out.dtype) for g, out in zip(back, outs, strict=False) if g is not None]
        if self.compares_strings:
            signals = [self.share(signal) for signal in signals]
        return Told(loss_R, signals, {f"{name}.{key}": grad for key, grad in (update | heads).items()})

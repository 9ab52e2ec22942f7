"""Oracles of the layerwise self-supervised rules: each layer's loss as a number, and its gradient by finite differences.

All below a layer is held fixed. What stands between its weights and its loss is here: which positions are whose partners, heads,
and which loss sees what of the layer. The losses themselves are in ``pair_losses.py``.

Shape suffixes: B batch (string), D position or pair, C channel, E units or channels of all positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from equations import draws, pair_losses
from equations.case import Answer, Case, Equation, State, descend, with_readout
from equations.hebbian import moments
from equations.network import Array, Parameters, PlainLayer, numeric_gradient
from equations.pair_losses import Loss, Told, softplus

OWN = ("weight_RGFE", "bias_RG1E", "projection_RGEC")
HEADS = ("head_RCE", "second_head_RCE")


# -------------------------------------------------------------------- who is whose partner


def top_of(case: Case) -> int:
    """The highest layer that has pairs, from 1: siblings are positions that the next layer merges."""
    patches = [layer.patch for layer in case.network.layers[1:]]
    if case.pairs is not None and case.pairs[0] == "PositionHalfPairs":
        return max(k for k, run in enumerate(case.runs(), 1) if run.out_BDC.shape[1] % 2 == 0)
    if case.pairs is not None and case.pairs[0] == "SiblingPairs":
        return next((k for k, patch in enumerate(patches) if patch < 2), len(patches))
    return case.depth


def partners(case: Case, k: int, seen: list[Array]) -> tuple[Array, Array]:
    """The two sides of the pairs of layer ``k``, ``[B, pairs, C]``, for what a loss sees of the strings and of their partners.

    Siblings: positions 2 d and 2 d + 1 of a string; with more than two under one parent each with the next, the last with the
    first. Halves: the first and the last channels of a position, or of the positions; random ones have zeros in place of the
    others. Two strings that share symbols, or two copies of one: all positions below a shared symbol as one vector, or one
    position each where the layer has no more positions than there are shared symbols.
    """
    assert case.pairs is not None
    kind, level = case.pairs
    h = seen[0]
    batch, positions, channels = h.shape
    if kind == "SiblingPairs":
        patch = case.network.layers[k].patch
        ends = [(0, 1)] if patch == 2 else [(j, (j + 1) % patch) for j in range(patch)]
        links = [(first + i, first + j) for first in range(0, positions, patch) for i, j in ends]
        return np.stack([h[:, i] for i, _ in links], 1), np.stack([h[:, j] for _, j in links], 1)
    if kind == "PositionHalfPairs":
        half = positions // 2
        return h[:, :half].reshape(batch, 1, -1), h[:, half:].reshape(batch, 1, -1)
    if kind == "SelfPairs":
        return h, h
    if kind == "HalfPairs":
        return h[..., : channels // 2], h[..., channels // 2 :]
    if kind == "RandomHalfPairs":
        half = draws.half(case.key_B, k, channels)
        return np.where(half, h, 0), np.where(half, 0, h)
    shared = 1 if kind in ("ClassPairs", "MaskedPairs") else case.network.layers[0].patch ** (case.depth - (level or 0))
    sides = min(shared, positions)
    return h.reshape(batch, sides, -1), seen[1].reshape(batch, sides, -1)


# -------------------------------------------------------------------- a layer and its loss


class Scene:
    """One loss of one layer: what it sees of the layer, through which head.

    Args:
        case: the step.
        k: number of the layer, from 1.
        name: ``head``: the loss sees what the layer hands on; ``units_head``: its units.
        run: makes what the loss sees of layers ``first..k``, of the strings and of their partners, from parameters as they are.
        slow: the same through a slow copy, if the rule keeps one.
    """

    def __init__(
        self,
        case: Case,
        k: int,
        name: str,
        run: Callable[[], list[Array]],
        slow: Callable[[], list[Array]] | None = None,
    ):
        self.case, self.k, self.prefix, self.run = case, k, f"{name}.", run
        part = case.parts[k - 1]
        self.head = [part[self.prefix + name] for name in HEADS if self.prefix + name in part]
        self.own = {
            key.removeprefix(self.prefix): array
            for key, array in part.items()
            if key.startswith(self.prefix) and key.removeprefix(self.prefix) not in HEADS
        }
        slow_names = [f"target_{k}_{name}_{head}" for head in HEADS]
        slow_head = [case.buffers[buffer] for buffer in slow_names if buffer in case.buffers]
        self.slow = None if slow is None else self.through_head(*partners(case, k, slow()), slow_head)

    @staticmethod
    def through_head(one_BDC: Array, two_BDC: Array, head: list[Array]) -> tuple[Array, Array]:
        """Both sides through the head, or each through its own."""
        return (one_BDC @ head[0], two_BDC @ head[-1]) if head else (one_BDC, two_BDC)

    def sides(self) -> tuple[Array, Array]:
        """What the loss sees now."""
        return self.through_head(*partners(self.case, self.k, self.run()), self.head)

    def told(self) -> Told:
        """How it stands now."""
        case, top = self.case, top_of(self.case)
        one, two = (side.copy() for side in self.sides())
        return Told(
            case=case,
            k=self.k,
            top=top,
            shift=lambda name: draws.shift(case.key_B, name, self.k),
            coin_B=draws.coins(case.key_B, self.k),
            one_BDC=one,
            two_BDC=two,
            own={name: array.copy() for name, array in self.own.items()},
            slow=self.slow,
            context_BE=case.runs()[top - 1].out_BDC.reshape(len(case.x_BD), -1),
        )

    def gradients(self, equation: Callable[[Told], Loss], moved: list[Parameters]) -> tuple[list[Parameters], float]:
        """Gradients of the loss by some parameters, and its value.

        CLAPP with a matrix for retrodiction has no loss whose gradient it is: there what is held fixed are the signals at the two
        sides, and their product with the sides is what the parameters of the layer and its head go down.
        """
        told = self.told()
        loss = equation(told)
        value = loss(told.one_BDC, told.two_BDC, told.own)
        at_one, at_two, explicit = None, None, {}
        if equation is pair_losses.clapp and told.case.setting("retrodiction", False):
            at_one, at_two, explicit = pair_losses.clapp_signals(told)

        def behind() -> float:
            one, two = self.sides()
            return loss(one, two, self.own) if at_one is None else float((at_one * one).sum() + (at_two * two).sum())

        found = []
        for part in moved:
            own = {name: array for name, array in part.items() if name.removeprefix(self.prefix) in self.own}
            found.append(numeric_gradient(behind, {name: array for name, array in part.items() if name not in own}))
            if at_one is None:
                found[-1] |= numeric_gradient(lambda: loss(told.one_BDC, told.two_BDC, self.own), own)
            else:
                found[-1] |= {name: explicit[name.removeprefix(self.prefix)] for name in own}
        return found, value


def inputs(case: Case, k: int) -> list[Array]:
    """What layer ``k`` sees of the strings and, if there are any, of their partners; or of their two copies."""
    shown = [case.network.encode(tokens) for tokens in (case.x_BD, case.view_BD) if tokens is not None]
    if case.half_BD is not None:
        shown = [np.where(seen[..., None], shown[0], 0) for seen in (case.half_BD, ~case.half_BD)]
    return [stack(case.network.layers[: k - 1], h) for h in shown]


def copies(case: Case) -> list[PlainLayer]:
    """The layers with the weights of their slow copies."""
    found = []
    for k, layer in enumerate(case.network.layers, 1):
        slow = {name: case.buffers[f"target_{k}_{name}"] for name in OWN if f"target_{k}_{name}" in case.buffers}
        found.append(replace(layer, parameters=slow))
    return found


def stack(layers: list[PlainLayer], h_BDC: Array) -> Array:
    """What the last of some layers hands on."""
    for layer in layers:
        h_BDC = layer.forward(h_BDC).out_BDC
    return h_BDC


def named(part: Parameters, *prefixes: str) -> Parameters:
    """The parameters whose names start so."""
    return {name: array for name, array in part.items() if name.startswith(prefixes)}


def apart(case: Case, equation: Callable[[Told], Loss], copied: bool) -> Answer:
    """Every layer goes down its own loss.

    With ``expansion: backprop`` all of a layer goes down the loss of what it hands on; with ``random`` the units do not learn; with
    ``local`` they go down the same loss on the units themselves. A layer without a projection hands on its units.
    """
    expansion = case.setting("block.expansion", "backprop")
    layers: list[Parameters] = []
    losses: dict[str, float] = {}
    for k in range(1, top_of(case) + 1):
        layer, part, seen = case.network.layers[k - 1], case.parts[k - 1], inputs(case, k)
        through = expansion == "backprop" or not layer.projects
        slow = (lambda k=k, seen=seen: [copies(case)[k - 1].forward(h).out_BDC for h in seen]) if copied else None
        scene = Scene(case, k, "head", lambda layer=layer, seen=seen: [layer.forward(h).out_BDC for h in seen], slow)
        (update,), losses[f"loss/layer{k}"] = scene.gradients(equation, [named(part, *OWN[0 if through else 2 :], "head.")])
        if expansion == "local" and layer.projects:
            scene = Scene(case, k, "units_head", lambda layer=layer, seen=seen: [layer.forward(h).units_BDE for h in seen])
            (units,), losses[f"loss/units{k}"] = scene.gradients(equation, [named(part, *OWN[:2], "units_head.")])
            update |= units
        layers.append(update)
    if expansion != "backprop":  # nothing passes down through a second matrix: the layers above stay as they are
        layers += [{} for _ in case.network.layers[len(layers) :]]
    return with_readout(case, layers, losses=losses)


def end_to_end(case: Case, equation: Callable[[Told], Loss], copied: bool) -> Answer:
    """All layers go down the loss of the highest one that has pairs, or the sum of the losses of all that have."""
    top, seen = top_of(case), inputs(case, 1)
    found: list[Parameters] = [{} for _ in range(top)]
    losses: dict[str, float] = {}
    for k in range(1, top + 1) if case.setting("block.all_losses", False) else [top]:
        layers = case.network.layers[:k]
        slow = (lambda k=k: [stack(copies(case)[:k], h) for h in seen]) if copied else None
        scene = Scene(case, k, "head", lambda layers=layers: [stack(layers, h) for h in seen], slow)
        parts = [named(part, *OWN, *["head."] * (j == k)) for j, part in enumerate(case.parts[:k], 1)]
        gradients, losses[f"loss/layer{k}"] = scene.gradients(equation, parts)
        for total, part in zip(found, gradients, strict=False):
            for name, gradient in part.items():
                total[name] = total.get(name, 0) + gradient
    return with_readout(case, found, losses=losses)


def beside_labels(case: Case) -> Answer:
    """The sum of all layers' InfoNCE, times ``weight``, and the readout's loss, all through all layers below."""
    answer, error = end_to_end(case, pair_losses.info_nce, False), case.answered(case.runs()).error_BN
    supervised = case.network.backpropagate(case.runs(), error)
    for k in range(top_of(case)):
        scaled = {name: case.setting("weight", 1.0) * gradient for name, gradient in answer.gradients[k].items()}
        answer.gradients[k] = scaled | {name: scaled[name] + gradient for name, gradient in supervised[k].items()}
    return answer


def layerwise(equation: Callable[[Told], Loss]) -> Callable[[Case], Answer]:
    """The oracle of a loss."""

    def says(case: Case) -> Answer:
        return (end_to_end if case.setting("block.end_to_end", False) else apart)(case, equation, False)

    return says


# -------------------------------------------------------------------- BYOL's slow copy


def byol(case: Case) -> Answer:
    """The targets come from copies of the layers, which go towards the weights as they are in the step."""
    answer = (end_to_end if case.setting("block.end_to_end", False) else apart)(case, pair_losses.predicted_targets, True)
    answer.estimates = {
        f"target_{k}_{name}": part[name].copy()
        for k, part in enumerate(case.parts[: top_of(case)], 1)
        for name in OWN
        if name in part
    } | {
        f"target_{k}_head_{name.removeprefix('head.')}": part[name].copy()
        for k, part in enumerate(case.parts[: top_of(case)], 1)
        for name in part
        if name in ("head.head_RCE", "head.second_head_RCE")
    }
    return answer


def byol_after(case: Case, answer: Answer) -> State:
    """``target += (1 - momentum) (W - target)``, with ``W`` before the step."""
    return descend(case, answer, rate=1 - case.setting("momentum", 0.99))


# -------------------------------------------------------------------- goodness of a pair


def self_contrastive(case: Case) -> Answer:
    """Chen et al. 2025: ``softplus(t_pos - G+) + softplus(G- - t_neg)``, ``G`` the mean of ``relu(W x1 + W x2 + 2 b)^2``.

    ``x1`` and ``x2`` are the inputs of the two sides, in ``G-`` that of the string ``shift`` places further; where the sides have
    weights of their own, ``W1 x1 + W2 x2 + b1 + b2``. A mean over strings and pairs.
    """
    layers: list[Parameters] = []
    losses: dict[str, float] = {}
    thresholds = case.setting("positive_threshold", 1.0), case.setting("negative_threshold", 1.0)
    for k in range(1, top_of(case) + 1):
        layer, seen, shift = case.network.layers[k - 1], inputs(case, k), draws.shift(case.key_B, "negative", k)

        def loss(k: int = k, layer: PlainLayer = layer, seen: list[Array] = seen, shift: int = shift) -> float:
            one, two = partners(case, k, [layer.forward(h).a_BDE for h in seen])
            strings, pairs, _ = one.shape
            total = 0.0
            for b in range(strings):
                for sign, o, threshold in ((1, b, thresholds[0]), (-1, (b + shift) % strings, thresholds[1])):
                    for d in range(pairs):
                        a = one[b, d] + two[o, d]
                        goodness = float(np.mean(np.where(a > 0, a, 0) ** 2))
                        total += softplus(-sign * (goodness - threshold)) / (strings * pairs)
            return total

        losses[f"loss/layer{k}"] = loss()
        layers.append(numeric_gradient(loss, named(case.parts[k - 1], *OWN)))
    return with_readout(case, layers, moments(case), losses)


def self_contrastive_after(case: Case, answer: Answer) -> State:
    """Moments go a tenth of the way."""
    return descend(case, answer, rate=0.1)


# -------------------------------------------------------------------- the settings files

FD = 1e-6
"""Relative error of finite differences: a step of 1e-6 loses about eight of sixteen digits."""

FLAT = 1e-5
"""A gradient below is rounding: that of a relu network whose units are off, or of a direction in which only the length changes."""

NARROW = ("--model.network.width=8", "--model.network.bottleneck=3")
HEAD = ("--model.block.head=3",)
ONE_HEAD, TWO_HEADS = "--model.block.separate_heads=false", "--model.block.separate_heads=true"
LOCAL = ("--model.network=LocallyConnectedNetwork", "--model.network.width=5", *NARROW[1:])
TANH = ("--model.network.activation=tanh",)
RANDOM, EXPANSION = ("--model.block.expansion=random",), ("--model.block.expansion=local",)
END_TO_END = ("--model.block.end_to_end=true",)
CLASS = ("--data.pairs=ClassPairs",)
HALVES = ("--data.pairs=HalfPairs", "--model.network.width=6", "--model.network.bottleneck=4")
RANDOM_HALVES = ("--data.pairs=RandomHalfPairs", "--model.network.width=6", "--model.network.bottleneck=4")
POSITIONS = ("--data.pairs=PositionHalfPairs", *NARROW)
MASKED = ("--data.pairs=MaskedPairs",)
SELF = ("--data.pairs=SelfPairs",)
SYNONYMS = ("--data.pairs=SynonymPairs", "--data.pairs.level=2")
TRIPLES = ("--data.s=3",)
AUTOGRAD = ("--model.form=autograd",)


def settings(
    says: Callable[[Case], Answer],
    *variants: tuple[str, ...],
    small: tuple[str, ...] = NARROW,
    after: Callable[[Case, Answer], State] = descend,
) -> Equation:
    """An oracle by finite differences, of cases in which every parameter of a layer matters."""

    def telling(case: Case) -> Answer:
        answer = says(case)
        for k, gradients in enumerate(answer.gradients, 1):
            for name, gradient in gradients.items():
                assert np.abs(gradient).max() > FLAT, f"layer {k}: {name} makes no difference, and the case tells nothing"
        return answer

    return Equation(telling, after, variants, FD, small=small)


CONTRASTIVE = layerwise(pair_losses.info_nce)
PREDICTED = ("--model.hidden=8", *HEAD, *NARROW)
"""A predictor of 8 hidden units and a head of 3: 32 and 32 would take 5,000 finite differences a layer."""
WARM = "--model.temperature=0.7"

EQUATIONS: dict[str, Equation] = {
    # what stands between a layer and its loss is the same code for all of these rules, and tried with this one
    "sibling_contrastive": settings(
        CONTRASTIVE,
        CLASS,
        HALVES,
        POSITIONS,
        SYNONYMS,
        TRIPLES,
        TANH,
        LOCAL,
        (WARM,),
        ("--model.score=cosine", WARM),
        ("--model.score=cosine", *HEAD, TWO_HEADS),
        HEAD,
        (*HEAD, TWO_HEADS, *CLASS),
        (*HEAD, TWO_HEADS, *EXPANSION),
        ("--model.label_context=true", WARM),
        ("--data.label_size=16", "--model.clip=0.01"),
        RANDOM_HALVES,
        (*MASKED, *HEAD),
    ),
    "class_contrastive": settings(CONTRASTIVE, EXPANSION, small=HEAD),
    "label_context": settings(CONTRASTIVE, (*EXPANSION, WARM)),
    "random_expansion": settings(CONTRASTIVE, (*CLASS, WARM), ("--data.labels=false",)),
    "local_expansion": settings(CONTRASTIVE, (*CLASS, WARM), LOCAL, TANH),
    "end_to_end_contrastive": settings(CONTRASTIVE, (*CLASS, WARM), HALVES, LOCAL, ("--model.label_context=true",), MASKED),
    "end_to_end_all_contrastive": settings(CONTRASTIVE, (*CLASS, WARM), HALVES, LOCAL),
    "backprop_contrastive": settings(beside_labels, ("--model.weight=0.3", WARM), CLASS, LOCAL),
    "gim": settings(layerwise(pair_losses.greedy_info_max), CLASS),
    "phyll": settings(layerwise(pair_losses.phyll), HALVES),
    "clapp": settings(
        layerwise(pair_losses.clapp),
        CLASS,
        EXPANSION,
        END_TO_END,
        TANH,
        (*HEAD, TWO_HEADS),
        ("--model.both_terms=false",),
        AUTOGRAD,
        ("--model.retrodiction=true", *END_TO_END),
        ("--model.retrodiction=true", *AUTOGRAD, *SYNONYMS),
        MASKED,
        (*RANDOM_HALVES, *EXPANSION),
    ),
    "clapp_local": settings(
        layerwise(pair_losses.clapp),
        HALVES,
        ("--model.block.expansion=backprop",),
        (*HEAD, ONE_HEAD),
        (*AUTOGRAD, "--data.batch_size=12"),
        ("--model.both_terms=true",),
    ),
    "clapp_pp": settings(
        layerwise(pair_losses.clapp_plus_plus),
        ("--model.context=own", *TRIPLES),
        ("--model.context=top", *HALVES),
        (*CLASS, "--model.network.bottleneck=2"),
        END_TO_END,
        HEAD,
    ),
    "simsiam": settings(layerwise(pair_losses.predicted_targets), CLASS, EXPANSION, END_TO_END, (ONE_HEAD,), small=PREDICTED),
    "byol": settings(
        byol,
        CLASS,
        RANDOM,
        END_TO_END,
        (*END_TO_END, *CLASS),
        (ONE_HEAD, "--model.momentum=0.5"),
        MASKED,
        (*RANDOM_HALVES, *TANH),
        small=PREDICTED,
        after=byol_after,
    ),
    "barlow_twins": settings(layerwise(pair_losses.barlow_twins), CLASS, small=(*HEAD, *NARROW)),
    "vicreg": settings(
        layerwise(pair_losses.vicreg), (*CLASS, "--model.variance=3", "--model.covariance=2"), small=(*HEAD, *NARROW)
    ),
    "sfa": settings(layerwise(pair_losses.slow_features), (*CLASS, "--model.ridge=0.3"), small=(*HEAD, *NARROW)),
    "lpl": settings(
        layerwise(pair_losses.latent_prediction),
        AUTOGRAD,
        ("--model.hebbian=0.3", "--model.decorrelation=2", *CLASS),
        EXPANSION,
        END_TO_END,
        small=(*HEAD, *NARROW),
    ),
    "scff": settings(
        self_contrastive,
        CLASS,
        SELF,
        (*SELF, "--model.network=CompetitiveNetwork", "--model.network.power=1.3"),
        (*HALVES[:2], *LOCAL[:1], "--model.network.width=6"),
        SYNONYMS,
        TRIPLES,
        TANH,
        LOCAL[:2],
        ("--model.positive_threshold=0.6", "--model.negative_threshold=1.4"),
        small=(),
        after=self_contrastive_after,
    ),
}

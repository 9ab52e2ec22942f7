"""What a rule is shown, what it may look at, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from torch import Tensor

from datamodules import Batch
from networks import LayerState, LayerUpdate, NetworkConfig, ReadoutState


@dataclass(frozen=True)
class Locality:
    """What a layer's update, and what it tracks, may depend on beyond pre- and postsynaptic activity and the weight itself.

    A layer's activity is what its network computes, normalisation included.

    ``tests/rules/test_every_rule.py`` proves each of these for every settings file, and :func:`rules.checking.check_rule` all
    but the last for any rule: what is not allowed is changed, and nothing moves; what is said to matter is changed, and
    something does.

    Attributes:
        partner: the layer's own activity for the positive partner.
        batch: the layer's activity for the other strings of the batch: negatives, variances, similarities.
        lateral: activity of the layer's other units for the same string and its partner, such as a score or a normalisation.
        label: the class itself.
        scalar_error: one number a string that says how wrong the network's answer is.
        error: the error at the readout, one number a class.
        other_layers: activity or weights of other layers.
        transport_within_layer: a matrix of the layer (projection, head, predictor) is used in both directions: it carries
            activity forward, and, transposed, the signal back.
    """

    partner: bool = False
    batch: bool = False
    lateral: bool = False
    label: bool = False
    scalar_error: bool = False
    error: bool = False
    other_layers: bool = False
    transport_within_layer: bool = False

    def through_output(self, network: NetworkConfig, transport: bool = True) -> Locality:
        """The same for a signal that arrives at what a layer of ``network`` hands on and passes a normalisation, which mixes
        units, and a bottleneck, whose projection carries it back unless ``transport`` is false."""
        projected = network.bottleneck is not None
        return replace(
            self,
            lateral=self.lateral or network.normalise or projected,
            transport_within_layer=self.transport_within_layer or (projected and transport),
        )


class Step(NamedTuple):
    """All that has been computed when a rule is asked for its updates.

    Attributes:
        batch: the strings.
        states: one state a layer for ``batch.x_RBD``.
        view_states: the same for ``batch.view_RBD``; None if there is none.
        readout: logits and error.
        view_readout: the same for a second pass that reaches the readout, in rules that make one.
        first_states: where pairs are two copies of each string: the states for the first, ``view_states`` are for the second;
            else None.
    """

    batch: Batch
    states: list[LayerState]
    view_states: list[LayerState] | None
    readout: ReadoutState
    view_readout: ReadoutState | None = None
    first_states: list[LayerState] | None = None


@dataclass(frozen=True)
class Updates:
    """All that a rule says of a step. Nothing has moved yet.

    Attributes:
        layers: gradients of the layers from the first, by parameter name; a parameter that is not named does not move.
        estimates: the batch's value of each tracked buffer, by the buffer's name.
        losses: ``[R]`` each, for loggers, by names such as ``loss/layer1``.
    """

    layers: list[LayerUpdate]
    estimates: dict[str, Tensor] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)


def add(total: LayerUpdate, part: LayerUpdate) -> None:
    """Add a layer's gradients to those that it has."""
    for name, grad in part.items():
        total[name] = total[name] + grad if name in total else grad

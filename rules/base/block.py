"""What stands between a layer's weights and its loss."""

from __future__ import annotations

from dataclasses import dataclass, replace

from networks import NetworkConfig
from networks.config import checked_size
from rhm import InvalidInput
from rules.base.contract import Locality

EXPANSIONS = ("backprop", "random", "local")


@dataclass(frozen=True)
class Block:
    """What stands between a layer's weights and its loss.

    Args:
        head: width of a linear head that the loss sees and the next layer does not (Chen et al. 2020): a number, or the task's
            symbols, ``v``, ``2v`` and so on; None has no head.
        separate_heads: a head for each side of a pair, for pairs whose sides are not alike, such as siblings.
        expansion: how the units below a bottleneck learn: ``backprop`` from the loss on the bottleneck, through its projection;
            ``local`` from the same loss on the units themselves; ``random`` not at all. With the last two no gradient passes a
            second matrix anywhere: layers above those that have pairs stay random, under a linear readout.
        end_to_end: only the top layer that has pairs has a loss, and it is propagated back through all layers below.
        all_losses: end to end, all layers that have pairs have a loss, each propagated back through all layers below its own.
    """

    head: int | str | None = None
    separate_heads: bool = False
    expansion: str = "backprop"
    end_to_end: bool = False
    all_losses: bool = False

    def check(self) -> None:
        """Refuse what does not fit together.

        Raises:
            InvalidInput: a head that is no size, separate heads without a head, an unknown expansion, ``end_to_end`` with an
                expansion that takes no gradient, ``all_losses`` without ``end_to_end``.
        """
        checked_size("model.block.head", self.head)
        if self.separate_heads and self.head is None:
            raise InvalidInput("model.block.separate_heads", True, "true only with model.block.head")
        if self.expansion not in EXPANSIONS:
            raise InvalidInput("model.block.expansion", self.expansion, f"one of {', '.join(EXPANSIONS)}")
        if self.end_to_end and self.expansion != "backprop":
            raise InvalidInput("model.block.expansion", self.expansion, "backprop with model.block.end_to_end")
        if self.all_losses and not self.end_to_end:
            raise InvalidInput("model.block.all_losses", True, "true only with model.block.end_to_end")

    def locality(self, own: Locality, network: NetworkConfig) -> Locality:
        """What a layer with this block sees, beside what its loss sees of its own: the layers below end to end, and the
        matrices that carry the loss's signal back."""
        through = own.through_output(network, transport=self.expansion == "backprop")
        transport = through.transport_within_layer or self.head is not None
        return replace(through, transport_within_layer=transport, other_layers=own.other_layers or self.end_to_end)

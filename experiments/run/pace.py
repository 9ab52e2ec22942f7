"""How many steps a call of the trainer makes."""

from __future__ import annotations

import math

from pytorch_lightning import Callback

from datamodules import ReplicaDataModule
from rhm import InvalidInput
from rules import LocalRule

WORK = 1e10
"""Floating-point operations of a call at the most, about half a second of two cores: signals and progress wait for its end."""
OURS = ("callbacks", "experiments")
"""Packages whose callbacks know that a call may make several steps; ``every`` of one that looks at steps is its pace."""
FORWARD_AND_BACKWARD = 6
"""Operations of a step for each weight and each place where it is used."""


def steps_per_call(
    wanted: int | None, rule: LocalRule, data: ReplicaDataModule, paces: dict[str, int], callbacks: list[Callback]
) -> int:
    """The steps of a call: as many as wanted, else as many as divide all paces and take no longer than a person waits.

    Args:
        wanted: what was asked for; None leaves it open.
        rule: prepared.
        data: that it trains on.
        paces: steps from one validation or checkpoint to the next, by the setting that says so.
        callbacks: of the run; a person's own that wants to see each step gets it.

    Raises:
        InvalidInput: fewer than one, or a number that does not divide a pace.
    """
    ours = [callback for callback in callbacks if type(callback).__module__.split(".")[0] in OURS]
    own = {f"{type(callback).__name__}.every": getattr(callback, "every", None) for callback in ours}
    paces |= {key: pace for key, pace in own.items() if isinstance(pace, int)}
    if wanted is None:
        if any(sees_each_step(callback) for callback in callbacks if callback not in ours):
            return 1
        together, most = math.gcd(*paces.values()), max(1, int(WORK / operations(rule, data)))
        return max(divisor for divisor in range(1, together + 1) if together % divisor == 0 and divisor <= most)
    if wanted < 1:
        raise InvalidInput("steps_per_call", wanted, "an integer of at least 1, or null")
    for key, pace in paces.items():
        if pace % wanted:
            raise InvalidInput("steps_per_call", wanted, f"a number that divides {key}={pace}, or null")
    return wanted


def sees_each_step(callback: Callback) -> bool:
    """Whether a callback does something at each step and not only at validations."""
    hooks = "on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_optimizer_step"
    return any(getattr(type(callback), name) is not getattr(Callback, name) for name in hooks)


def operations(rule: LocalRule, data: ReplicaDataModule) -> float:
    """Floating-point operations of a step, roughly: those of the layers' products."""
    passes = 1 + data.pairs.two_strings + 2 * data.pairs.two_copies if rule.uses_pairs and data.pairs is not None else 1
    strings = data.batch_size * passes
    weights = [sum(w.numel() for w in layer.parameters()) / layer.groups for layer in rule.network.layers]
    return FORWARD_AND_BACKWARD * strings * sum(w * p for w, p in zip(weights, rule.network.positions, strict=True))

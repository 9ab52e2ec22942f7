"""Oracles of Forward-Forward, its self-contrastive form, and SoftHebb.

Shape suffixes: B batch, D position, C channel.
"""

from __future__ import annotations

from equations.case import Equation

EQUATIONS: dict[str, Equation] = {}

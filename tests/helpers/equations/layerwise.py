"""Oracles of the layerwise self-supervised rules.

Shape suffixes: B batch, D position, C channel.
"""

from __future__ import annotations

from equations.case import Equation

EQUATIONS: dict[str, Equation] = {}

"""Oracles of the rules that carry an error, or what stands for it, to the layers.

Shape suffixes: B batch, D position, C channel.
"""

from __future__ import annotations

from equations.case import Equation

EQUATIONS: dict[str, Equation] = {}

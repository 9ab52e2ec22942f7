"""The oracle of Mono-Forward, which learns as a linear classifier on every layer does; the answer is in its own test."""

from __future__ import annotations

from equations.layerwise import LOCAL, NARROW, TANH, settings
from equations.supervised import DENSE, SHARED, cross_entropy, with_heads

EQUATIONS = {"mono_forward": settings(with_heads(cross_entropy), NARROW, LOCAL, DENSE, TANH, small=SHARED)}

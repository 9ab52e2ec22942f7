"""An equation for every settings file in ``configs/rules``, independent of the code under test: plain numpy and loops.

``case.py`` has what an oracle is given and answers, ``network.py`` the network that they share, ``ask.py`` the rule under test.
"""

from __future__ import annotations

import importlib
import pkgutil

from equations.case import Answer, Case, Equation, State

EQUATIONS: dict[str, Equation] = {}
"""By settings file: what the modules of this folder have under that name."""

for module in pkgutil.iter_modules(__path__, "equations."):
    own = getattr(importlib.import_module(module.name), "EQUATIONS", {})
    assert not EQUATIONS.keys() & own.keys(), f"two equations for {EQUATIONS.keys() & own.keys()}"
    EQUATIONS |= own

__all__ = ["EQUATIONS", "Answer", "Case", "Equation", "State"]

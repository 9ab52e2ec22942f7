"""An equation for every settings file in ``configs/rules``, independent of the code under test: plain numpy and loops.

``case.py`` has what an oracle is given and answers, ``network.py`` the network that they share, ``ask.py`` the rule under test.
"""

from __future__ import annotations

from equations import codes, feedback, hebbian, layerwise, references, supervised
from equations.case import Answer, Case, Equation, State

EQUATIONS: dict[str, Equation] = {
    **references.EQUATIONS,
    **feedback.EQUATIONS,
    **layerwise.EQUATIONS,
    **supervised.EQUATIONS,
    **hebbian.EQUATIONS,
    **codes.EQUATIONS,
}

__all__ = ["EQUATIONS", "Answer", "Case", "Equation", "State"]

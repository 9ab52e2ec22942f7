"""The size of a task and what theory says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rhm.errors import InvalidInput

MOST_RULES = 2**21  # of a level: they are drawn in seconds and kept as a table


class TaskSizes:
    """What networks, rules and probes ask of a task, with a grammar or without.

    Attributes:
        v: vocabulary size.
        n: number of classes.
        s: tuple size, positions that have one parent.
        L: depth; level 0 holds the visible tokens, level L the class.
    """

    v: int
    n: int
    s: int
    L: int

    @property
    def given(self) -> dict[str, Any]:
        """What it was made with, by name: what settings, results and checkpoints say of it."""
        return dict(vars(self))

    @property
    def levels(self) -> tuple[int, ...]:
        """The levels whose symbols are known, from the tokens to the class."""
        return tuple(range(self.L + 1))

    def width(self, level: int) -> int:
        """Number of symbols at a level, ``s**(L - level)``."""
        return self.s ** (self.L - level)

    def symbols(self, level: int) -> int:
        """Number of different symbols at a level: ``n`` for the class, ``v`` below."""
        return self.n if level == self.L else self.v

    def unasked(self, level: int) -> int:
        """How many of a level's symbols, the last ones, say nothing: probes are not asked for them."""
        return 0

    @property
    def length(self) -> int:
        """Tokens of a string, ``s**L``."""
        return self.s**self.L


@dataclass(frozen=True)
class OwnTask(TaskSizes):
    """Parameters of strings that no grammar has made: of their hierarchy the tokens and the class are known.

    Attributes:
        v, n, s, L: see :class:`TaskSizes`.
        strings: how many there are.
        fingerprint: of tokens and labels; other strings have another one.
    """

    v: int
    n: int
    s: int
    L: int
    strings: int
    fingerprint: str

    @property
    def levels(self) -> tuple[int, ...]:
        return 0, self.L


@dataclass(frozen=True)
class Task(TaskSizes):
    """Parameters of the Random Hierarchy Model (Cagnetta et al., PRX 14, 031001, 2024).

    Args:
        v: vocabulary size, the number of symbols at each level below the class.
        n: number of classes.
        m: synonyms, the number of production rules of each symbol.
        s: tuple size, the number of children of a symbol.
        L: depth; level 0 holds the visible tokens, level L the class.

    Raises:
        InvalidInput: a size under 1; more rules than distinct tuples (``m*v > v**s`` or ``n*m > v**s``);
            tuples that cannot be numbered in 63 bits.
    """

    v: int
    n: int
    m: int
    s: int
    L: int

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInput(key, repr(value), "an integer of at least 1")
        if self.L > 1000 or self.L * math.log2(self.s) > 31:
            raise InvalidInput("L", self.L, f"at most 1000 levels and s**L = 2**31 tokens, they are {self.s}**{self.L}")
        if (rules := max(self.v, self.n) * self.m) > MOST_RULES:
            key = max(("m", "v", "n"), key=lambda key: getattr(self, key))
            allowed = f"at most {MOST_RULES} rules a level, they are {max(self.v, self.n)} * {self.m} = {rules}"
            raise InvalidInput(key, getattr(self, key), allowed)
        if self.s * math.log2(self.v) >= 63:
            raise InvalidInput("v, s", f"v={self.v}, s={self.s}", f"v**s under 2**63, it is {self.v}**{self.s}")
        tuples = self.v**self.s
        if self.L > 1 and self.m * self.v > tuples:
            raise InvalidInput("m", self.m, f"m*v at most v**s, that is m <= {tuples // self.v} at v={self.v}, s={self.s}")
        if self.n * self.m > tuples:
            raise InvalidInput(
                "n", self.n, f"n*m at most v**s, that is n <= {tuples // self.m} at v={self.v}, m={self.m}, s={self.s}"
            )

    @property
    def nodes(self) -> int:
        """Internal nodes of a derivation, each of which chooses one of ``m`` rules."""
        return sum(self.width(level) for level in range(1, self.L + 1))

    @property
    def P_max(self) -> int:
        """Number of strings, ``n * m**nodes``, exact at any size."""
        return self.n * self.m**self.nodes

    @property
    def chance(self) -> float:
        """Accuracy of guessing the class, ``1/n``: classes are balanced by construction."""
        return 1 / self.n

    @property
    def supervised_complexity(self) -> int:
        """``n m^L``, the order of the training strings a deep network needs with labels (Cagnetta et al. 2024)."""
        return self.n * self.m**self.L

    @property
    def self_supervised_complexity(self) -> int:
        """``v m^3``, the order of the strings that latent prediction needs, at any depth (arXiv 2605.27734)."""
        return self.v * self.m**3

    @property
    def coverage_floor(self) -> float:
        """``n m ln 10``: with fewer strings over 10 % of the root's rules stay unseen, whatever the learner."""
        return self.n * self.m * math.log(10)

    @property
    def laws(self) -> dict[str, float]:
        """What theory says of the number of strings that are needed, by formula: the floor, latent prediction, labels."""
        return {
            "n m ln 10": self.coverage_floor,
            "v m^3": self.self_supervised_complexity,
            "n m^L": self.supervised_complexity,
        }

    @property
    def unlabelled_signal(self) -> bool:
        """Whether the distribution of unlabelled strings carries any information on the grammar.

        When every tuple is used at every level (``m = v**(s-1)``, and ``n*m = v**s`` at the root) strings are uniform.
        """
        tuples = self.v**self.s
        return self.n * self.m < tuples or (self.L > 1 and self.m * self.v < tuples)


@dataclass(frozen=True)
class SparseTask(TaskSizes):
    """Sizes of the strings of a grammar whose symbols stand among silent positions, see :mod:`rhm.silence`.

    A symbol has ``s (S0 + 1)`` positions below it, and a silent position shows one more symbol, ``v``.

    Args:
        informative: parameters of the grammar, by which results are told apart and laws are stated.
        silent: ``S0``, silent positions beside each informative symbol.

    Raises:
        InvalidInput: ``silent`` is no integer of at least 0, or the strings have over ``2**31`` tokens.
    """

    informative: Task
    silent: int

    def __post_init__(self) -> None:
        if isinstance(self.silent, bool) or not isinstance(self.silent, int) or self.silent < 0:
            raise InvalidInput("silent", repr(self.silent), "an integer of at least 0")
        if self.L * math.log2(self.s) > 31:
            allowed = f"at most (s (silent + 1))**L = 2**31 tokens, they are {self.s}**{self.L}"
            raise InvalidInput("silent", self.silent, allowed)

    @property
    def given(self) -> dict[str, Any]:
        """Those of the grammar: what is silent is said apart, as all that strings are given beyond a grammar."""
        return self.informative.given

    @property
    def silence(self) -> int:
        """The symbol of silent positions."""
        return self.informative.v

    @property
    def v(self) -> int:  # type: ignore[override]
        """Symbols of a level, silence among them."""
        return self.informative.v + 1

    @property
    def n(self) -> int:  # type: ignore[override]
        """Number of classes."""
        return self.informative.n

    @property
    def m(self) -> int:
        """Synonyms."""
        return self.informative.m

    @property
    def s(self) -> int:  # type: ignore[override]
        """Positions that have one parent."""
        return self.informative.s * (self.silent + 1)

    @property
    def L(self) -> int:  # type: ignore[override]
        """Depth."""
        return self.informative.L

    @property
    def chance(self) -> float:
        """Accuracy of guessing the class."""
        return self.informative.chance

    def unasked(self, level: int) -> int:
        return int(level < self.L)

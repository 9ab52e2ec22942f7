"""What is raised when a person asks for something that cannot be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InvalidInput(ValueError):
    """A value that a person gave is not allowed: one line with its name, what it was and what is allowed.

    Args:
        key: name of the argument, as the person wrote it.
        got: the value that was given.
        allowed: which values are allowed, in words.
    """

    def __init__(self, key: str, got: object, allowed: str):
        self.key, self.got, self.allowed = key, got, allowed
        super().__init__(f"{key}: got {got}, allowed: {allowed}")


class InvalidString(InvalidInput):
    """A string that the grammar cannot produce, with the place where parsing stops."""


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name, other than ``name`` itself, that is closest to it; None when none is close."""
    lowered = {k.lower(): k for k in sorted(set(known) - {name})}
    close = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.5)
    return lowered[close[0]] if close else None


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'X'?"`` for the closest known name, or an empty text when none is close."""
    close = closest(name, known)
    return f"; did you mean '{close}'?" if close else ""

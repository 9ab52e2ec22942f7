"""Standard output and error: any letter can be written to them, and what they refuse is said of them and of nothing else."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from rhm import InvalidInput

SPELLED = {"±": "+-", "–": "-", "≤": "<=", "≥": ">=", "…": "...", "†": "+"}
"""Ours, for a terminal without them; any other letter is escaped."""


def _spell(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    letters = error.object[error.start : error.end]
    return "".join(SPELLED.get(a, a.encode("ascii", "backslashreplace").decode()) for a in letters), error.end


codecs.register_error("spelled", _spell)


def spelled(text: str, encoding: str) -> str:
    """A text in the letters that an encoding has."""
    return text.encode(encoding, "spelled").decode(encoding)


class StandardOutput:
    """Standard output that says itself, once, that it cannot be written, whoever writes.

    Args:
        stream: to write to.
    """

    def __init__(self, stream: IO[str]):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        with self._told():
            return self.stream.write(text)

    def flush(self) -> None:
        """Write what has been kept back."""
        with self._told():
            self.stream.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())  # else Python tries again at its end
            if isinstance(error, BrokenPipeError):
                raise
            allowed = "a terminal, a pipe or a file that can be written"
            raise InvalidInput("standard output", error.strerror, allowed) from error


@contextmanager
def standard_streams() -> Iterator[None]:
    """While a command is done, any letter can be written, and standard output says itself what is wrong with it.

    A reader that has gone, such as ``head``, ends the command without a word.
    """
    before = sys.stdout
    for stream in before, sys.stderr:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelled")
    sys.stdout = StandardOutput(before)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        raise SystemExit(1) from None
    except InvalidInput as error:
        print(f"rhm: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    finally:
        sys.stdout = before

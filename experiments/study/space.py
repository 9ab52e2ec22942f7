"""A space of settings that a search looks through: a list of values or a range of numbers for each."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rhm import InvalidInput

OUTER = 0.05
"""Share of a range, at either end, that counts as its edge: a draw never meets the end itself."""
DIGITS = 3
"""Of a number that is drawn: no rule tells more apart, and a person reads it."""


@dataclass(frozen=True)
class Range:
    """Numbers that are drawn evenly, or evenly in their logarithm.

    Args:
        low, high: ends.
        log: in the logarithm.

    Raises:
        InvalidInput: ends that are none.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in (self.low, self.high))
        if not numbers or not -math.inf < self.low < self.high < math.inf or (self.log and self.low <= 0):
            got = f"low {self.low}, high {self.high}"
            raise InvalidInput("range", got, f"two numbers{' above 0' if self.log else ''}, the lower one first")

    def place(self, value: float) -> float:
        """Where a number lies, 0 at the lower end and 1 at the higher."""
        low, high, own = (math.log(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        return (own - low) / (high - low)

    @property
    def middle(self) -> float:
        """A number as it may be drawn, half way between the ends."""
        return math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2


class Space:
    """What a search may choose.

    Args:
        key: of the setting that gives it.
        given: for each setting a list of values, or ``{low: , high: , log: }``.

    Raises:
        InvalidInput: no setting, or one without values.
    """

    def __init__(self, key: str, given: Mapping[str, Any]):
        if not given or not all(isinstance(values, list | dict) and values for values in given.values()):
            raise InvalidInput(key, given, "a list of values, or {low: , high: , log: }, for each setting, one setting or more")
        self.lists: dict[str, list[Any]] = {}
        self.ranges: dict[str, Range] = {}
        for name, values in given.items():
            if isinstance(values, list):  # each value once; 1 and True are two
                self.lists[name] = list({json.dumps(value): value for value in values}.values())
                continue
            try:
                self.ranges[name] = Range(**values)
            except (TypeError, InvalidInput) as error:
                raise InvalidInput(
                    f"{key}.{name}",
                    values,
                    "{low: , high: } with numbers, the lower one first, and log: true "
                    "for numbers above 0 that are drawn evenly in their logarithm",
                ) from error
        self.names = list(given)

    @property
    def size(self) -> float:
        """The number of combinations."""
        return math.inf if self.ranges else math.prod(len(values) for values in self.lists.values())

    def examples(self, place: str = "low") -> Iterator[dict[str, Any]]:
        """Combinations in which each value of each list stands once or more.

        Args:
            place: what they have of each range: its ``low`` or ``high`` end, or its ``middle``, as a number that is drawn.
        """
        of_ranges = {name: getattr(own, place) for name, own in self.ranges.items()}
        if place == "middle":
            of_ranges = {name: _to_digits(number) for name, number in of_ranges.items()}
        for i in range(max((len(values) for values in self.lists.values()), default=1)):
            yield {
                name: self.lists[name][i % len(self.lists[name])] if name in self.lists else of_ranges[name]
                for name in self.names
            }

    def read(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Settings from what was drawn: an element of a list as JSON text, a number of a range to a few digits."""
        return {name: json.loads(drawn[name]) if name in self.lists else _to_digits(drawn[name]) for name in self.names}

    def fixed(self, key: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What would have to be drawn to read these settings, as far as they are of this space.

        Args:
            key: of the setting that gives them.
            settings: some of them.

        Raises:
            InvalidInput: a value that cannot be drawn.
        """
        found: dict[str, Any] = {}
        for name, value in settings.items():
            if name in self.lists:
                drawn = {json.dumps(own): own for own in self.lists[name]}
                if json.dumps(value) not in drawn:
                    raise InvalidInput(f"{key}.{name}", value, f"one of {self.lists[name]}")
                found[name] = json.dumps(value)
            elif name in self.ranges:
                own = self.ranges[name]
                if isinstance(value, bool) or not isinstance(value, int | float) or not own.low <= value <= own.high:
                    raise InvalidInput(f"{key}.{name}", value, f"a number from {own.low} to {own.high}")
                found[name] = float(value)
        return found

    def at_edge(self, settings: Mapping[str, Any]) -> list[str]:
        """Names of the settings, of those that are given, whose value lies at an end of its range, or is the first or last of a
        list of numbers.

        A list with anything but numbers has no ends, nor has a pair of values; zero is not an end, as nothing lies beyond.
        """
        ranges = {name: own for name, own in self.ranges.items() if name in settings}
        found = [name for name, own in ranges.items() if not OUTER <= own.place(settings[name]) <= 1 - OUTER]
        for name, values in self.lists.items():
            if name not in settings:
                continue
            ordered = len(values) > 2 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
            found += [name] if ordered and settings[name] in (min(values), max(values)) and settings[name] != 0 else []
        return [name for name in self.names if name in found]


def _to_digits(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")


def switched_on(settings: Mapping[str, Any]) -> int:
    """How many settings are more than nothing: not null, false, zero or empty. Fewer are simpler."""
    return sum(bool(value) for value in settings.values())

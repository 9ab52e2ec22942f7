"""What the searches of a study have chosen: a file that they write and that reports read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.files import UNREADABLE, number_of, read_json, text_of, whole_of, write_json
from rhm import InvalidInput


@dataclass(frozen=True)
class Chosen:
    """What a search has chosen.

    Attributes:
        settings: by their dotted names.
        accuracy: mean over the replicas of the search, those that have decided.
        at_edge: names of the settings whose value lies at an end of its range, and ``steps`` where these are the
            fewest or the most of three lengths or more.
        run: of the search, with these settings.
        tried: how many settings were.
        failed: how many of them have no results.
        budget: steps times replicas of all runs of the search.
        steps: of the figures' runs; None for the study's.
    """

    settings: dict[str, Any]
    accuracy: float
    at_edge: list[str]
    run: str
    tried: int
    failed: int
    budget: int
    steps: int | None = None

    @classmethod
    def of(cls, content: Any) -> Chosen:
        """What a file says of a search; one of :data:`experiments.files.UNREADABLE` if that is nothing."""
        own = cls(**content)
        if not isinstance(own.settings, dict) or not set(own.at_edge) <= {*own.settings, "steps"}:
            raise ValueError("settings are not those of a search")
        number_of(content, "accuracy", most=1)
        text_of(content, "run")
        for key in "tried", "failed", "budget", *(["steps"] if own.steps is not None else []):
            whole_of(content, key)
        return own


def read_chosen(path: Path) -> dict[str, Chosen]:
    """What was chosen by each search of a study; nothing where there is no file.

    Raises:
        InvalidInput: it cannot be read.
    """
    try:
        return {str(key): Chosen.of(entry) for key, entry in read_json(path).items()}
    except FileNotFoundError:
        return {}
    except UNREADABLE as error:
        got = f"{path} ({type(error).__name__}: {' '.join(str(error).split())[:100]})"
        raise InvalidInput("run_dir", got, "a readable file; without it settings are chosen again") from error


def write_chosen(path: Path, chosen: dict[str, Chosen]) -> None:
    """Write down what was chosen by each search of a study."""
    write_json(path, {key: asdict(own) for key, own in chosen.items()})

"""What the searches of a study have tried and chosen: a file that they write and that reports, and other sweeps, read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.files import UNREADABLE, number_of, read_json, text_of, whole_of, write_json
from rhm import InvalidInput


@dataclass(frozen=True)
class Trial:
    """Settings that were tried.

    Attributes:
        settings: by their dotted names; none of those of the rule's own file.
        accuracies: mean over the replicas of each of its runs, by the number of steps.
        finals: the same of its runs on further grammars.
    """

    settings: dict[str, Any]
    accuracies: dict[str, float] = field(default_factory=dict)
    finals: dict[str, float] = field(default_factory=dict)


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
        question: what was asked (:attr:`experiments.study.grid.Combination.question`).
        notes: what a reader of the results must know of the search.
        trials: all that was tried.
        taken_from: file of another sweep that it is of, if it was not searched here.
    """

    settings: dict[str, Any]
    accuracy: float
    at_edge: list[str]
    run: str
    tried: int
    failed: int
    budget: int
    steps: int | None = None
    question: str = ""
    notes: list[str] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    taken_from: str | None = None

    @classmethod
    def of(cls, content: Any) -> Chosen:
        """What a file says of a search; one of :data:`experiments.files.UNREADABLE` if that is nothing."""
        trials = [Trial(**trial) for trial in content.get("trials", [])]
        own = cls(**{**content, "trials": trials})
        if not isinstance(own.settings, dict) or not set(own.at_edge) <= {*own.settings, "steps"}:
            raise ValueError("settings are not those of a search")
        number_of(content, "accuracy", most=1)
        for trial in trials:
            if not isinstance(trial.settings, dict):
                raise TypeError("settings of a trial are none")
            for found in trial.accuracies, trial.finals:
                for steps in found:
                    number_of(found, steps, most=1)
        for text in "run", *(["question"] if own.question else []), *(["taken_from"] if own.taken_from is not None else []):
            text_of(content, text)
        if not isinstance(own.notes, list) or not all(isinstance(note, str) for note in own.notes):
            raise TypeError("notes are no texts")
        for key in "tried", "failed", "budget", *(["steps"] if own.steps is not None else []):
            whole_of(content, key)
        return own


def read_chosen(path: Path, key: str = "run_dir") -> dict[str, Chosen]:
    """What was chosen by each search of a study; nothing where there is no file.

    Args:
        path: of the file.
        key: of the setting that names it, for an error.

    Raises:
        InvalidInput: it cannot be read.
    """
    try:
        return {str(key): Chosen.of(entry) for key, entry in read_json(path).items()}
    except FileNotFoundError:
        return {}
    except UNREADABLE as error:
        got = f"{path} ({type(error).__name__}: {' '.join(str(error).split())[:100]})"
        raise InvalidInput(key, got, "a readable file; without it settings are chosen again") from error


def write_chosen(path: Path, chosen: dict[str, Chosen]) -> None:
    """Write down what was chosen by each search of a study."""
    write_json(path, {key: asdict(own) for key, own in chosen.items()})

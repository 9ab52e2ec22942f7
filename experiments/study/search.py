"""The search for a rule's settings: Optuna says what to try and remembers it, runs say how good it is."""

from __future__ import annotations

import json
import math
import statistics
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, GridSampler, PartialFixedSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from experiments.study.chosen import Chosen, Trial
from experiments.study.grid import Combination
from experiments.study.hypercube import LatinHypercube
from experiments.study.names import cell_label
from experiments.study.plan import FINAL, Run
from experiments.study.space import Space, switched_on
from experiments.study.study import HALVING

optuna.logging.set_verbosity(optuna.logging.WARNING)

OWN_FILE = -1
"""In the place of a trial's number: the settings of the rule's file, of which Optuna is not told."""
MEAN_DIGITS = 5
"""Of an accuracy that is kept of a trial."""
HOPEFUL = 0.1
"""Of the way from chance to 1: what a rung's best must have made of it if the rung is to tell settings apart."""

Accuracies = Callable[[Run], list[float] | None]
"""Test accuracy of each replica of a run; None if it has not finished."""


def open_storage(path: Path) -> JournalStorage:
    """What was tried, in a file that `optuna-dashboard` reads too. What a kill has left goes: half a line, and a lock.

    Args:
        path: of the file, in a folder that no other process writes into (:func:`experiments.study.folder.alone`).
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.exists() and (text := path.read_bytes()) and not text.endswith(b"\n"):
        path.write_bytes(text[: text.rfind(b"\n") + 1])
    return JournalStorage(JournalFileBackend(str(path)))


class Tuner:
    """The search of one combination, or of one that stands for several.

    A round's settings are asked for together and made as runs of a share of the steps; the best third goes on to runs three
    times as long, and so on (successive halving: Jamieson, Talwalkar 2016, arXiv 1502.07943); what the rule's file has goes on
    to all of them, if it takes part. A rung whose best is still near
    chance tells no two settings apart, and all of them go on. Each run is whole, so that a rate
    that falls has fallen at its end, and the best of the shorter ones may be chosen as well as those of the last rung. What is
    asked depends on the results of earlier rounds alone, and not on the order in which runs end or on how often the search was
    killed.

    Args:
        combination: whose settings are searched.
        storage: of :func:`open_storage`, or another.
    """

    def __init__(self, combination: Combination, storage: BaseStorage):
        assert combination.study.search is not None and combination.space is not None
        self.combination, self.search, self.space = combination, combination.study.search, combination.space
        self.optuna = optuna.create_study(
            storage=storage, study_name=combination.searched_as, direction="maximize", load_if_exists=True
        )
        if not self.optuna.get_trials(deepcopy=False):
            self.optuna.set_user_attr("question", combination.question)
        self.asked = str(self.optuna.user_attrs.get("question", ""))
        """What was asked when the search began."""
        self.distributions: dict[str, BaseDistribution] = {name: _distribution(self.space, name) for name in self.space.names}
        self.settings: dict[int, dict[str, Any]] = {}
        self.left: list[int] = []
        self.found: list[dict[int, list[float]]] = [{} for _ in range(self.search.rungs)]
        self.elected: list[dict[int, list[float]]] = [{} for _ in range(self.search.rungs)]
        self.failed = set[int]()
        self.at_chance: list[str] = []
        self.budget = 0

    # ---------------------------------------------------------------- a round

    def begin(self, number: int) -> None:
        """Begin a round: what was asked for it before, and what is missing."""
        first, last = (place * self.search.trials // self.search.rounds for place in (number - 1, number))
        asked = self._asked()
        while len(asked) < last:
            self.optuna.sampler = self._sampler(len(asked))
            self.optuna.ask(self.distributions)
            asked = self._asked()
        self.optuna.sampler = RandomSampler()  # that of a grid would end a loop of Optuna's own when all of it has been told
        self.left = asked[first:last]
        trials = self.optuna.get_trials(deepcopy=False)
        self.settings |= {i: self.space.read(trials[i].params) for i in self.left}
        if self.search.own_file and number == 1:
            self.settings[OWN_FILE] = {}
            self.left.append(OWN_FILE)

    def _asked(self) -> list[int]:
        """Numbers of whole trials. One that was being asked for in the moment of a kill, and lacks settings, is given up."""
        numbers = []
        for trial in self.optuna.get_trials(deepcopy=False):
            if trial.params.keys() >= self.distributions.keys():
                numbers.append(trial.number)
            elif not trial.state.is_finished():
                self.optuna.tell(trial.number, state=TrialState.FAIL)
        return numbers

    def _sampler(self, number: int) -> BaseSampler:
        """Of a trial. Its place is its seed, so that rules are shown the same draws of the settings that they share: with
        ``random`` up to the first that one of them lacks."""
        first = len(self.search.first)
        even = self.search.sampler == "hypercube"
        drawn = LatinHypercube(number - first, self.search.trials - first) if even else RandomSampler(seed=number)
        if number < first:
            known = self.space.fixed("search.first", self.search.first[number])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return PartialFixedSampler(known, drawn)
        if self.search.sampler == "tpe":
            first = self.search.trials // self.search.rounds
            return TPESampler(seed=number, n_startup_trials=first)
        if not self.space.ranges:
            grid = {name: list(map(json.dumps, values)) for name, values in self.space.lists.items()}
            return GridSampler(grid, seed=0)  # numbers the combinations by its seed: one for all trials
        return drawn

    # ---------------------------------------------------------------- a rung

    def run(self, number: int, rung: int, more: bool = False) -> Run:
        """A trial's run on a rung, or the one on more grammars that is made of it afterwards."""
        steps = self.combination.search_steps[rung]
        stage = (
            f"search-{'own' if number == OWN_FILE else number + 1}"
            + (f"-{steps}" if self.search.rungs > 1 else "")
            + (FINAL if more else "")
        )
        seeds = self.search.more_seeds if more else self.search.seeds_of(rung)
        return self.combination.run(stage, self.combination.search_sizes, seeds, self.settings[number], steps)

    def runs(self, rung: int) -> list[Run]:
        """Of the trials that are left in the round."""
        return [self.run(number, rung) for number in self.left]

    def hear(self, rung: int, accuracies: Accuracies) -> None:
        """See how a rung's runs have ended: the best go on to the next rung, Optuna is told of the others."""
        found = {number: own for number in self.left if (own := accuracies(self.run(number, rung)))}
        self.failed |= set(self.left) - found.keys()
        self.budget += sum(run.steps * run.replicas for run in self.runs(rung))
        self.found[rung] |= found
        order = _best_first(found)
        last = rung == self.search.rungs - 1
        drawn = [number for number in order if number != OWN_FILE]
        best = statistics.fmean(found[drawn[0]]) if drawn else 1.0
        best_third = drawn[: math.ceil(sum(number != OWN_FILE for number in self.left) / HALVING)]
        kept = [] if last else order if best < self.hopeful else [*best_third, *({OWN_FILE} & found.keys())]
        if best < self.hopeful:
            told = "the longest that the search has" if last else f"all {len(kept)} go on"
            self.at_chance.append(
                f"after {self.combination.search_steps[rung]:,} steps no setting has learned (best {best:.3f}): {told}"
            )
        for number in self.left:
            self._tell(number, self.combination.search_steps[rung], found.get(number), number not in kept, last)
        self.left = [number for number in self.left if number in kept]

    def _tell(self, number: int, step: int, own: list[float] | None, ended: bool, whole: bool) -> None:
        if number == OWN_FILE:
            return
        known = self.optuna.get_trials(deepcopy=False)[number]
        if known.state.is_finished():  # told before the sweep was stopped
            return
        if own and step not in known.intermediate_values:
            optuna.Trial(self.optuna, known._trial_id).report(statistics.fmean(own), step)
        if own and ended and whole:
            self.optuna.tell(number, statistics.fmean(own))
        elif ended:
            self.optuna.tell(number, state=TrialState.PRUNED if own else TrialState.FAIL)

    @property
    def hopeful(self) -> float:
        """The accuracy under which a rung tells nothing."""
        chance = 1 / self.combination.task.n
        return chance + HOPEFUL * (1 - chance)

    # ---------------------------------------------------------------- its end

    def finals(self) -> list[tuple[int, int]]:
        """Trial and rung of the runs that are made on more grammars: the best of each rung, over all rounds."""
        return [(n, rung) for rung, found in enumerate(self.found) for n in _best_first(found)[: self.search.finalists]]

    def hear_finals(self, accuracies: Accuracies) -> None:
        """See how they have ended. These grammars alone decide, as the others have chosen who is here."""
        for number, rung in self.finals():
            run = self.run(number, rung, more=True)
            self.budget += run.steps * run.replicas
            if more := accuracies(run):
                self.elected[rung][number] = more

    def chosen(self) -> Chosen | None:
        """The best settings; None if no final has finished or, where there are none, no run of the last rung.

        Means that differ by less than the binomial standard error of the test strings are a tie, which the simplest settings
        win (those of the rule's file, if it takes part: nothing was changed), of equally simple ones those with the fewest
        steps, and of these the best.
        """
        ends = self.elected if self.search.finalists else [{} for _ in self.found[:-1]] + self.found[-1:]
        means = {(number, rung): statistics.fmean(own) for rung, found in enumerate(ends) for number, own in found.items()}
        if not means:
            return None
        best = max(means, key=lambda end: means[end])
        strings = len(ends[best[1]][best[0]]) * self.combination.kept(self.combination.study.test_size)
        error = math.sqrt(means[best] * (1 - means[best]) / strings)
        ties = [end for end, mean in means.items() if mean >= means[best] - error]
        own = min(ties, key=lambda end: (switched_on(self.settings[end[0]]), end[1], -means[end], end[0]))
        settings, run = self.settings[own[0]], self.run(*own)
        steps = run.steps if self.search.finalists else None
        at_edge, tried, failed = self.space.at_edge(settings), len(self.settings), len(self.failed)
        at_edge += ["steps"] if steps is not None and own[1] in (0, self.search.rungs - 1) and self.search.rungs > 2 else []
        notes = self.notes
        if at_edge:
            values = {**settings, "steps": steps}
            notes.append(f"chosen at the edge of its range: {cell_label({key: values[key] for key in at_edge})}")
        question = self.asked if self.asked == self.combination.question else ""
        if self.asked and not question:
            notes.append(
                "what it asks has changed since it began, the rule's settings file, say; what it has chosen is of before"
            )
        return Chosen(
            settings, means[own], at_edge, run.name, tried, failed, self.budget, steps, question, notes, self._trials()
        )

    @property
    def notes(self) -> list[str]:
        """What a reader of the results must know of the search, whatever it has chosen."""
        failed = [f"{len(self.failed)} of {len(self.settings)} settings have failed"] if self.failed else []
        return failed + self.at_chance

    def _trials(self) -> list[Trial]:
        lengths = self.combination.search_steps

        def means(ends: list[dict[int, list[float]]], number: int) -> dict[str, float]:
            pairs = zip(lengths, ends, strict=True)
            return {str(steps): round(statistics.fmean(end[number]), MEAN_DIGITS) for steps, end in pairs if number in end}

        return [Trial(own, means(self.found, number), means(self.elected, number)) for number, own in self.settings.items()]


def _best_first(found: Mapping[int, list[float]]) -> list[int]:
    return sorted(found, key=lambda number: -statistics.fmean(found[number]))


def _distribution(space: Space, name: str) -> BaseDistribution:
    if name in space.lists:
        return CategoricalDistribution([json.dumps(value) for value in space.lists[name]])
    own = space.ranges[name]
    return FloatDistribution(own.low, own.high, log=own.log)

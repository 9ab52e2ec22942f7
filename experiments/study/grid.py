"""What a study expands to: every rule on every task in every cell of its grid."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from experiments.settings import DATA
from experiments.study.names import as_arguments, cell_label, slug
from experiments.study.plan import Run
from experiments.study.space import Space
from experiments.study.study import HALVING, TASK_KEYS, VARIED, Rule, Study
from rhm import InvalidInput, Task

SUFFIXES = {".yaml", ".yml", ".json", ".npz", ".csv", ".pt"}
"""Of files that are a setting's value: a network's settings, a grammar, strings."""


@dataclass(frozen=True)
class Combination:
    """A rule on a task in a cell of the grid.

    Attributes:
        rule, task, cell: which.
        sizes: of the grid.
    """

    study: Study
    rule: Rule
    task: Task
    cell: dict[str, Any]
    sizes: list[int]

    @property
    def name(self) -> str:
        """Path of its runs' folders within the study's ``runs``."""
        task = "_".join(f"{key}{value}" for key, value in vars(self.task).items())
        return "/".join([slug(self.rule.label), task, *([slug(cell_label(self.cell))] if self.cell else [])])

    @property
    def replicas(self) -> int:
        """Of the grid's run: each size with each seed of the figures."""
        return len(self.sizes) * len(self.study.seeds)

    @property
    def varied(self) -> str:
        """What the sizes are sizes of."""
        return self.rule.vary or self.study.vary

    @property
    def steps(self) -> int:
        """Of all its runs."""
        length = self.rule.steps or self.study.steps
        largest = self.sizes[-1] if self.varied == "train_size" else self.setting("train_size")
        wanted = math.ceil(length.epochs * largest / self.setting("batch_size"))
        return min(max(wanted, length.least), length.most)

    def setting(self, name: str) -> int:
        """A setting of its runs' data, or the default where the study says nothing.

        Raises:
            InvalidInput: it is not one number.
        """
        key = f"data.{name}"
        value = {**self.study.settings, **self.rule.settings, **self.cell}.get(key, DATA[name])
        if not isinstance(value, int) or value < 1:
            raise InvalidInput(key, value, "an integer of at least 1, the same for all replicas of a run")
        return value

    def check_replicas(self) -> None:
        """See that its runs' replicas are its sizes crossed with its seeds, and with nothing else.

        Raises:
            InvalidInput: a list of sizes that are not those it varies, which would be taken for one.
        """
        for name in VARIED:
            value = {**self.study.settings, **self.rule.settings, **self.cell}.get(f"data.{name}")
            if name != self.varied and isinstance(value, list):
                raise InvalidInput(f"data.{name}", value, f"one number, as vary is {self.varied}; several are of a grid")

    def kept(self, wanted: int) -> int:
        """So many strings kept for a test or for probes, or a quarter of the task's where it has few."""
        return min(wanted, max(1, self.task.P_max // 4))

    @property
    def most(self) -> int:
        """The largest size that the task has room for beside the strings that accuracies are measured with."""
        strings = self.task.P_max - self.kept(self.study.test_size)
        return strings if self.varied == "train_size" else min(strings, self.setting("train_size"))

    @property
    def space(self) -> Space | None:
        """What is searched; None if the study has no search."""
        return None if self.study.search is None else self.study.search.space(self.rule)

    @property
    def search_steps(self) -> list[int]:
        """Length of the search's runs on each rung.

        Raises:
            InvalidInput: more rungs than lengths.
        """
        search = self.study.search
        assert search is not None
        steps = search.steps or self.steps
        lengths = [max(1, round(steps / HALVING**rung)) for rung in reversed(range(search.rungs))]
        if len(set(lengths)) < len(lengths):
            raise InvalidInput(
                "search.rungs", search.rungs, f"fewer for {steps} steps, each three times as long as the one before"
            )
        return lengths

    @property
    def search_sizes(self) -> list[int]:
        """Sizes of the search's runs.

        Raises:
            InvalidInput: the task has room for none.
        """
        own = None if self.study.search is None else self.study.search.sizes
        if own is None:
            return self.sizes
        sizes = [size for size in own.of(self.task) if size <= self.most]
        if not sizes:
            raise InvalidInput("search.sizes", own, f"a size or more of at most {self.most:,}, as {self.name} has no others")
        return sizes

    def search_runs(self) -> list[Run]:
        """Runs like those of the search, as many and as long, if none fails."""
        search = self.study.search
        if search is None or self.space is None:
            return []
        example = next(self.space.examples())
        rungs = list(zip(self.search_steps, search.left, strict=True))
        return [
            self.run("search", self.search_sizes, search.seeds_of(rung), example, steps)
            for rung, (steps, left) in enumerate(rungs)
            for _ in range(left * search.rounds + search.own_file)
        ] + [
            self.run("search", self.search_sizes, search.more_seeds, example, steps)
            for steps, left in rungs
            for _ in range(min(search.finalists, left * search.rounds + search.own_file))
        ]

    @property
    def question(self) -> str:
        """What its search asks, as a hash: the space, how it is searched, all arguments of its runs, and the rule's settings
        file. Of two searches with the same question one is enough. Code is not part of it, files that settings name are."""
        assert self.study.search is not None and self.space is not None
        rule = self.rule.rule if self.rule.is_class else yaml.safe_load(self.rule.file.read_text(encoding="utf-8"))
        example, sizes = next(self.space.examples()), self.search_sizes
        given = [self.settings(sizes, run.seeds, example, run.steps) for run in self.search_runs()]
        given.append(self.settings(sizes, self.study.search.seeds, {}, 1))  # with what the study and the file have
        runs = {json.dumps(as_arguments(with_contents(own))): None for own in given}
        space = {**self.space.lists, **{name: asdict(own) for name, own in self.space.ranges.items()}}
        search = {**asdict(self.study.search), "settings": None, "sizes": None, "each_task": None}  # of which others have these
        asked = [with_contents(rule), list(runs), self.space.names, with_contents(space), with_contents(search)]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def searched_as(self) -> str:
        """Combinations that share a search have the same name here."""
        parts = self.name.split("/")
        whole = self.study.search is None or self.study.search.each_task
        return "--".join(parts if whole else [parts[0], *parts[2:]])

    def run(self, stage: str, sizes: list[int], seeds: list[int], trial: dict[str, Any], steps: int | None = None) -> Run:
        """A run with these replicas.

        Args:
            stage: of the study.
            sizes, seeds: replicas.
            trial: settings that are tried, or were found the best. They win over all others but the replicas.
            steps: those of the grid by default.
        """
        steps = steps or self.steps
        args = [self.rule.argument, *as_arguments(self.settings(sizes, seeds, trial, steps))]
        task, own = asdict(self.task), self.rule.settings
        name, label = f"{self.name}/{stage}", self.rule.label
        return Run(name, label, stage, task, own, self.cell, sizes, seeds, self.varied, steps, args)

    def settings(self, sizes: list[int], seeds: list[int], trial: dict[str, Any], steps: int) -> dict[str, Any]:
        """All settings of such a run by their dotted names."""
        return {
            **{f"data.{key}": value for key, value in vars(self.task).items()},
            "data.test_size": self.kept(self.study.test_size),
            "data.probe_size": self.kept(DATA["probe_size"]),
            "trainer.max_steps": steps,
            "trainer.limit_val_batches": 0,
            **self.study.settings,
            **self.rule.settings,
            **self.cell,
            **trial,
            f"data.{self.varied}": sizes,
            "data.seeds": seeds,
        }


def with_contents(value: Any) -> Any:
    """Settings with a hash of its content in place of the path of each file that is there."""
    if isinstance(value, dict):
        return {key: with_contents(own) for key, own in value.items()}
    if isinstance(value, list):
        return [with_contents(own) for own in value]
    if not isinstance(value, str) or len(value) > 255 or Path(value).suffix not in SUFFIXES or not Path(value).is_file():
        return value
    return f"sha256:{hashlib.sha256(Path(value).read_bytes()).hexdigest()}"


def crossed(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In each entry every list of values crossed with the others; entries one after another."""
    cells = []
    for entry in entries:
        values = [value if isinstance(value, list) else [value] for value in entry.values()]
        cells += [dict(zip(entry, chosen, strict=True)) for chosen in itertools.product(*values)]
    return cells


def expand(study: Study) -> tuple[list[Combination], list[str]]:
    """Rules x tasks x cells, and what was left out, with the reason.

    Raises:
        InvalidInput: nothing is left, more than ``max_runs`` runs, or two combinations that would share a folder.
    """
    found: list[Combination] = []
    skipped: list[str] = []
    tasks: list[Task] = []
    grids = [study.grid if rule.grid is None else rule.grid for rule in study.rules]
    pairs = [(rule, cell) for rule, grid in zip(study.rules, grids, strict=True) for cell in crossed(grid) or [{}]]
    for parameters in crossed(study.tasks):
        try:
            task = Task(**{**{key: DATA[key] for key in TASK_KEYS}, **parameters})
        except InvalidInput as error:
            skipped.append(f"task {cell_label(parameters)}: {error}")
            continue
        if task in tasks:
            continue
        tasks.append(task)
        for rule, cell in pairs:
            if not _wanted(rule, task):
                continue
            sizes = (rule.sizes or study.sizes).of(task)
            combination = Combination(study, rule, task, cell, sizes)
            combination.check_replicas()
            fitting = [size for size in sizes if size <= combination.most]
            if len(fitting) < len(sizes):
                left = ", ".join(f"{size:,}" for size in sizes if size > combination.most)
                has = f"{task.P_max:,} strings"
                if combination.varied == "label_size":
                    has += f", of which data.train_size={combination.setting('train_size'):,} are trained on"
                reason = f"task {cell_label(vars(task))}: {left} {combination.varied}: it has {has}"
                skipped += [reason] if reason not in skipped else []
            if fitting:
                found.append(replace(combination, sizes=fitting))
            elif not sizes:
                skipped.append(f"{combination.name}: no training-set size between sizes.least and sizes.most")
    for rule in study.rules:
        if tasks and not any(_wanted(rule, task) for task in tasks):
            skipped.append(f"rule {rule.label}: rules.only={rule.only} leaves none of the study's tasks")
    if not found:
        raise InvalidInput(
            "study", "a grid without a run", f"rules, tasks and sizes that fit; {'; '.join(skipped[:3]) or 'none given'}"
        )
    searches = {combination.searched_as: len(combination.search_runs()) for combination in found}
    runs = len(found) * (1 + study.refine) + sum(searches.values())
    if runs > study.max_runs:
        raise InvalidInput("study", f"a grid of up to {runs} runs", f"at most max_runs={study.max_runs}")
    _have_folders(found)
    return found, skipped


def _wanted(rule: Rule, task: Task) -> bool:
    return all(getattr(task, key) in values for key, values in rule.only.items())


def _have_folders(combinations: list[Combination]) -> None:
    """Refuse two combinations that would share a folder, or a file of settings that are not searched together."""
    owners: dict[str, Combination] = {}
    for own in combinations:
        for file in own.name.replace("/", "--"), f"chosen/{own.searched_as}":
            other = owners.setdefault(file, own)
            if other.rule.label != own.rule.label:
                got = f"{other.rule.label!r} and {own.rule.label!r}"
                raise InvalidInput("rules.name", got, f"names that differ as folders; both are {slug(own.rule.label)}")
            if other.cell != own.cell or (other is not own and not file.startswith("chosen/")):
                got = f"{other.cell} and {own.cell}"
                raise InvalidInput("grid", got, f"settings that differ in short; both are {cell_label(own.cell)}")

"""A study as its file gives it: rules, tasks, training-set sizes, seeds and settings, and the question that it asks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.classes import PATH
from experiments.settings import DATA, HEADS, RULE_FILES
from experiments.study.names import slug
from experiments.study.space import Space
from rhm import InvalidInput, Task
from rhm.errors import nearest

TASK_KEYS = ("v", "n", "m", "s", "L")
OWN_KEYS = {**{f"data.{key}": "tasks" for key in TASK_KEYS}, "data.seeds": "seeds", "trainer.max_steps": "steps"}
"""Settings that every run is given by its study, and where from."""
UNITS = ("strings", "n m", "n m^L", "v m^2", "v m^3")
VARIED = ("train_size", "label_size")
SAMPLERS = ("random", "hypercube", "tpe")
HALVING = 3
"""A third of a search's settings go on from rung to rung, to runs three times as long."""


# -------------------------------------------------------------------- what is refused


def _known(key: str, given: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for name in given:
        if name not in allowed:
            raise InvalidInput(f"{key}.{name}", "unknown key", f"one of {', '.join(allowed)}{nearest(name, allowed)}")


def _have_values(key: str, entries: Sequence[Mapping[str, Any]]) -> None:
    for entry in entries:
        if any(value == [] for value in entry.values()):
            raise InvalidInput(key, entry, "one value or more for each setting")


def _not_the_studys(where: str, *entries: Mapping[str, Any]) -> None:
    for settings in entries:
        for key in OWN_KEYS.keys() & settings.keys():
            raise InvalidInput(f"{where}.{key}", settings[key], f"in its place, {OWN_KEYS[key]} of the study")
        for key in HEADS:
            if isinstance(settings.get(key), dict):
                raise InvalidInput(f"{where}.{key}", settings[key], f"keys with dots, such as {key}.KEY: VALUE")


def _not_its_sizes(where: str, vary: str, *entries: Mapping[str, Any]) -> None:
    for settings in entries:
        if f"data.{vary}" in settings:
            raise InvalidInput(f"{where}.data.{vary}", settings[f"data.{vary}"], "in its place, sizes, as vary says")


def _varied(vary: str) -> None:
    if vary not in VARIED:
        raise InvalidInput("vary", vary, f"one of {', '.join(VARIED)}")


def _at_least(key: str, value: int, least: int) -> None:
    if value < least:
        raise InvalidInput(key, value, f"an integer of at least {least}")


def _different(key: str, seeds: list[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds):
        raise InvalidInput(key, seeds, "one seed or more, all different")


# -------------------------------------------------------------------- parts of a study


@dataclass(frozen=True)
class Sizes:
    """Training-set sizes that follow the task: multiples of a unit, those between two limits.

    Args:
        multiples: of the unit; rounded to whole strings.
        unit: ``strings``, ``n m`` (the root's rules), ``n m^L`` (the order that a supervised network needs), ``v m^3`` (that of
            latent prediction) or ``v m^2`` (that of exchange clustering).
        least, most: smaller and larger sizes are left out.

    Raises:
        InvalidInput: an unknown unit, or multiples that are none.
    """

    multiples: list[float]
    unit: str = "strings"
    least: int = 1
    most: int = 2**30  # more strings than any run is shown

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise InvalidInput("sizes.unit", self.unit, f"one of {', '.join(UNITS)}")
        if not self.multiples or not all(0 < multiple < math.inf for multiple in self.multiples):
            raise InvalidInput("sizes.multiples", self.multiples, "numbers above 0, one or more")

    def of(self, task: Task) -> list[int]:
        """The sizes for a task, rising."""
        unit = {
            "strings": 1,
            "n m": task.n * task.m,
            "n m^L": task.supervised_complexity,
            "v m^2": task.v * task.m**2,
            "v m^3": task.self_supervised_complexity,
        }[self.unit]
        return sorted({size for multiple in self.multiples if self.least <= (size := round(multiple * unit)) <= self.most})


@dataclass(frozen=True)
class Steps:
    """Length of a run: so many epochs of its largest training set, between two limits.

    Args:
        least, most: in steps; equal for a fixed number.
        epochs: of the largest training set.

    Raises:
        InvalidInput: limits or epochs that are none.
    """

    least: int = 1000
    most: int = 4000
    epochs: float = 30.0

    def __post_init__(self) -> None:
        _at_least("steps.least", self.least, 1)
        _at_least("steps.most", self.most, self.least)
        if not 0 < self.epochs < math.inf:
            raise InvalidInput("steps.epochs", self.epochs, "a number above 0")


@dataclass(frozen=True)
class Rule:
    """A rule of a study.

    Args:
        rule: name of a settings file in ``configs/rules``, the path of a file of one's own, which ends in ``.yaml``, or that of
            a class with its module, such as ``mylab.rules.MyRule``, for its defaults.
        name: what it is called in tables and figures; the file's or the class' name by default.
        settings: of this rule's runs, such as ``{model.masks: exact}``.
        sizes, steps: instead of the study's.
        vary: ``train_size`` or ``label_size``, instead of the study's.
        only: values of the task's parameters that the rule is tried on; all by default.
        grid: instead of the study's.
        search: settings of its own that are searched beside the study's, or with other values; null: not for this rule.

    Raises:
        InvalidInput: no such rule or parameter, a name that no folder can have, a setting that is not the rule's to give.
    """

    rule: str
    name: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    sizes: Sizes | None = None
    steps: Steps | None = None
    vary: str | None = None
    only: dict[str, list[int]] = field(default_factory=dict)
    grid: list[dict[str, Any]] | None = None
    search: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = sorted(path.stem for path in RULE_FILES.glob("*.yaml"))
        if self.rule not in known and not self.is_class and not (self.rule.endswith(".yaml") and self.file.is_file()):
            allowed = "names of files in configs/rules, a YAML file of your own or the path of a class"
            allowed += nearest(self.rule, known)
            raise InvalidInput("rules", self.rule, allowed)
        _known("rules.only", self.only, TASK_KEYS)
        if slug(self.label) in ("", ".", ".."):
            raise InvalidInput("rules.name", repr(self.label), "a name that a folder can have")
        _have_values("rules.grid", self.grid or [])
        for where, settings in (
            ("rules.settings", [self.settings]),
            ("rules.grid", self.grid or []),
            ("rules.search", [self.search]),
        ):
            _not_the_studys(where, *settings)
        if self.vary is not None:
            _varied(self.vary)

    @property
    def label(self) -> str:
        """The name in tables and figures."""
        return self.name or (self.rule.rpartition(".")[2] if self.is_class else self.file.stem)

    @property
    def is_class(self) -> bool:
        """Whether it is named by its class and not by a file."""
        return PATH.fullmatch(self.rule) is not None and not self.rule.endswith(".yaml")

    @property
    def file(self) -> Path:
        """With the rule's settings."""
        return Path(self.rule) if self.rule.endswith(".yaml") else RULE_FILES / f"{self.rule}.yaml"

    @property
    def argument(self) -> str:
        """What names the rule for a run."""
        return f"--model={self.rule}" if self.is_class else f"-c={self.file}"


@dataclass(frozen=True)
class Search:
    """Choice of settings, with the same budget for every rule, on grammars that no figure uses.

    Args:
        settings: a list of values for each setting, or a range, ``{low: 1.0e-4, high: 3.0e-2, log: true}``.
        trials: settings that are tried for each rule, task and cell of the grid.
        seeds: of the search.
        more_seeds: that the last rung has beside them: what is best on few grammars may not be on others.
        finalists: so many of the best runs of each rung are made on ``more_seeds`` when all rungs have ended, and only these.
            Chosen is the best of them on these grammars alone, with its number of steps: some rules lose what they have learned
            when they are trained on. 0: the best of the last rung, and the study's steps.
        first: settings to try before any is drawn, such as a specialist's; what an entry does not say is drawn, and what a rule
            does not have is left out.
        own_file: beside the trials, make runs with what each rule's settings file has, on all rungs, so that no rule fails by
            what was drawn.
        each_task: search on every task; else on the first that a rule has, for all of them.
        sampler: ``random``; ``hypercube``, draws that cover each range and list evenly; both without repetition where there are
            lists alone; or ``tpe``, Optuna's model of what is good.
        rounds: parts in which the trials are asked for; a model knows the results of the rounds before.
        rungs: 1 makes each run with all steps; 2 makes all with a third and the best third of a round with all; 3 begins with a
            ninth.
        sizes: training-set sizes of the search, see :class:`Sizes`; those of the grid by default.
        steps: length of its longest runs; that of the grid's by default.

    Raises:
        InvalidInput: no trial, no seeds or the same twice, a setting that is not a search's to give, an unknown sampler, a
            model without a round to learn from, rounds that do not share the trials evenly.
    """

    settings: dict[str, Any] = field(default_factory=lambda: {"model.optimizer.lr": [1e-3, 3e-3, 1e-2]})
    trials: int = 3
    seeds: list[int] = field(default_factory=lambda: [100, 101])
    more_seeds: list[int] = field(default_factory=list)
    finalists: int = 0
    first: list[dict[str, Any]] = field(default_factory=list)
    own_file: bool = False
    each_task: bool = True
    sampler: str = "random"
    rounds: int = 1
    rungs: int = 1
    sizes: Sizes | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        for key in "trials", "rounds", "rungs":
            _at_least(f"search.{key}", getattr(self, key), 1)
        if self.steps is not None:
            _at_least("search.steps", self.steps, 1)
        _different("search.seeds", self.seeds)
        _different("search.more_seeds", [*self.seeds, *self.more_seeds])
        _not_the_studys("search.settings", self.settings)
        _at_least("search.finalists", self.finalists, 0)
        if self.finalists and not self.more_seeds:
            raise InvalidInput("search.finalists", self.finalists, "0 without more_seeds")
        if len(self.first) > self.trials:
            raise InvalidInput("search.first", f"{len(self.first)} settings", f"at most search.trials={self.trials}")
        if self.sampler not in SAMPLERS:
            raise InvalidInput("search.sampler", self.sampler, f"one of {', '.join(SAMPLERS)}")
        if self.trials % self.rounds or (self.sampler == "tpe" and self.rounds == 1):
            least = "2 or more with sampler=tpe, a number" if self.sampler == "tpe" else "a number"
            raise InvalidInput("search.rounds", self.rounds, f"{least} that divides search.trials={self.trials}")

    @property
    def left(self) -> list[int]:
        """How many trials of a round are run on each rung, if none fails."""
        return [math.ceil(self.trials / self.rounds / HALVING**rung) for rung in range(self.rungs)]

    @property
    def stages(self) -> int:
        """Times at which runs are made together and waited for."""
        return self.rounds * self.rungs + bool(self.finalists)

    def seeds_of(self, rung: int) -> list[int]:
        """Seeds of the runs on a rung, from 0."""
        return [*self.seeds, *(self.more_seeds if rung == self.rungs - 1 and not self.finalists else [])]

    def space(self, rule: Rule) -> Space:
        """What is searched for a rule.

        Raises:
            InvalidInput: nothing, or fewer combinations than trials; a model, or settings to try first, where there are lists
                alone; settings to try first that are not among those to search.
        """
        settings = {key: values for key, values in {**self.settings, **rule.search}.items() if values is not None}
        key = "rules.search" if rule.search else "search.settings"
        space = Space(key, settings)
        if space.size < self.trials:
            allowed = f"at most {space.size}, as {key} of {rule.label} has no more combinations: all rules have the same budget"
            raise InvalidInput("search.trials", self.trials, allowed)
        if self.sampler == "tpe" and not space.ranges:
            allowed = f"random for {rule.label}, whose settings are all lists: a model of them would try some twice"
            raise InvalidInput("search.sampler", self.sampler, allowed)
        if self.first and not space.ranges:
            allowed = f"none, as settings of {rule.label} are all lists, of which each combination is drawn once"
            raise InvalidInput("search.first", self.first, allowed)
        for settings in self.first:
            space.fixed("search.first", settings)
        return space


@dataclass(frozen=True)
class Study:
    """A study as its file gives it.

    Args:
        question: what the study asks, in a line.
        rules: see :class:`Rule`; a name stands for the rule of that settings file.
        tasks: parameters ``v, n, m, s, L``; a list of values is crossed with the others of its entry.
        sizes: training-set sizes, see :class:`Sizes`.
        seeds: of the figures. Seeds and sizes are the replicas of one run.
        settings: of all runs, such as ``{model.network.width: 64}``.
        grid: settings that are crossed with rules and tasks; a list of values is crossed with the others of its entry.
        steps: see :class:`Steps`.
        search: see :class:`Search`; null tries nothing and uses the rules' settings files.
        vary: what the sizes are sizes of: ``train_size``, or ``label_size``, the strings that have labels.
        threshold: share of the chance error ``1 - 1/n`` that counts as a small error.
        refine: rounds in which one more size is tried between the last that fails and the first that passes.
        callbacks: further callbacks of every run that is not part of a search.
        reference: the rule that the others are compared with.
        test_size: strings that accuracies are measured with; at most a quarter of a task's strings.
        max_runs: a grid with more is refused.

    Raises:
        InvalidInput: no rule or task, two rules of one name, an unknown reference or parameter, a limit that is none, a setting
            without values or one that is not the study's to give, fewer settings to search than trials, seeds of the figures in
            the search.
    """

    rules: list[Rule]
    tasks: list[dict[str, int | list[int]]]
    sizes: Sizes
    question: str = ""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    settings: dict[str, Any] = field(default_factory=dict)
    grid: list[dict[str, Any]] = field(default_factory=list)
    steps: Steps = Steps()
    search: Search | None = None
    vary: str = "train_size"
    threshold: float = 0.1
    refine: int = 2
    callbacks: list[Any] = field(default_factory=list)
    reference: str = "backprop"
    test_size: int = DATA["test_size"]
    max_runs: int = 500

    def __post_init__(self) -> None:
        if not self.rules:
            raise InvalidInput("rules", self.rules, "one rule or more")
        if not self.tasks:
            raise InvalidInput("tasks", self.tasks, "one task or more")
        labels = [rule.label for rule in self.rules]
        if len(set(labels)) < len(labels):
            raise InvalidInput("rules.name", labels, "a different name for each rule")
        if self.reference != Study.reference and self.reference not in labels:
            raise InvalidInput("reference", self.reference, f"one of {', '.join(labels)}")
        for task in self.tasks:
            _known("tasks", task, TASK_KEYS)
        _have_values("tasks", self.tasks)
        _have_values("grid", self.grid)
        _not_the_studys("settings", self.settings)
        _not_the_studys("grid", *self.grid)
        _varied(self.vary)
        for rule in self.rules:
            vary, searched = rule.vary or self.vary, {} if self.search is None else self.search.settings
            _not_its_sizes("rules.settings", vary, rule.settings)
            _not_its_sizes("rules.search", vary, rule.search)
            _not_its_sizes("rules.grid", vary, *(rule.grid or []))
            _not_its_sizes("grid", vary, *(self.grid if rule.grid is None else []))
            _not_its_sizes("search.settings", vary, searched)
        varied = {rule.vary or self.vary for rule in self.rules}
        if len(varied) == 1:  # else others need it
            _not_its_sizes("settings", varied.pop(), self.settings)
        if not 0 < self.threshold < 1:
            raise InvalidInput("threshold", self.threshold, "a share of the chance error, above 0 and below 1")
        _at_least("refine", self.refine, 0)
        _at_least("test_size", self.test_size, 1)
        _at_least("max_runs", self.max_runs, 1)
        _different("seeds", self.seeds)
        if self.search is not None:
            self._check_search(self.search)

    def _check_search(self, search: Search) -> None:
        for key, seeds in ("search.seeds", search.seeds), ("search.more_seeds", search.more_seeds):
            if set(seeds) & set(self.seeds):
                raise InvalidInput(key, seeds, f"seeds that the figures do not use: {self.seeds}")
        names = {name for rule in self.rules for name in search.space(rule).names}
        for name in {name for settings in search.first for name in settings} - names:
            raise InvalidInput(f"search.first.{name}", "a setting that no rule searches", f"one of {', '.join(sorted(names))}")

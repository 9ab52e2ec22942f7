"""A study file: a grid over rules, tasks, training-set sizes, seeds and settings, and the runs that it expands to."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from experiments.rules import SETTINGS as RULE_FILES
from rhm import InvalidInput, Task
from rhm.errors import nearest
from rhm.hashing import permutation, seed_keys

TASK_KEYS = ("v", "n", "m", "s", "L")
OWN_KEYS = {**{f"data.{key}": "tasks" for key in TASK_KEYS}, "data.seeds": "seeds"}
"""Settings that every run is given by its study, and where from."""
UNITS = ("strings", "n m", "n m^L", "v m^3")
VARIED = ("train_size", "label_size")
CLASS_PATH = re.compile(r"([A-Za-z_]\w*\.)+[A-Z]\w*")
LONGEST_SLUG = 80
"""In bytes: a file name has at most 255, and holds a rule, a task and a cell."""


@dataclass(frozen=True)
class Sizes:
    """Training-set sizes that follow the task: multiples of a unit, those between two limits.

    Args:
        multiples: of the unit; rounded to whole strings.
        unit: ``strings``, ``n m`` (the root's rules), ``n m^L`` (the order that a supervised network needs) or ``v m^3`` (that
            of latent prediction).
        least, most: smaller and larger sizes are left out.
    """

    multiples: list[float]
    unit: str = "strings"
    least: int = 1
    most: int = 2**30

    def of(self, task: Task) -> list[int]:
        """The sizes for a task, rising."""
        unit = {
            "strings": 1,
            "n m": task.n * task.m,
            "n m^L": task.supervised_complexity,
            "v m^3": task.self_supervised_complexity,
        }[self.unit]
        return sorted({size for multiple in self.multiples if self.least <= (size := round(multiple * unit)) <= self.most})


@dataclass(frozen=True)
class Rule:
    """A rule of a study.

    Args:
        rule: name of a settings file in ``configs/rules``.
        name: what it is called in tables and figures; the file's name by default.
        settings: of this rule's runs, such as ``{model.masks: exact}``.
        sizes: instead of the study's.
        vary: ``train_size`` or ``label_size``, instead of the study's.
        only: values of the task's parameters that the rule is tried on; all by default.
        grid: instead of the study's.
        search: settings that are searched, instead of the study's; the number of trials is the same for all rules.
    """

    rule: str
    name: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    sizes: Sizes | None = None
    vary: str | None = None
    only: dict[str, list[int]] = field(default_factory=dict)
    grid: list[dict[str, Any]] | None = None
    search: dict[str, list[Any]] | None = None

    @property
    def label(self) -> str:
        """The name in tables and figures."""
        return self.name or self.rule


@dataclass(frozen=True)
class Steps:
    """Length of a run: so many epochs of its largest training set, between two limits.

    Args:
        least, most: in steps; equal for a fixed number.
        epochs: of the largest training set.
    """

    least: int = 1000
    most: int = 4000
    epochs: float = 30.0


@dataclass(frozen=True)
class Search:
    """Choice of settings, with the same budget for every rule, on seeds that no figure uses.

    Args:
        settings: a list of values for each setting; so many of their combinations as there are trials are tried.
        trials: for each rule, task and cell of the grid.
        seeds: of the search.
        each_task: search on every task; else on the first that a rule has, for all of them.
    """

    settings: dict[str, list[Any]] = field(default_factory=lambda: {"model.optimizer.lr": [1e-3, 3e-3, 1e-2]})
    trials: int = 3
    seeds: list[int] = field(default_factory=lambda: [100])
    each_task: bool = True


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
    test_size: int = 4096
    max_runs: int = 500

    def check(self) -> None:
        """Refuse what no run can be made of.

        Raises:
            InvalidInput: an unknown rule or reference, two of one name, an unknown unit or parameter, a limit that is none, a
                setting without values, fewer settings to search than trials, seeds of the figures in the search.
        """
        known = sorted(path.stem for path in RULE_FILES.glob("*.yaml"))
        for rule in self.rules:
            if rule.rule not in known:
                raise InvalidInput("rules", rule.rule, f"names of files in configs/rules{nearest(rule.rule, known)}")
            _known("rules.only", rule.only, TASK_KEYS)
            if slug(rule.label) in ("", ".", ".."):
                raise InvalidInput("rules.name", repr(rule.label), "a name that a folder can have")
        if len({rule.label for rule in self.rules}) < len(self.rules):
            raise InvalidInput("rules.name", [rule.label for rule in self.rules], "a different name for each rule")
        if self.reference != Study.reference and self.reference not in {rule.label for rule in self.rules}:
            raise InvalidInput("reference", self.reference, f"one of {', '.join(rule.label for rule in self.rules)}")
        for task in self.tasks:
            _known("tasks", task, TASK_KEYS)
        for key, entries in (("tasks", self.tasks), ("grid", self.grid), *(("rules.grid", rule.grid) for rule in self.rules)):
            for entry in entries or []:
                if any(value == [] for value in entry.values()):
                    raise InvalidInput(key, entry, "one value or more for each setting")
        for where, settings in self._all_settings():
            for key in OWN_KEYS.keys() & settings.keys():
                raise InvalidInput(f"{where}.{key}", settings[key], f"in its place, {OWN_KEYS[key]} of the study")
        for sizes in (self.sizes, *(rule.sizes for rule in self.rules if rule.sizes)):
            if sizes.unit not in UNITS:
                raise InvalidInput("sizes.unit", sizes.unit, f"one of {', '.join(UNITS)}")
            if not sizes.multiples or not all(0 < multiple < math.inf for multiple in sizes.multiples):
                raise InvalidInput("sizes.multiples", sizes.multiples, "numbers above 0, one or more")
        for vary in (self.vary, *(rule.vary for rule in self.rules if rule.vary)):
            if vary not in VARIED:
                raise InvalidInput("vary", vary, f"one of {', '.join(VARIED)}")
        if not 0 < self.threshold < 1:
            raise InvalidInput("threshold", self.threshold, "a share of the chance error, above 0 and below 1")
        for key, value, least in (
            ("refine", self.refine, 0),
            ("test_size", self.test_size, 1),
            ("max_runs", self.max_runs, 1),
            ("steps.least", self.steps.least, 1),
            ("steps.most", self.steps.most, self.steps.least),
        ):
            if value < least:
                raise InvalidInput(key, value, f"an integer of at least {least}")
        if not 0 < self.steps.epochs < math.inf:
            raise InvalidInput("steps.epochs", self.steps.epochs, "a number above 0")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InvalidInput("seeds", self.seeds, "one seed or more, all different")
        if self.search is not None:
            self._check_search(self.search)

    def _all_settings(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "settings", self.settings
        yield from (("grid", entry) for entry in self.grid)
        if self.search is not None:
            yield "search.settings", self.search.settings
        for rule in self.rules:
            yield "rules.settings", rule.settings
            yield from (("rules.grid", entry) for entry in rule.grid or [])
            yield "rules.search", rule.search or {}

    def _check_search(self, search: Search) -> None:
        if search.trials < 1:
            raise InvalidInput("search.trials", search.trials, "at least 1")
        if not search.seeds or len(set(search.seeds)) < len(search.seeds):
            raise InvalidInput("search.seeds", search.seeds, "one seed or more, all different")
        if set(search.seeds) & set(self.seeds):
            raise InvalidInput("search.seeds", search.seeds, f"seeds that the figures do not use: {self.seeds}")
        for rule in self.rules:
            key, grid = ("search.settings", search.settings) if rule.search is None else ("rules.search", rule.search)
            if not grid or not all(isinstance(values, list) and values for values in grid.values()):
                raise InvalidInput(key, grid, "a list of values for each setting, one setting or more")
            if (most := len(draw(grid, search.trials))) < search.trials:
                allowed = f"at most {most}, as {key} of {rule.label} has no more combinations: all rules have the same budget"
                raise InvalidInput("search.trials", search.trials, allowed)


def _known(key: str, given: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for name in given:
        if name not in allowed:
            raise InvalidInput(f"{key}.{name}", "unknown key", f"one of {', '.join(allowed)}{nearest(name, allowed)}")


@dataclass(frozen=True)
class Run:
    """A run: its folder's name, what it is for, and the arguments of ``rhm fit``.

    Attributes:
        name: path of its folder within the study's ``runs``.
        rule: name in tables and figures.
        stage: ``search-N``, ``grid`` or ``refined-N``.
        task: parameters.
        settings: of the rule in this study.
        cell: settings of the grid.
        sizes: replicas, crossed with the seeds.
        vary: what the sizes are sizes of.
        steps: length of the run.
        args: of ``rhm fit``.
    """

    name: str
    rule: str
    stage: str
    task: dict[str, int]
    settings: dict[str, Any]
    cell: dict[str, Any]
    sizes: list[int]
    seeds: list[int]
    vary: str
    steps: int
    args: list[str]


@dataclass(frozen=True)
class Plan:
    """What ``runs.json`` holds.

    Attributes:
        runs: all that have been planned so far.
        skipped: parts of the grid that cannot be, with the reason.
        notes: what else a reader of the results must know.
    """

    runs: list[Run]
    skipped: list[str]
    notes: list[str]

    @classmethod
    def of(cls, text: str) -> Plan:
        """The plan in a file's text; :class:`ValueError`, :class:`KeyError` or :class:`TypeError` if there is none."""
        content = json.loads(text)
        return cls([Run(**run) for run in content["runs"]], content["skipped"], content["notes"])

    def text(self) -> str:
        """For the file."""
        return json.dumps(asdict(self), indent=1) + "\n"


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
    def varied(self) -> str:
        """What the sizes are sizes of."""
        return self.rule.vary or self.study.vary

    @property
    def steps(self) -> int:
        """Of all its runs."""
        largest = self.sizes[-1] if self.varied == "train_size" else self.setting("data.train_size", 2048)
        wanted = math.ceil(self.study.steps.epochs * largest / self.setting("data.batch_size", 128))
        return min(max(wanted, self.study.steps.least), self.study.steps.most)

    def setting(self, key: str, default: int) -> int:
        """A setting of its runs, or the default where the study says nothing.

        Raises:
            InvalidInput: it is not one number.
        """
        value = {**self.study.settings, **self.rule.settings, **self.cell}.get(key, default)
        if not isinstance(value, int) or value < 1:
            raise InvalidInput(key, value, "an integer of at least 1, the same for all replicas of a run")
        return value

    def kept(self, wanted: int) -> int:
        """So many strings kept for a test or for probes, or a quarter of the task's where it has few."""
        return min(wanted, max(1, self.task.P_max // 4))

    @property
    def most(self) -> int:
        """The largest size that the task has room for beside the strings that accuracies are measured with."""
        strings = self.task.P_max - self.kept(self.study.test_size)
        return strings if self.varied == "train_size" else min(strings, self.setting("data.train_size", 2048))

    @property
    def searched(self) -> dict[str, list[Any]]:
        """Values of each setting that is searched; empty if the study has no search."""
        if self.study.search is None:
            return {}
        return self.study.search.settings if self.rule.search is None else self.rule.search

    def trials(self) -> list[dict[str, Any]]:
        """Settings that the search tries; the same number for every rule."""
        return [] if self.study.search is None else draw(self.searched, self.study.search.trials)

    @property
    def searched_as(self) -> str:
        """Combinations that share a search have the same name here."""
        parts = self.name.split("/")
        whole = self.study.search is None or self.study.search.each_task
        return "--".join(parts if whole else [parts[0], *parts[2:]])

    def run(self, stage: str, sizes: list[int], seeds: list[int], trial: dict[str, Any], chosen: Path | None = None) -> Run:
        """A run with these replicas.

        Args:
            stage: of the study.
            sizes, seeds: replicas.
            trial: settings that are tried, or were found the best. They win over all others but the replicas.
            chosen: settings file that a search has written.
        """
        settings = {
            **{f"data.{key}": value for key, value in vars(self.task).items()},
            "data.test_size": self.kept(self.study.test_size),
            "data.probe_size": self.kept(2048),
            "trainer.max_steps": self.steps,
            "trainer.limit_val_batches": 0,
            **self.study.settings,
            **self.rule.settings,
            **self.cell,
            **trial,
            f"data.{self.varied}": sizes,
            "data.seeds": seeds,
        }
        files = [RULE_FILES / f"{self.rule.rule}.yaml", *([chosen] if chosen else [])]
        args = [*(f"-c={path}" for path in files), *as_arguments(settings)]
        task, own = asdict(self.task), self.rule.settings
        name, label = f"{self.name}/{stage}", self.rule.label
        return Run(name, label, stage, task, own, self.cell, sizes, seeds, self.varied, self.steps, args)


def study_settings(args: list[str]) -> list[str]:
    """Arguments of a study whose files are read: names of rules as entries, and with ``--quick`` the quick variant.

    Raises:
        InvalidInput: a file that cannot be read.
    """
    quick, given = "--quick" in args, []
    rest = iter(args)
    for argument in rest:
        option, _, value = argument.partition("=")
        if option not in ("-c", "--config"):
            given.append(argument)
            continue
        path = value or next(rest, "")
        try:
            content = yaml.safe_load(Path(path).read_text())
        except (OSError, yaml.YAMLError) as error:
            raise InvalidInput("config", path or "nothing", "a readable YAML file") from error
        if not isinstance(content, dict):
            raise InvalidInput("config", path, "a YAML file with a study")
        variant = content.pop("quick", None)
        if quick:
            if not isinstance(variant, dict):
                raise InvalidInput("quick", variant, f"a part `quick` of {path} that says what differs")
            content = merged(content, variant)
        if isinstance(content.get("rules"), list):
            content["rules"] = [{"rule": rule} if isinstance(rule, str) else rule for rule in content["rules"]]
        given.append(f"--config={json.dumps(content)}")
    return given


def merged(tree: Any, other: Any) -> Any:
    """A tree with another's values in place of its own; lists are not merged."""
    if not isinstance(tree, dict) or not isinstance(other, dict):
        return other
    return {**tree, **{key: merged(tree.get(key), value) for key, value in other.items()}}


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
            task = Task(**{"v": 8, "n": 8, "m": 4, "s": 2, "L": 4, **parameters})
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
            fitting = [size for size in sizes if size <= combination.most]
            if len(fitting) < len(sizes):
                left = ", ".join(f"{size:,}" for size in sizes if size > combination.most)
                has = f"{task.P_max:,} strings"
                if combination.varied == "label_size":
                    has += f", of which data.train_size={combination.setting('data.train_size', 2048):,} are trained on"
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
    searches = {combination.searched_as: len(combination.trials()) for combination in found}
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


def crossed(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In each entry every list of values crossed with the others; entries one after another."""
    cells = []
    for entry in entries:
        values = [value if isinstance(value, list) else [value] for value in entry.values()]
        cells += [dict(zip(entry, chosen, strict=True)) for chosen in itertools.product(*values)]
    return cells


def draw(grid: dict[str, list[Any]], trials: int) -> list[dict[str, Any]]:
    """At most so many combinations of a grid's values, all different, in an order given by their number alone.

    Raises:
        InvalidInput: a grid that is not a dictionary of lists.
    """
    if not grid or not all(isinstance(values, list) and values for values in grid.values()):
        raise InvalidInput("grid", grid, "a list of values for each setting, one setting or more")
    combinations = list({json.dumps(c): c for c in itertools.product(*grid.values())}.values())
    size = len(combinations)
    order = permutation(torch.arange(size), size, seed_keys(torch.tensor([0]), "search")).tolist()
    return [dict(zip(grid, combinations[i], strict=True)) for i in order[:trials]]


def as_arguments(settings: dict[str, Any]) -> list[str]:
    """Settings as the command line takes them."""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]


def cell_label(settings: Mapping[str, Any]) -> str:
    """Settings in short: the last part of each name, where it is the only one of the kind, and of each class."""
    last = [key.rsplit(".", 1)[-1] for key in settings]
    names = [short if last.count(short) == 1 else key for key, short in zip(settings, last, strict=True)]
    return ", ".join(f"{name}={_short(value)}" for name, value in zip(names, settings.values(), strict=True))


def _short(value: Any) -> Any:
    return value.rsplit(".", 1)[-1] if isinstance(value, str) and CLASS_PATH.fullmatch(value) else value


def slug(name: str) -> str:
    """A name as part of a path; the end of a long one is replaced by its hash."""
    name = re.sub(r"[^\w.=+-]+", "_", name)
    if len(name.encode()) <= LONGEST_SLUG:
        return name
    return f"{name.encode()[: LONGEST_SLUG - 9].decode(errors='ignore')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

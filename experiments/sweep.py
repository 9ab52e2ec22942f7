"""``rhm sweep``: all runs of a study, settings searched, sizes refined around P*; goes on where it was stopped."""

from __future__ import annotations

import fcntl
import json
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from experiments.checkpoints import write_atomically
from experiments.estimate import RESULT_BYTES, Costs, why_not
from experiments.launch import Job, Launcher, fit, launch
from experiments.run_folder import RunFolder, flatten
from experiments.search import rule_settings
from experiments.study import Combination, Run, Study, cell_label, expand
from experiments.tables import wide_console
from experiments.tidy import complexities, curve, gather, next_size, task_label
from rhm import InvalidInput

FREE_KEYS = {"max_runs", "refine", "question"}
"""Parts of a study that may differ when it goes on."""


def sweep(
    study: Study,
    run_dir: str,
    launcher: Launcher = Launcher(),  # noqa: B008  (frozen)
    retry: bool = False,
    strict: bool = False,
    dry_run: bool = False,
) -> None:
    """Make all runs of a study that are not finished.

    A stage at a time: the search, whose choices are written to ``RUN_DIR/chosen``; the grid; rounds of refinement.

    Args:
        study: see :class:`experiments.study.Study`.
        run_dir: folder of the study: ``study.yaml``, ``runs.json``, ``failed.json``, ``chosen/``, ``runs/``.
        launcher: where the runs are made.
        retry: repeat runs that have failed.
        strict: refuse a study of which something would be skipped.
        dry_run: print what would be run, how long and how large, and train nothing.
    """
    study.check()
    combinations, skipped = expand(study)
    combinations = _fitting(combinations, skipped)
    if strict and skipped:
        raise InvalidInput("study", skipped[0], "with --strict: only tasks, sizes and networks that exist")
    console = wide_console()
    for reason in skipped:
        console.print(f"skipped: {reason}", soft_wrap=True, highlight=False)
    if dry_run:
        _estimate(study, combinations, launcher, console)
        return
    with _alone(StudyFolder(Path(run_dir)), study) as folder:
        try:
            _Sweep(study, folder, combinations, skipped, launcher, retry, console).run()
        except KeyboardInterrupt:
            print(f"stopped; the same command goes on with what is in {folder.path}", file=sys.stderr)
            raise SystemExit(130) from None


def _fitting(combinations: list[Combination], skipped: list[str]) -> list[Combination]:
    """Those whose rule, network and pairs fit together: each rule is built once for each cell and once for each task."""
    found, cells, tasks = [], dict[tuple[str, str], bool](), dict[tuple[str, str], bool]()
    for combination in track(combinations, description="checking", transient=True):
        cell = combination.rule.label, str(combination.cell)
        task = combination.rule.label, str(combination.task)
        if cell not in cells or (task not in tasks and cells[cell]):
            reason = why_not(combination)
            cells[cell] = tasks[task] = reason is None
            if reason is not None:
                skipped.append(f"{combination.name}, and what is like it: {reason}")
        if cells[cell] and tasks.get(task):
            found.append(combination)
    if not found:
        raise InvalidInput("study", "a grid without a run", f"rules and networks that fit together; {skipped[-1]}")
    return found


class StudyFolder:
    """One study, one folder.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path):
        self.path = path
        self.study, self.plan, self.failed = path / "study.yaml", path / "runs.json", path / "failed.json"
        self.runs, self.chosen = path / "runs", path / "chosen"

    def check(self, study: Study) -> None:
        """See that a study may start or go on here.

        Raises:
            InvalidInput: the folder holds another study or something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InvalidInput("run_dir", self.path, "a folder; this is a file")
        if not self.study.exists():
            if self.path.exists() and any(p.name != ".lock" for p in self.path.iterdir()):
                raise InvalidInput("run_dir", self.path, "a folder that is new, empty, or holds this study")
            return
        try:
            old = flatten(yaml.safe_load(self.study.read_text()))
        except (OSError, yaml.YAMLError) as error:
            raise InvalidInput("run_dir", f"{self.path} with an unreadable study.yaml", "a readable one") from error
        new = flatten(yaml.safe_load(study_yaml(study)))
        for key in sorted(old.keys() | new.keys()):
            if key.split(".")[0] not in FREE_KEYS and old.get(key) != new.get(key):
                got = f"{key}={new.get(key)} in {self.path}, which holds a study with {key}={old.get(key)}"
                raise InvalidInput("run_dir", got, "the same study to go on, or another folder")


@contextmanager
def _alone(folder: StudyFolder, study: Study) -> Iterator[StudyFolder]:
    """The study's folder, for one sweep at a time."""
    folder.check(study)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = (folder.path / ".lock").open("w")
    except OSError as error:
        raise InvalidInput("run_dir", f"{folder.path} ({error.strerror})", "a folder that can be written") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InvalidInput("run_dir", folder.path, "a folder in which no other sweep is running") from None
        write_atomically(folder.study, study_yaml(study))
        yield folder


def study_yaml(study: Study) -> str:
    """A study as the file that gives it, with all that is left to defaults."""
    return yaml.safe_dump(json.loads(json.dumps(asdict(study))), sort_keys=False)


class _Sweep:
    def __init__(
        self,
        study: Study,
        folder: StudyFolder,
        combinations: list[Combination],
        skipped: list[str],
        launcher: Launcher,
        retry: bool,
        console: Console,
    ):
        self.study, self.folder, self.combinations, self.skipped = study, folder, combinations, skipped
        self.launcher, self.console = launcher, console
        self.planned: list[Run] = []
        self.failed: dict[str, str] = {}
        if not retry and folder.failed.exists():
            self.failed = json.loads(folder.failed.read_text())

    def run(self) -> None:
        searched = self._search()
        self._make("grid", [c.run("grid", c.sizes, self.study.seeds, {}, self._chosen(c, searched)) for c in self.combinations])
        for i in range(1, self.study.refine + 1):
            self._make(f"refined {i}", self._refined(f"refined-{i}", searched))
        self._say()

    # ---------------------------------------------------------------- a stage

    def _make(self, title: str, runs: list[Run]) -> None:
        """Make runs that are neither finished nor have failed before, the longest first."""
        self.planned += runs
        plan = {"runs": [asdict(run) for run in self.planned], "skipped": self.skipped}
        write_atomically(self.folder.plan, json.dumps(plan, indent=1) + "\n")
        jobs = []
        for run in sorted(runs, key=lambda run: -run.steps * len(run.sizes) * len(run.seeds) * run.task["s"] ** run.task["L"]):
            folder = str(self.folder.runs.resolve() / run.name)
            if run.name not in self.failed and not RunFolder(folder).finished:
                callbacks = [] if run.stage.startswith("search") else self.study.callbacks
                jobs.append(Job(run.name, fit, (run.args, folder, callbacks), folder, run.steps))
        self.failed |= launch(jobs, self.folder.path.resolve(), self.launcher, title, compete=title == "search")
        write_atomically(self.folder.failed, json.dumps(self.failed, indent=1) + "\n")

    def _search(self) -> dict[str, dict[str, list[float] | None]]:
        """Accuracies of the trials of each combination that was searched, by trial."""
        search = self.study.search
        if search is None:
            return {}
        first: dict[str, Combination] = {}
        for combination in self.combinations:
            first.setdefault(combination.searched_as, combination)
        runs = {
            key: [c.run(f"search-{i}", c.sizes, search.seeds, trial) for i, trial in enumerate(c.trials(), 1)]
            for key, c in first.items()
        }
        self._make("search", [run for group in runs.values() for run in group])
        found: dict[str, dict[str, list[float] | None]] = {}
        for key, group in runs.items():
            found[key] = {run.name: self._accuracies(run) for run in group}
            reached = {name: statistics.fmean(a) for name, a in found[key].items() if a}
            if reached:
                self.folder.chosen.mkdir(exist_ok=True)
                best = max(reached, key=lambda name: reached[name])
                write_atomically(self.folder.chosen / f"{key}.yaml", rule_settings(self.folder.runs / best))
        return found

    def _accuracies(self, run: Run) -> list[float] | None:
        try:
            results = json.loads((self.folder.runs / run.name / "results.json").read_text())
            return [replica["test_accuracy"] for replica in results["replicas"]] if results["status"] == "finished" else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _chosen(self, combination: Combination, searched: dict[str, Any]) -> Path | None:
        """The settings file that the search has written; None if there was none, or none of its runs is left."""
        if not searched:
            return None
        path = self.folder.chosen / f"{combination.searched_as}.yaml"
        return path.resolve() if path.exists() else None

    def _refined(self, stage: str, searched: dict[str, Any]) -> list[Run]:
        """One more size for each combination whose P* lies between two sizes that are not near one another."""
        table = gather(self.folder.runs, self.planned).table
        found, runs = complexities(table, self.study.threshold), []
        for combination in self.combinations:
            key = combination.rule.label, task_label(combination.task), cell_label(combination.cell)
            if key not in found:
                continue
            rows = table.filter((table["rule"] == key[0]) & (table["task"] == key[1]) & (table["cell"] == key[2]))
            size = next_size(curve(rows.filter(~rows["stage"].str.starts_with("search")))[0], found[key])
            if size is not None:
                chosen = self._chosen(combination, searched)
                runs.append(combination.run(stage, [size], self.study.seeds, {}, chosen))
        return runs

    def _say(self) -> None:
        """Print P* of all combinations and what failed."""
        gathered = gather(self.folder.runs, self.planned)
        table = Table(title=f"P*: test error under {self.study.threshold:g} of the chance error, with 95 % interval over seeds")
        for column in "rule", "task", "cell", "P*":
            table.add_column(column)
        for (rule, task, cell), complexity in complexities(gathered.table, self.study.threshold).items():
            table.add_row(rule, task, cell, str(complexity))
        self.console.print(table)
        for name, message in self.failed.items():
            self.console.print(f"failed: {name}: {message}", soft_wrap=True, highlight=False)
        if self.failed:
            self.console.print("--retry repeats what has failed")
        self.console.print(f"rhm report {self.folder.path} draws the figures and writes the page", soft_wrap=True)


# -------------------------------------------------------------------- what it will cost


def _estimate(study: Study, combinations: list[Combination], launcher: Launcher, console: Console) -> None:
    costs = Costs(combinations, len(study.seeds))
    table = Table(title="runs")
    for column in "rule", "task", "cell", "sizes", "replicas", "steps", "runs", "minutes":
        table.add_column(column, justify="left" if column in ("rule", "task", "cell") else "right")
    seconds, count, checkpoints, searched = 0.0, 0, [], set()
    for c in combinations:
        runs = [c.run("grid", c.sizes, study.seeds, {})]
        runs += [c.run("refined", c.sizes[:1], study.seeds, {}) for _ in range(study.refine)]
        if study.search is not None:
            new = c.searched_as not in searched
            runs += [c.run("search", c.sizes, study.search.seeds, trial) for trial in c.trials()] if new else []
            searched.add(c.searched_as)
        own = sum(costs.seconds(c, run) for run in runs)
        seconds, count = seconds + own, count + len(runs)
        checkpoints += [costs.checkpoint(c, run) for run in runs]
        replicas = len(c.sizes) * len(study.seeds)
        sizes = f"{c.sizes[0]:,}" + (f" to {c.sizes[-1]:,}" if len(c.sizes) > 1 else "")
        cells = [c.rule.label, task_label(c.task), cell_label(c.cell), sizes, replicas, c.steps, len(runs), f"{own / 60:.1f}"]
        table.add_row(*(str(cell) for cell in cells))
    console.print(table)
    disk = count * RESULT_BYTES + sum(sorted(checkpoints)[-launcher.jobs :])
    at_once = launcher.jobs if torch.cuda.is_available() else min(launcher.jobs, os.cpu_count() or 1)
    hours, minutes = divmod(round(seconds / at_once / 60), 60)
    shown = f"{hours} h {minutes} min" if hours else f"{max(minutes, 1)} min"
    console.print(
        f"{count} runs at the most, about {shown} with {at_once} at a time (a few steps timed here, one process alone), "
        f"{disk / 1e6:,.0f} MB of disk, of which {count * RESULT_BYTES / 1e6:,.0f} MB stay",
        soft_wrap=True,
        highlight=False,
    )

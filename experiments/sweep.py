"""``rhm sweep``: all runs of a study, settings searched, sizes refined around P*; goes on where it was stopped."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.progress import track
from rich.table import Table

from experiments.asked import check_asked
from experiments.checkpoints import write_atomically
from experiments.estimate import RESULT_BYTES, Check, Costs
from experiments.launch import STOPPED_EARLY, Job, Launcher, fit, launch
from experiments.requeue import listen
from experiments.run_folder import RunFolder
from experiments.search import chosen_settings, rule_settings
from experiments.study import Combination, Plan, Run, Study, cell_label, expand
from experiments.tables import wide_console
from experiments.tidy import complexities, curve, gather, next_size, task_label
from rhm import InvalidInput

FREE_KEYS = {"max_runs", "refine", "question"}
"""Parts of a study that may differ when it goes on."""
NOTHING_CHOSEN = "none of the settings that were searched has finished"


def sweep(
    study: Study,
    run_dir: str,
    launcher: Launcher = Launcher(),
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
        before = listen(signal.SIGTERM, _stop)
        try:
            _Sweep(study, folder, combinations, skipped, launcher, retry, console).run()
        except (KeyboardInterrupt, _Terminated) as stop:
            print(f"stopped; the same command goes on with what is in {folder.path}", file=sys.stderr)
            raise SystemExit(143 if isinstance(stop, _Terminated) else 130) from None
        finally:
            listen(signal.SIGTERM, before)


class _Terminated(BaseException):
    """SIGTERM: all ends as after Ctrl-C."""


def _stop(signum: int, frame: FrameType | None) -> None:
    raise _Terminated


def _fitting(combinations: list[Combination], skipped: list[str]) -> list[Combination]:
    """Those whose rule, network, pairs and settings fit together.

    Each rule is built once for each cell and once for each task that fit. What does not fit may be the cell or the task: it is
    taken to be the one for which the same was said twice.
    """
    found: list[Combination] = []
    check = Check()
    fit, said = set[tuple[str, str]](), dict[tuple[str, str], list[str]]()
    left_out: dict[tuple[str, str], list[str]] = {}
    for combination in track(combinations, description="checking", transient=True):
        rule = combination.rule.label
        parts = (rule, f"cell {combination.cell}"), (rule, f"task {combination.task}")
        if fit.issuperset(parts):
            found.append(combination)
            continue
        before = [reason for part in parts if part not in fit for reason in said.get(part, []) if said[part].count(reason) > 1]
        reason = before[0] if before else check.why_not(combination)
        if reason is None:
            fit.update(parts)
            found.append(combination)
            continue
        for part in parts:
            said.setdefault(part, []).append(reason)
        left_out.setdefault((rule, reason), []).append(combination.name)
    for (_, reason), names in left_out.items():
        skipped.append(f"{names[0]}{f' and {len(names) - 1} like it' if names[1:] else ''}: {reason}")
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
        check_asked(self.study, yaml.safe_load(study_yaml(study)), "study", FREE_KEYS)


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
        folder.check(study)  # again: another sweep may have begun and ended here meanwhile
        for left in folder.path.glob(".*.part"):  # by a sweep that was killed
            left.unlink()
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
        self.notes: list[str] = []
        self.retry = retry
        self.stage = 0
        self.failed = self._read_failed()

    def _read_failed(self) -> dict[str, str]:
        try:
            content = json.loads(self.folder.failed.read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError):
            content = None
        if not isinstance(content, dict):
            self.console.print(f"{self.folder.failed} cannot be read: what has failed is tried again", soft_wrap=True)
            return {}
        return {str(name): str(message) for name, message in content.items()}

    def run(self) -> None:
        self._search()
        self._make("grid", [self._run(c, "grid", c.sizes) for c in self.combinations])
        for i in range(1, self.study.refine + 1):
            self._make(f"refined {i}", self._refined(f"refined-{i}"))
        self._say()

    # ---------------------------------------------------------------- a stage

    def _make(self, title: str, runs: list[Run]) -> None:
        """Make runs that are neither finished nor have failed before, the longest first."""
        self.planned += runs
        self.stage += 1
        self._write_plan()
        jobs = []
        for run in sorted(runs, key=lambda run: -run.steps * len(run.sizes) * len(run.seeds) * run.task["s"] ** run.task["L"]):
            folder = str(self.folder.runs.resolve() / run.name)
            if RunFolder(folder).finished:
                self.failed.pop(run.name, None)
            elif run.name not in self.failed or (self.retry and self.failed[run.name] != NOTHING_CHOSEN):
                callbacks = [] if run.stage.startswith("search") else self.study.callbacks
                jobs.append(Job(run.name, fit, (run.args, folder, callbacks), folder, run.steps))
        try:
            shown = f"stage {self.stage} of {(self.study.search is not None) + 1 + self.study.refine}, {title}"
            launch(jobs, self.folder.path.resolve(), self.launcher, shown, title == "search", self.failed)
        finally:
            write_atomically(self.folder.failed, json.dumps(self.failed, indent=1) + "\n")

    def _write_plan(self) -> None:
        write_atomically(self.folder.plan, Plan(self.planned, self.skipped, self.notes).text())

    def _note(self, text: str) -> None:
        """Something that a reader of the results must know, in the terminal and in the plan."""
        self.notes.append(text)
        self.console.print(text, soft_wrap=True, highlight=False)

    def _search(self) -> None:
        """Write the settings file of each combination that is searched."""
        search = self.study.search
        if search is None:
            return
        shared: dict[str, list[Combination]] = {}
        for combination in self.combinations:
            shared.setdefault(combination.searched_as, []).append(combination)
        runs = {
            key: [c.run(f"search-{i}", c.sizes, search.seeds, trial) for i, trial in enumerate(c.trials(), 1)]
            for key, (c, *_) in shared.items()
        }
        self._make("search", [run for group in runs.values() for run in group])
        for key, group in runs.items():
            found = {run.name: self._accuracies(run) for run in group}
            stopped = [n for n, a in found.items() if a is None and self.failed.get(n, "").startswith(STOPPED_EARLY)]
            finished = {name: accuracies for name, accuracies in found.items() if accuracies}
            if len(finished) + len(stopped) < len(group):
                self._note(f"search {key}: {len(finished)} of {len(group)} settings have finished, the others have failed")
            if finished:
                best = max(finished, key=lambda name: statistics.fmean(finished[name]))
                self._choose(key, self.folder.runs / best, shared[key])

    def _choose(self, key: str, best: Path, combinations: list[Combination]) -> None:
        """Write the best settings, unless there are runs with those that were the best before."""
        path, text = self.folder.chosen / f"{key}.yaml", rule_settings(best, combinations[0].searched)
        if path.exists() and path.read_text() != text:
            begun = [c.name for c in combinations for config in (self.folder.runs / c.name).glob("[gr]*/config.yaml")]
            if begun:
                self._note(f"search {key}: {best.name} is the best now, but runs with the settings chosen before exist: kept")
                return
        self.folder.chosen.mkdir(exist_ok=True)
        write_atomically(path, text)

    def _run(self, combination: Combination, stage: str, sizes: list[int]) -> Run:
        """A run with the settings that the search has chosen; one for which there are none has failed before it starts."""
        path, best = self.folder.chosen / f"{combination.searched_as}.yaml", dict[str, Any]()
        searched = self.study.search is not None
        there = searched and path.exists()
        if there:
            best = chosen_settings(path, combination.searched)
        run = combination.run(stage, sizes, self.study.seeds, best, path.resolve() if there else None)
        if searched and not there:
            self.failed[run.name] = NOTHING_CHOSEN
        elif self.failed.get(run.name) == NOTHING_CHOSEN:
            del self.failed[run.name]
        return run

    def _accuracies(self, run: Run) -> list[float] | None:
        try:
            results = json.loads((self.folder.runs / run.name / "results.json").read_text())
            return [replica["test_accuracy"] for replica in results["replicas"]] if results["status"] == "finished" else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _refined(self, stage: str) -> list[Run]:
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
                runs.append(self._run(combination, stage, [size]))
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

"""``rhm compare``: a study's search and grid for every rule on the same tasks, tabulated."""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from experiments.files import (
    UNREADABLE,
    check_folder,
    number_of,
    read_json,
    read_settings,
    text_of,
    whole_of,
    write_atomically,
    write_json,
    writing,
)
from experiments.run.folder import RunFolder
from experiments.run.tables import by_size, sizes_of
from experiments.settings import RULE_FILES
from experiments.study.check import of_rule, why_not
from experiments.study.estimate import stepper
from experiments.study.folder import goes_on, keep_asked
from experiments.study.job import LONGEST_MESSAGE, Job
from experiments.study.launcher import Launcher
from experiments.study.launchers import launch
from experiments.study.make import accuracies, best_of, job_of, make_run
from experiments.terminal import mean_and_deviation, wide_console
from rhm import InvalidInput

MARKS = "<!-- table: begin -->", "<!-- table: end -->"
REFERENCE = "backprop"
TEXTS = 2
"""Columns of the table that are no numbers: the rule, and what it learns from."""
OWN = {"--model.optimizer.lr": "rates", "--data.seeds": "tasks", "--data.train_size": "tasks", "--run_dir": "run_dir"}
"""Settings that every run is given, and where from."""


@dataclass(frozen=True)
class Row:
    """A rule on a task: a line of the table, and a folder of runs.

    Attributes:
        task: settings file.
        rule: name of a settings file in ``configs/rules``.
        folder: ``search-RATE``, ``final`` and ``chosen.json``.
        more: further settings of every run.
    """

    task: str
    rule: str
    folder: Path
    more: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of its jobs, and where something is said of it."""
        return "/".join(self.folder.parts[-2:])

    @property
    def chosen(self) -> Path:
        """File with the rate that was chosen, what the others reached and the time of a step."""
        return self.folder / "chosen.json"

    @property
    def final(self) -> Path:
        """Folder of the run with that rate."""
        return self.folder / "final"

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.chosen.exists() and RunFolder(self.final).finished

    def args(self, *own: str, rule: str | None = None) -> list[str]:
        """Of a run with settings of its own, or of another rule's."""
        return [f"-c={self.task}", f"-c={RULE_FILES / f'{rule or self.rule}.yaml'}", *own, *self.more]


def compare(
    tasks: list[str],
    run_dir: str,
    rules: list[str] | None = None,
    rates: list[float] = [3e-4, 1e-3, 3e-3, 1e-2],  # noqa: B006  (never changed; a tuple would not be a list in YAML)
    seed: int = 100,
    args: list[str] = [],  # noqa: B006
    jobs: int = 2,
    out: str | None = None,
) -> None:
    """Search each rule's learning rate on one seed, train it with the best on the task's seeds and sizes, and tabulate.

    The best rate has the highest mean accuracy over the task's training-set sizes, on ``seed``, which the task must not have.
    Finished runs are kept and not repeated, so the command goes on where it was stopped, also with other rules and tasks. It is
    refused where a rule's runs on a task were made with other settings.

    Args:
        tasks: settings files with several training-set sizes and seeds.
        run_dir: folder of all runs, ``TASK/RULE/...``, with their ``asked.yaml``, and of ``compare.json``.
        rules: names of settings files in ``configs/rules``; all by default.
        rates: learning rates that are tried for each rule.
        seed: of the search.
        args: further settings of every run, such as ``[--model.network.width=64]``.
        jobs: runs at a time, each on its share of the cores.
        out: Markdown file between whose marks the table is written.
    """
    check_folder("run_dir", Path(run_dir))
    names = _known(rules)
    _check(rates, jobs, args, out)
    sizes = {Path(task).stem: _sizes(task, seed) for task in tasks}
    if len(sizes) < len(tasks):
        raise InvalidInput("tasks", tasks, "files of different names, which are those of their folders")
    console, folder = wide_console(), Path(run_dir)
    rows = [Row(task, name, folder / Path(task).stem / name, tuple(args)) for task in tasks for name in names]
    _begin(rows, {"rates": rates, "seed": seed, "args": args})
    failed = _make(rows, rates, seed, folder, Launcher(jobs=jobs))
    results, unreadable = _collect([row for row in rows if row not in failed], sizes)
    table = "\n\n".join(_markdown(task, sizes[task], lines) for task, lines in results.items())
    if console.is_terminal:
        for task, lines in results.items():
            console.print_table(_table(task, sizes[task], lines))
    else:
        console.print(table, soft_wrap=True)
    for row, message in failed.items():
        console.print(f"failed: {row.name}: {message}", soft_wrap=True)
    for text in unreadable:
        console.print(f"cannot be read, left out: {text}", soft_wrap=True)
    with writing("run_dir", folder):
        write_json(folder / "compare.json", results)
    if out is not None and any(results.values()):
        with writing("out", out, "file"):
            text = Path(out).read_text(encoding="utf-8")
            begin, end = text.index(MARKS[0]) + len(MARKS[0]), text.index(MARKS[1])
            write_atomically(Path(out).resolve(), f"{text[:begin]}\n{table}\n{text[end:]}")
    if failed or unreadable:
        why = "for their runs have failed" if failed else "for their results cannot be read"
        missing = f"{len(failed) + len(unreadable)} of {len(rows)} rows are missing, {why}"
        print(f"rhm: {missing}; see {folder / 'jobs'}; the same command tries them again", file=sys.stderr)
        raise SystemExit(1)


# -------------------------------------------------------------------- what is asked


def _known(rules: list[str] | None) -> list[str]:
    known = sorted(path.stem for path in RULE_FILES.glob("*.yaml"))
    names = known if rules is None else rules
    for name in names:
        if name not in known:
            raise InvalidInput("rules", name, f"names of files in configs/rules: {', '.join(known)}")
    if len(set(names)) < len(names) or not names:
        raise InvalidInput("rules", names, "different rules, one or more")
    return names


def _check(rates: list[float], jobs: int, args: list[str], out: str | None) -> None:
    if not rates or min(rates) <= 0:
        raise InvalidInput("rates", rates, "learning rates above 0, one or more")
    if jobs < 1:
        raise InvalidInput("jobs", jobs, "an integer of at least 1")
    if len({f"{rate:g}" for rate in rates}) < len(rates):
        raise InvalidInput("rates", rates, "rates that differ in six digits: they name their folders")
    if out is not None:
        _check_marks(Path(out))
    for argument in args:
        key, equals, _ = argument.partition("=")
        if not key.startswith("-") or not equals:
            raise InvalidInput("args", argument, "settings such as --model.network.width=64")
        if (plain := key.replace(".init_args", "")) in OWN:
            raise InvalidInput("args", argument, f"in its place, {OWN[plain]} of the comparison")


def _check_marks(out: Path) -> None:
    """See, before hours of training, that there is a file to write the table into."""
    try:
        text = out.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InvalidInput("out", f"{out} ({error})", f"a text file that has the lines {' and '.join(MARKS)}") from error
    if not all(mark in text for mark in MARKS) or text.index(MARKS[0]) > text.index(MARKS[1]):
        raise InvalidInput("out", out, f"a file that has the lines {' and '.join(MARKS)}")
    if not (os.access(out, os.W_OK) and os.access(out.resolve().parent, os.W_OK)):
        raise InvalidInput("out", out, "a file that can be written")


def _begin(rows: list[Row], settings: dict[str, Any]) -> None:
    """See that folders' runs were made for what is asked now, and that what is new can be trained by the reference."""
    new = []
    for row in rows:
        files = {"task": Path(row.task), "rule": RULE_FILES / f"{row.rule}.yaml"}
        asked = {**{key: read_settings(f"{key}s", path) for key, path in files.items()}, **settings}
        if not goes_on(row.folder, asked, "comparison"):
            new.append((row, asked))
    for task in dict.fromkeys(row.task for row, _ in new):
        reason = why_not([f"-c={task}", f"-c={RULE_FILES / f'{REFERENCE}.yaml'}", *settings["args"]])
        if reason is not None:
            got = f"{task} with {settings['args']}"
            raise InvalidInput("tasks and args", got, f"what {REFERENCE} can be trained with; {reason}")
    for row, asked in new:
        keep_asked(row.folder, asked)


def _sizes(task: str, seed: int) -> list[int]:
    """Training-set sizes of a task's settings file."""
    try:
        data = read_settings("tasks", task)["data"]["init_args"]
        sizes, seeds = data["train_size"], data["seeds"]
    except (KeyError, TypeError) as error:
        raise InvalidInput("tasks", task, "settings files with data.init_args.train_size and seeds") from error
    if not isinstance(sizes, list) or len(sizes) < 2:
        raise InvalidInput("tasks", f"{task} with train_size {sizes}", "two training-set sizes or more")
    if seed in seeds:
        raise InvalidInput("seed", seed, f"a seed that {task} does not use: {seeds}")
    return sorted(sizes)


# -------------------------------------------------------------------- runs


def _make(rows: list[Row], rates: list[float], seed: int, folder: Path, launcher: Launcher) -> dict[Row, str]:
    """The searches of all rows, then their runs with the best rate; why rows have failed."""
    tried = {rate: (f"search-{rate:g}", f"--data.seeds=[{seed}]", f"--model.optimizer.lr={rate}") for rate in rates}
    searches = {
        row: [job_of(f"{row.name}/{run}", row.args(*own), row.folder / run) for run, *own in tried.values()] for row in rows
    }
    lost = launch([job for jobs in searches.values() for job in jobs], folder, launcher, "search")
    said = {row: [lost[job.name].message for job in jobs if job.name in lost] for row, jobs in searches.items()}
    failed = {row: why[0] for row, why in said.items() if why}
    left = []
    for row in (row for row in rows if row not in failed and not row.finished):
        read = {run: accuracies(row.folder / run, also_stopped=True) for run, *_ in tried.values()}
        damaged = [run for run, shares in read.items() if not shares]
        if damaged:
            failed[row] = f"{row.folder / damaged[0]} has no results that can be read"
            continue
        found = {rate: read[run] or [] for rate, (run, *_) in tried.items()}
        means = {rate: statistics.fmean(shares) for rate, shares in found.items()}
        left.append(Job(row.name, _train, (row, best_of(found), means)))
    lost = launch(left, folder, launcher, "rules")
    return {row: failed[row] if row in failed else lost[row.name].message for row in rows if row in failed or row.name in lost}


def _train(row: Row, rate: float, search: dict[float, float]) -> None:
    """Make a run with the rate that was chosen, and write it down once, with the time of a step against the reference's."""
    make_run(row.args(f"--model.optimizer.lr={rate}"), str(row.final))
    if not row.chosen.exists():
        chosen = {"rate": rate, "search": search, "step_time_ratio": step_time_ratio(row)}
        write_json(row.chosen, chosen)


def step_time_ratio(row: Row, rounds: int = 9) -> float:
    """How long a rule's step takes relative to the reference's, with all replicas of a task; the median of pairs of steps."""
    steps = [stepper(of_rule(args)) for args in (row.args(), row.args(rule=REFERENCE))]
    ratios = []
    for i in range(rounds + 2):  # the first two are slower
        times = []
        for step in steps:
            start = time.perf_counter()
            step(i)
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios[2:])


# -------------------------------------------------------------------- tables


def _collect(rows: list[Row], sizes: dict[str, list[int]]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What is known of the rules on each task; and which rows cannot be read, with the reason."""
    results, unreadable = {task: dict[str, Any]() for task in sizes}, list[str]()
    for row in rows:
        task = row.folder.parent.name
        try:
            results[task][row.rule] = _finished(row, sizes[task])
        except UNREADABLE as error:
            unreadable.append(f"{row.name}: {type(error).__name__}: {' '.join(str(error).split())[:LONGEST_MESSAGE]}")
    return results, unreadable


def _finished(row: Row, sizes: list[int]) -> dict[str, Any]:
    """What is known of a rule: the accuracies by training-set size, the rate and the time of a step.

    Raises:
        One of ``UNREADABLE``: it cannot be read, or is not that of a finished run.
    """
    results, chosen = read_json(row.final / "results.json"), read_json(row.chosen)
    if results["status"] != "finished":
        raise ValueError(f"status {results['status']}")
    places = by_size((strings, None) for strings, _ in sizes_of(results))
    shares = [number_of(replica, "test_accuracy", most=1) for replica in results["replicas"]]
    pairs = results["supervision"]["pairs"]
    return {
        "rule": text_of(results, "rule"),
        "supervision": {
            **results["supervision"],
            "rule": text_of(results["supervision"], "rule"),
            "pairs": None if pairs is None else str(pairs),
        },
        "steps": whole_of(results, "steps"),
        "accuracy": {size: [shares[r] for r in places[size, None]] for size in sizes},
        **chosen,
        "rate": number_of(chosen, "rate"),
        "step_time_ratio": number_of(chosen, "step_time_ratio"),
    }


def _lines(sizes: list[int], rows: dict[str, Any]) -> list[list[str]]:
    """The heading, and a line for each rule, the best on average over sizes first."""
    lines = [["rule", "hidden layers learn from", *(f"P = {size:,}" for size in sizes), "rate", "step time"]]
    for name, row in sorted(rows.items(), key=lambda item: -statistics.fmean(itertools.chain(*item[1]["accuracy"].values()))):
        source = row["supervision"]
        learns = source["rule"] if source["pairs"] is None else f"{source['pairs']} ({source['rule']})"
        cells = [mean_and_deviation(row["accuracy"][size]) for size in sizes]
        lines.append([name, learns, *cells, f"{row['rate']:g}", f"{row['step_time_ratio']:.2f}"])
    return lines


def _markdown(task: str, sizes: list[int], rows: dict[str, Any]) -> str:
    head, *lines = (f"| {' | '.join(line)} |" for line in _lines(sizes, rows))
    return "\n".join([f"**{task}**", "", head, f"|{'---|' * (len(sizes) + 4)}", *lines])


def _table(task: str, sizes: list[int], rows: dict[str, Any]) -> Table:
    table, (head, *lines) = Table(title=task), _lines(sizes, rows)
    for i, column in enumerate(head):
        table.add_column(column, justify="left" if i < TEXTS else "right", no_wrap=i >= TEXTS)
    for line in lines:
        table.add_row(*line)
    return table

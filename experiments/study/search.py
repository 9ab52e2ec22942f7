"""``rhm search``: the search of a study for one rule on a task of its own, a fixed number of settings drawn from a grid."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from experiments.files import check_folder, read_settings, write_atomically, write_json, writing
from experiments.settings import DATA, rule_file
from experiments.study.check import why_not
from experiments.study.chosen import rule_settings
from experiments.study.draw import draw
from experiments.study.folder import goes_on, keep_asked
from experiments.study.launcher import Launcher
from experiments.study.launchers import launch
from experiments.study.make import accuracies, job_of
from experiments.study.names import as_arguments
from experiments.terminal import mean_and_deviation, wide_console
from rhm import InvalidInput

UNREADABLE_RUN = "its results cannot be read, or have no accuracies"


def search(
    rule: str,
    task: str,
    grid: str,
    run_dir: str,
    trials: int = 24,
    seeds: list[int] = [100, 101],  # noqa: B006  (never changed; a tuple would not be a list in YAML)
    jobs: int = 2,
) -> None:
    """Try settings of a rule and write the best as a settings file, ``RUN_DIR/best.yaml``.

    The settings are drawn from all combinations of a grid, without repetition, in an order given by the grid's size
    alone: the same budget for every rule. The best has the highest mean test accuracy over the seeds. Finished runs are kept,
    so the command goes on where it was stopped, also with other trials and jobs; in another's folder it is refused.

    Args:
        rule: settings file of the rule, or the name of one in ``configs/rules``.
        task: settings file of the task; its seeds must not be those of the search.
        grid: YAML that gives a list of values for each setting, such as ``model.optimizer.lr: [1.0e-3, 3.0e-3]``.
        run_dir: folder of the runs, ``trial-N``, of ``asked.yaml``, ``search.json`` and ``best.yaml``.
        trials: settings that are tried; all of the grid's if it has fewer.
        seeds: of the search.
        jobs: runs at a time, each on its share of the cores.
    """
    if trials < 1 or jobs < 1:
        raise InvalidInput("trials and jobs", f"{trials}, {jobs}", "integers of at least 1")
    own, content, values = rule_file(rule), read_settings("task", task), read_settings("grid", grid)
    task_seeds = content.get("data", {}).get("init_args", {}).get("seeds", DATA["seeds"])
    if set(seeds) & set(task_seeds):
        raise InvalidInput("seeds", seeds, f"seeds that the task does not use: {task_seeds}")
    check_folder("run_dir", Path(run_dir))
    settings = {f"trial-{i}": chosen for i, chosen in enumerate(draw(values, trials))}
    runs = {
        name: [f"-c={task}", f"-c={own}", f"--data.seeds={seeds}", *as_arguments(chosen)] for name, chosen in settings.items()
    }
    folder, in_order = Path(run_dir), [{key: tried} for key, tried in values.items()]  # which gives that of the trials
    asked = {"rule": read_settings("rule", own), "task": content, "grid": in_order, "seeds": seeds}
    if not goes_on(folder, asked, "search"):
        _check(runs)
        keep_asked(folder, asked)
    work = [job_of(name, args, folder / name) for name, args in runs.items()]
    failed = launch(work, folder, Launcher(jobs=jobs), own.stem)
    found = {name: shares for name in runs if name not in failed and (shares := accuracies(folder / name, also_stopped=True))}
    order = sorted(runs, key=lambda name: -statistics.fmean(found.get(name, [-1.0])))
    why = {name: failed[name].message if name in failed else UNREADABLE_RUN for name in runs if name not in found}
    rows = [{"settings": settings[name], "accuracy": found.get(name), "failed": why.get(name)} for name in order]
    with writing("run_dir", folder):
        write_json(folder / "search.json", rows)
    wide_console().print_table(_table(f"{own.stem}: {len(found)} of {len(settings)} settings on seeds {seeds}", rows))
    if not found:
        print(f"rhm: none of {len(settings)} settings has finished; see {folder / 'jobs'}", file=sys.stderr)
        raise SystemExit(1)
    with writing("run_dir", folder):
        write_atomically(folder / "best.yaml", rule_settings(folder / order[0], settings[order[0]]))


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    """A line for each trial, the best first."""
    table = Table(title=title)
    table.add_column("test accuracy", justify="right", no_wrap=True)
    table.add_column("settings")
    for row in rows:
        settings = ", ".join(f"{key}={value}" for key, value in row["settings"].items())
        why = "" if row["accuracy"] else f": {row['failed']}"
        table.add_row(mean_and_deviation(row["accuracy"]) if row["accuracy"] else "failed", settings + why)
    return table


def _check(runs: dict[str, list[str]]) -> None:
    """Refuse a search of which no run can be made. One that fails is a result: values may exclude one another."""
    reasons = []
    for args in runs.values():
        reason = why_not(args)
        if reason is None:
            return
        reasons.append(reason)
    raise InvalidInput("rule, task and grid", "no settings to train with", f"what fits together; {reasons[0]}")

"""``rhm sweep --dry-run``: what would be run, how long it would take and how large it would be."""

from __future__ import annotations

import os
from collections.abc import Container

import torch
from rich.table import Table

from experiments.study.estimate import Costs
from experiments.study.grid import Combination
from experiments.study.launcher import Launcher
from experiments.study.names import cell_label, task_label
from experiments.study.study import Study
from experiments.terminal import PlainConsole

RESULT_BYTES = 60_000
"""Of a finished run: settings, results and heat map."""


def print_costs(
    study: Study, combinations: list[Combination], launcher: Launcher, console: PlainConsole, answered: Container[str] = ()
) -> None:
    """Print the runs of each combination, how long all take and how large they are.

    Args:
        study, combinations, launcher: what would be run, and where.
        console: to print on.
        answered: questions of searches that are not made again.
    """
    costs = Costs(combinations)
    table = Table(title="runs")
    for column in "rule", "task", "cell", "sizes", "replicas", "steps", "runs", "minutes":
        text = column in ("rule", "task", "cell")
        table.add_column(column, justify="left" if text else "right", no_wrap=not text)
    seconds, count, checkpoints = 0.0, 0, list[float]()
    searched, known = set[str](), set[str]()
    for c in combinations:
        steps = c.search_steps if study.search is not None and study.search.finalists else [c.steps]
        runs = [c.run("grid", c.sizes, study.seeds, {}, steps[-1])]
        runs += [c.run("refined", c.sizes[:1], study.seeds, {}, steps[-1]) for _ in range(study.refine)]
        if study.search is not None:
            if c.searched_as not in searched and c.question in answered:
                known.add(c.searched_as)
            new = c.searched_as not in searched | known
            runs += c.search_runs() if new else []
            searched |= {c.searched_as} - known
        own = sum(costs.seconds(c, run) for run in runs)
        seconds, count = seconds + own, count + len(runs)
        checkpoints += [costs.checkpoint(c, run) for run in runs]
        sizes = f"{c.sizes[0]:,}" + (f" to {c.sizes[-1]:,}" if len(c.sizes) > 1 else "")
        lengths = " or ".join(f"{length:,}" for length in steps)
        cells = [c.rule.label, task_label(c.task), cell_label(c.cell), sizes, c.replicas, lengths, len(runs), f"{own / 60:.1f}"]
        table.add_row(*(str(cell) for cell in cells))
    console.print_table(table, keys=3)
    if answered:
        console.print(f"{len(known)} of {len(known | searched)} searches were made before")
    disk = count * RESULT_BYTES + sum(sorted(checkpoints)[-launcher.jobs :])
    at_once = launcher.jobs if torch.cuda.is_available() else min(launcher.jobs, os.cpu_count() or 1)
    hours, minutes = divmod(round(seconds / at_once / 60), 60)
    shown = f"{hours} h {minutes} min" if hours else f"{max(minutes, 1)} min"
    rungs = study.search is not None and study.search.rungs > 1
    most = "at the most" + (", unless all settings of a rung are at chance" if rungs else "")
    console.print(
        f"{count} runs {most}, about {shown} with {at_once} at a time (a few steps timed here, one process alone), "
        f"{disk / 1e6:,.0f} MB of disk, of which {count * RESULT_BYTES / 1e6:,.0f} MB stay",
        soft_wrap=True,
        highlight=False,
    )

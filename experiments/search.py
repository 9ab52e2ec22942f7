"""``rhm search``: settings of a rule, a fixed number of them drawn from a grid, each tried on the same task and seeds."""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.progress import Progress
from rich.table import Table

from experiments.tables import spread, wide_console
from rhm import InvalidInput
from rhm.hashing import permutation, seed_keys


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
    alone: the same budget for every rule. The best has the highest mean test accuracy over the seeds. Finished runs are kept.

    Args:
        rule: settings file of the rule.
        task: settings file of the task; its seeds must not be those of the search.
        grid: YAML that gives a list of values for each setting, such as ``model.optimizer.lr: [1.0e-3, 3.0e-3]``.
        run_dir: folder of the runs, ``trial-N``, of ``search.json`` and ``best.yaml``.
        trials: settings that are tried; all of the grid's if it has fewer.
        seeds: of the search.
        jobs: runs at a time, each on its share of the cores.
    """
    if trials < 1 or jobs < 1:
        raise InvalidInput("trials and jobs", f"{trials}, {jobs}", "integers of at least 1")
    task_seeds = _read(task, "task").get("data", {}).get("init_args", {}).get("seeds", [0])
    if set(seeds) & set(task_seeds):
        raise InvalidInput("seeds", seeds, f"seeds that the task does not use: {task_seeds}")
    settings = {f"trial-{i}": chosen for i, chosen in enumerate(draw(_read(grid, "grid"), trials))}
    runs = {
        name: [f"-c={task}", f"-c={rule}", f"--data.seeds={seeds}", *as_arguments(chosen)] for name, chosen in settings.items()
    }
    calls = {name: (args, str(Path(run_dir) / name)) for name, args in runs.items()}
    results, failed = in_processes(fit, calls, jobs, Path(rule).stem)
    found = {name: [replica["test_accuracy"] for replica in result["replicas"]] for name, result in results.items()}
    order = sorted(runs, key=lambda name: -statistics.fmean(found.get(name, [-1.0])))
    rows = [{"settings": settings[name], "accuracy": found.get(name), "failed": failed.get(name)} for name in order]
    (Path(run_dir) / "search.json").write_text(json.dumps(rows, indent=1) + "\n")
    table = Table(title=f"{Path(rule).stem}: {len(found)} of {len(settings)} settings on seeds {seeds}")
    table.add_column("test accuracy", justify="right")
    table.add_column("settings")
    for name in order:
        shown = spread(found[name]) if name in found else failed[name]
        table.add_row(shown, ", ".join(f"{key}={value}" for key, value in settings[name].items()))
    wide_console().print(table)
    if found:
        content = yaml.safe_load((Path(run_dir) / order[0] / "config.yaml").read_text())
        kept = {"data": {"init_args": {"pairs": content["data"]["init_args"]["pairs"]}}, "model": content["model"]}
        (Path(run_dir) / "best.yaml").write_text(yaml.safe_dump(kept, sort_keys=False))


def draw(grid: dict[str, list[Any]], trials: int) -> list[dict[str, Any]]:
    """At most so many combinations of a grid's values, all different.

    Raises:
        InvalidInput: a grid that is not a dictionary of lists.
    """
    if not grid or not all(isinstance(values, list) and values for values in grid.values()):
        raise InvalidInput("grid", grid, "a list of values for each setting, one setting or more")
    combinations = list(itertools.product(*grid.values()))
    size = len(combinations)
    assert size == math.prod(len(values) for values in grid.values())
    order = permutation(torch.arange(size), size, seed_keys(torch.tensor([0]), "search")).tolist()
    return [dict(zip(grid, combinations[i], strict=True)) for i in order[:trials]]


def as_arguments(settings: dict[str, Any]) -> list[str]:
    """Settings as the command line takes them."""
    return [f"--{key}={json.dumps(value)}" for key, value in settings.items()]


def in_processes(
    function: Callable[..., Any], calls: dict[str, tuple[Any, ...]], jobs: int, title: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """What a function returns for each call, by name, and messages of calls that failed.

    Args:
        function: of a module, so that other processes find it.
        calls: its arguments, by name.
        jobs: processes, each on its share of the cores.
        title: of the progress bar.
    """
    found: dict[str, Any] = {}
    failed: dict[str, str] = {}
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _one_share, (jobs,))
    with Progress(console=wide_console()) as bar, pool:
        line = bar.add_task(title, total=len(calls))
        names = {pool.submit(function, *args): name for name, args in calls.items()}
        for done in as_completed(names):
            error = done.exception()
            if isinstance(error, BrokenProcessPool):
                raise error
            if error is None:
                found[names[done]] = done.result()
            else:
                failed[names[done]] = " ".join(str(error).split())[:200]
            bar.advance(line)
    return found, failed


def _one_share(jobs: int) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def fit(args: list[str], folder: str) -> dict[str, Any]:
    """Results of a run, which is made, or gone on with, if it is not finished.

    Raises:
        RuntimeError: the run was refused.
    """
    from experiments.cli import main

    path = Path(folder) / "results.json"
    if not path.exists() or json.loads(path.read_text())["status"] != "finished":
        probe = {"class_path": "callbacks.LayerwiseLinearProbe", "init_args": {"logistic": False}}  # which would take longest
        quiet = ["--tables=false", "--trainer.enable_progress_bar=false", "--trainer.logger=false"]
        quiet.append(f"--trainer.callbacks={json.dumps([probe])}")
        try:
            main(["fit", *args, *quiet, f"--run_dir={folder}"])
        except SystemExit as error:
            raise RuntimeError(f"`rhm fit {' '.join(args)}` was refused") from error
    results: dict[str, Any] = json.loads(path.read_text())
    return results


def _read(path: str, key: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InvalidInput(key, path, "a readable YAML file") from error
    if not isinstance(content, dict):
        raise InvalidInput(key, path, "a YAML file of settings")
    return content

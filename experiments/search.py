"""``rhm search``: settings of a rule, a fixed number of them drawn from a grid, each tried on the same task and seeds."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table

from experiments.asked import goes_on, keep_asked
from experiments.estimate import why_not
from experiments.launch import Job, Launcher, fit, launch
from experiments.rules import settings_file
from experiments.study import as_arguments, draw
from experiments.tables import spread, wide_console
from rhm import InvalidInput

MISSING = object()


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
    own, content, values = settings_file(rule), _read(task, "task"), _read(grid, "grid")
    task_seeds = content.get("data", {}).get("init_args", {}).get("seeds", [0])
    if set(seeds) & set(task_seeds):
        raise InvalidInput("seeds", seeds, f"seeds that the task does not use: {task_seeds}")
    settings = {f"trial-{i}": chosen for i, chosen in enumerate(draw(values, trials))}
    runs = {
        name: [f"-c={task}", f"-c={own}", f"--data.seeds={seeds}", *as_arguments(chosen)] for name, chosen in settings.items()
    }
    folder, in_order = Path(run_dir), [{key: tried} for key, tried in values.items()]  # which gives that of the trials
    asked = {"rule": _read(str(own), "rule"), "task": content, "grid": in_order, "seeds": seeds}
    if not goes_on(folder, asked, "search"):
        _check(runs)
        keep_asked(folder, asked)
    work = [Job(name, fit, (args, str(folder / name)), str(folder / name)) for name, args in runs.items()]
    failed = launch(work, folder, Launcher(jobs=jobs), own.stem)
    results = {name: json.loads((folder / name / "results.json").read_text()) for name in runs if name not in failed}
    found = {name: [replica["test_accuracy"] for replica in result["replicas"]] for name, result in results.items()}
    order = sorted(runs, key=lambda name: -statistics.fmean(found.get(name, [-1.0])))
    rows = [{"settings": settings[name], "accuracy": found.get(name), "failed": failed.get(name)} for name in order]
    (folder / "search.json").write_text(json.dumps(rows, indent=1) + "\n")
    table = Table(title=f"{own.stem}: {len(found)} of {len(settings)} settings on seeds {seeds}")
    table.add_column("test accuracy", justify="right")
    table.add_column("settings")
    for name in order:
        shown = spread(found[name]) if name in found else failed[name]
        table.add_row(shown, ", ".join(f"{key}={value}" for key, value in settings[name].items()))
    wide_console().print(table)
    if not found:
        print(f"rhm: none of {len(settings)} settings has finished; see {folder / 'jobs'}", file=sys.stderr)
        raise SystemExit(1)
    (folder / "best.yaml").write_text(rule_settings(folder / order[0], settings[order[0]]))


def _check(runs: dict[str, list[str]]) -> None:
    """Refuse a search of which no run can be made. One that fails is a result: values may exclude one another."""
    reasons = []
    for args in runs.values():
        reason = why_not(args)
        if reason is None:
            return
        reasons.append(reason)
    raise InvalidInput("rule, task and grid", "no settings to train with", f"what fits together; {reasons[0]}")


def rule_settings(run_dir: Path, tried: Iterable[str] = ()) -> str:
    """A run's settings of rule and pairs, and whatever else was tried, as a settings file.

    Args:
        run_dir: of the run.
        tried: dotted names of the settings that a search has tried.
    """
    content = yaml.safe_load((run_dir / "config.yaml").read_text())
    kept = {"data": {"init_args": {"pairs": content["data"]["init_args"]["pairs"]}}, "model": content["model"]}
    for path in (key.replace(".init_args", "").split(".") for key in tried):
        if path[0] == "data":
            kept["data"]["init_args"][path[1]] = content["data"]["init_args"][path[1]]
        elif path[0] == "trainer":
            kept.setdefault("trainer", {})[path[1]] = content["trainer"][path[1]]
        else:
            kept[path[0]] = content[path[0]]
    return yaml.safe_dump(kept, sort_keys=False)


def chosen_settings(path: Path, tried: Iterable[str]) -> dict[str, Any]:
    """Values of the settings that a search has tried, from the file that :func:`rule_settings` has written.

    Raises:
        InvalidInput: the file cannot be read or has no value for one of them.
    """
    content, found = _read(str(path), "chosen"), {}
    for key in tried:
        value: Any = content
        for part in key.replace(".init_args", "").split("."):
            levels = [value, *(value.get(name) for name in ("init_args", "dict_kwargs"))] if isinstance(value, dict) else []
            value = next((level[part] for level in levels if isinstance(level, dict) and part in level), MISSING)
        if value is MISSING:
            raise InvalidInput(
                "chosen", f"{path} without {key}", "all settings that were searched; without the file they are chosen again"
            )
        found[key] = value
    return found


def _read(path: str, key: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InvalidInput(key, path, "a readable YAML file") from error
    if not isinstance(content, dict):
        raise InvalidInput(key, path, "a YAML file of settings")
    return content

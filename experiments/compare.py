"""``rhm compare``: every rule on the same tasks, each with the same search for its learning rate, as one table."""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from experiments.asked import goes_on, keep_asked
from experiments.estimate import of_rule, stepper, why_not
from experiments.launch import Job, Launcher, fit, launch
from experiments.rules import SETTINGS
from experiments.tables import spread, wide_console
from rhm import InvalidInput

MARKS = "<!-- table: begin -->", "<!-- table: end -->"
REFERENCE = "backprop"
OWN = {"--model.optimizer.lr": "rates", "--data.seeds": "tasks", "--data.train_size": "tasks", "--run_dir": "run_dir"}
"""Settings that every run is given, and where from."""


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
    known = sorted(path.stem for path in SETTINGS.glob("*.yaml"))
    names = known if rules is None else rules
    for name in names:
        if name not in known:
            raise InvalidInput("rules", name, f"names of files in configs/rules: {', '.join(known)}")
    if not rates or min(rates) <= 0:
        raise InvalidInput("rates", rates, "learning rates above 0, one or more")
    if jobs < 1:
        raise InvalidInput("jobs", jobs, "an integer of at least 1")
    if out is not None and not (Path(out).is_file() and all(mark in Path(out).read_text() for mark in MARKS)):
        raise InvalidInput("out", out, f"a file that has the lines {' and '.join(MARKS)}")
    for argument in args:
        key, equals, _ = argument.partition("=")
        if not key.startswith("-") or not equals:
            raise InvalidInput("args", argument, "settings such as --model.network.width=64")
        if (plain := key.replace(".init_args", "")) in OWN:
            raise InvalidInput("args", argument, f"in its place, {OWN[plain]} of the comparison")
    sizes = {Path(task).stem: _sizes(task, seed) for task in tasks}
    if len(sizes) < len(tasks):
        raise InvalidInput("tasks", tasks, "files of different names, which are those of their folders")
    console, folder = wide_console(), Path(run_dir)
    work = [(task, str(SETTINGS / f"{name}.yaml"), str(folder / Path(task).stem / name)) for task in tasks for name in names]
    _begin(work, {"rates": rates, "seed": seed, "args": args})
    chains = [Job("/".join(Path(item[2]).parts[-2:]), _search_and_train, (*item, rates, seed, args)) for item in work]
    failed = launch(chains, folder, Launcher(jobs=jobs), "rules")
    results = {task: _collect(folder / task, names) for task in sizes}
    table = "\n\n".join(_markdown(task, sizes[task], rows) for task, rows in results.items())
    console.print(table, soft_wrap=True)
    for run, message in failed.items():
        console.print(f"failed: {run}: {message}", soft_wrap=True)
    (folder / "compare.json").write_text(json.dumps(results, indent=1) + "\n")
    if out is not None and any(results.values()):
        text = Path(out).read_text()
        begin, end = text.index(MARKS[0]) + len(MARKS[0]), text.index(MARKS[1])
        Path(out).write_text(f"{text[:begin]}\n{table}\n{text[end:]}")
    if failed:
        missing = f"{len(failed)} of {len(work)} rows are missing, for their runs have failed"
        print(f"rhm: {missing}; see {folder / 'jobs'}; the same command tries them again", file=sys.stderr)
        raise SystemExit(1)


def _begin(work: list[tuple[str, str, str]], settings: dict[str, Any]) -> None:
    """See that folders' runs were made for what is asked now, and that what is new can be trained by the reference."""
    new = []
    for task, rule, folder in work:
        files = {key: yaml.safe_load(Path(path).read_text()) for key, path in (("task", task), ("rule", rule))}
        asked = {**files, **settings}
        if not goes_on(Path(folder), asked, "comparison"):
            new.append((task, Path(folder), asked))
    for task in dict.fromkeys(task for task, _, _ in new):
        reason = why_not([f"-c={task}", f"-c={SETTINGS / f'{REFERENCE}.yaml'}", *settings["args"]])
        if reason is not None:
            got = f"{task} with {settings['args']}"
            raise InvalidInput("tasks and args", got, f"what {REFERENCE} can be trained with; {reason}")
    for _, path, asked in new:
        keep_asked(path, asked)


def _sizes(task: str, seed: int) -> list[int]:
    """Training-set sizes of a task's settings file."""
    try:
        data = yaml.safe_load(Path(task).read_text())["data"]["init_args"]
        sizes, seeds = data["train_size"], data["seeds"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InvalidInput("tasks", task, "settings files with data.init_args.train_size and seeds") from error
    if not isinstance(sizes, list) or len(sizes) < 2:
        raise InvalidInput("tasks", f"{task} with train_size {sizes}", "two training-set sizes or more")
    if seed in seeds:
        raise InvalidInput("seed", seed, f"a seed that {task} does not use: {seeds}")
    return sorted(sizes)


def _search_and_train(task: str, rule: str, folder: str, rates: list[float], seed: int, more: list[str]) -> None:
    """Runs ``search-RATE`` and, with the best rate, ``final``; and the time of a step against backprop's."""
    found = {}
    for rate in rates:
        args = [f"--data.seeds=[{seed}]", f"--model.optimizer.lr={rate}", *more]
        fit([f"-c={task}", f"-c={rule}", *args], f"{folder}/search-{rate:g}")
        found[rate] = _mean_accuracy(f"{folder}/search-{rate:g}")
    best = max(found, key=lambda rate: found[rate])
    fit([f"-c={task}", f"-c={rule}", f"--model.optimizer.lr={best}", *more], f"{folder}/final")
    chosen = Path(folder) / "chosen.json"
    if not chosen.exists():
        ratio = step_time_ratio(task, rule, more)
        chosen.write_text(json.dumps({"rate": best, "search": found, "step_time_ratio": ratio}) + "\n")


def _mean_accuracy(run_dir: str) -> float:
    results = json.loads((Path(run_dir) / "results.json").read_text())
    return statistics.fmean(replica["test_accuracy"] for replica in results["replicas"])


def step_time_ratio(task: str, rule: str, more: list[str], rounds: int = 9) -> float:
    """How long a rule's step takes relative to backprop's, with all replicas of a task; the median of pairs of steps."""
    reference = str(Path(rule).parent / f"{REFERENCE}.yaml")
    steps = [stepper(of_rule([f"-c={task}", f"-c={settings}", *more])) for settings in (rule, reference)]
    ratios = []
    for i in range(rounds + 2):
        times = []
        for step in steps:
            start = time.perf_counter()
            step(i)
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    return statistics.median(ratios[2:])


def _collect(folder: Path, names: list[str]) -> dict[str, Any]:
    """What is finished: for each rule the accuracies by training-set size, the rate and the time of a step."""
    rows: dict[str, Any] = {}
    for name in names:
        try:
            results = json.loads((folder / name / "final" / "results.json").read_text())
            chosen = json.loads((folder / name / "chosen.json").read_text())
        except (OSError, ValueError):
            continue
        by_size: dict[int, list[float]] = {}
        for replica in results["replicas"]:
            by_size.setdefault(replica["train_size"], []).append(replica["test_accuracy"])
        rows[name] = {
            "rule": results["rule"],
            "supervision": results["supervision"],
            "steps": results["steps"],
            "accuracy": by_size,
            **chosen,
        }
    return rows


def _markdown(task: str, sizes: list[int], rows: dict[str, Any]) -> str:
    """One row a rule, the best on average over sizes first."""
    head = ["rule", "hidden layers learn from", *(f"P = {size:,}" for size in sizes), "rate", "step time"]
    lines = [f"**{task}**", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, row in sorted(rows.items(), key=lambda item: -statistics.fmean(itertools.chain(*item[1]["accuracy"].values()))):
        source = row["supervision"]
        learns = source["rule"] if source["pairs"] is None else f"{source['pairs']} ({source['rule']})"
        cells = [spread(row["accuracy"][size]) for size in sizes]
        lines.append(f"| {name} | {learns} | {' | '.join(cells)} | {row['rate']:g} | {row['step_time_ratio']:.2f} |")
    return "\n".join(lines)

"""Tables of a study's report: strings that each rule needs, how that number grows, accuracies, settings that were chosen.

Shape suffixes: T task.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable
from typing import Any

import polars

from experiments.study.chosen import Chosen
from experiments.study.complexity import SampleComplexity, growth
from experiments.study.study import TASK_KEYS
from experiments.terminal import mean_and_deviation

ABSCISSAE = ("n m^L", "v m^3")
"""Columns of what theory says of a task, in which P* grows as a power."""
Complexities = dict[tuple[str, str, str], SampleComplexity]


def groups(table: polars.DataFrame) -> Iterable[tuple[tuple[str, str, str], polars.DataFrame]]:
    for key, group in table.group_by("rule", "task", "cell", maintain_order=True):
        yield (str(key[0]), str(key[1]), str(key[2])), group


def unit_of(table: polars.DataFrame) -> str:
    """What is counted: ``training`` strings, or ``labelled`` ones where a rule's sizes are numbers of labels."""
    return "training" if set(table["vary"]) == {"train_size"} else "labelled"


def answers(table: polars.DataFrame, found: Complexities) -> list[str]:
    """A sentence for each task and cell: its rules with P*, the fewest strings first, bounds from below last."""
    told: dict[tuple[str, str], list[tuple[str, SampleComplexity]]] = {}
    for (rule, task, cell), own in found.items():
        told.setdefault((task, cell), []).append((rule, own))
    sentences = []
    for (task, cell), rules in told.items():
        rows = table.filter((polars.col("task") == task) & (polars.col("cell") == cell))
        order = sorted(rules, key=lambda item: (item[1].value == math.inf, _least(item[1])))
        counts = ", ".join(f"{rule} {own.shown(own.value)}" for rule, own in order)
        sentences.append(f"{task}{f' ({cell})' if cell else ''}, {unit_of(rows)} strings for a small error: {counts}.")
    return sentences


def _least(own: SampleComplexity) -> float:
    """P*, or the number that is known to be too few or enough."""
    return {math.inf: own.largest, -math.inf: own.smallest}.get(own.value, own.value)


def complexity_table(table: polars.DataFrame, found: Complexities, reference: str) -> polars.DataFrame:
    """Rule, supervision, P*, ratio to the reference and seconds, for each task and cell."""
    rows = []
    for (rule, task, cell), group in groups(table):
        if (rule, task, cell) not in found:
            continue
        own = found[rule, task, cell]
        rows.append(
            {
                "task": task,
                "settings": cell,
                "rule": rule,
                "hidden layers learn from": _learns(group["supervision"][0], group["pairs"][0]),
                "P*": str(own),
                f"ratio to {reference}": ratio(own, found.get((reference, task, cell))),
                "n m^L": f"{group['n m^L'][0]:,.0f}",
                "v m^3": f"{group['v m^3'][0]:,.0f}",
                "seconds": f"{group.unique('run')['seconds'].sum():,.0f}",
            }
        )
    return polars.DataFrame(rows)


def ratio(own: SampleComplexity, other: SampleComplexity | None) -> str:
    """P* over another's, or the bound that is known of it."""
    if other is None:
        return "–"
    direction = {math.inf: 1, -math.inf: -1}.get(own.value, 0), {math.inf: -1, -math.inf: 1}.get(other.value, 0)
    if {1, -1} <= set(direction):
        return "–"
    strict = math.inf in (own.value, other.value)  # no size is enough: P* is larger; the smallest is: it may be that
    sign = {1: "> " if strict else "≥ ", -1: "< " if strict else "≤ ", 0: ""}[max(direction, key=abs)]
    return f"{sign}{_least(own) / _least(other):.2g}"


def overview(table: polars.DataFrame, found: Complexities) -> polars.DataFrame:
    """P* without its interval: a row for each task and cell, a column for each rule."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    rules = [str(rule) for rule in table["rule"].unique(maintain_order=True)]
    for (rule, task, cell), own in found.items():
        rows.setdefault((task, cell), {})[rule] = own.shown(own.value) + (" †" if own.fails_later else "")
    heading = {rule: f"{rule} (rule)" if rule in ("task", "settings") else rule for rule in rules}
    shown = [
        {"task": task, "settings": cell, **{heading[rule]: row.get(rule, "") for rule in rules}}
        for (task, cell), row in rows.items()
    ]
    return polars.DataFrame(shown)


def exponents(table: polars.DataFrame, found: Complexities) -> polars.DataFrame:
    """Exponents of P* for each rule and cell against each abscissa, and its factor from level to level."""
    others = [key for key in TASK_KEYS if key != "L"]
    varied = [key for key in others if table[key].n_unique() > 1]
    rows = []
    for (rule, cell), group in table.group_by("rule", "cell", maintain_order=True):
        row: dict[str, str] = {}
        for abscissa in ABSCISSAE:
            fitted = growth(*over_tasks(group, found, abscissa))
            row |= {} if fitted is None else {f"exponent in {abscissa}": str(fitted)}
        for values, tasks in group.group_by(others, maintain_order=True):
            given = "".join(f", {key}={value}" for key, value in zip(others, values, strict=True) if key in varied)
            levels, complexities_T = over_tasks(tasks, found, "L")
            fitted = growth([math.exp(level) for level in levels], complexities_T, scatter=False)
            row |= {} if fitted is None else {f"factor from level to level{given}": fitted.factor}
        rows += [{"rule": str(rule), "settings": str(cell)} | row] if row else []
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return polars.DataFrame([{key: row.get(key, "–") for key in columns} for row in rows])


def over_tasks(group: polars.DataFrame, found: Complexities, abscissa: str) -> tuple[list[float], list[SampleComplexity]]:
    """Abscissae and P* of one rule and cell, a task each."""
    tasks = group.unique("task", maintain_order=True)
    keys = list(zip(tasks["rule"], tasks["task"], tasks["cell"], tasks[abscissa], strict=True))
    kept = [(float(x), found[rule, task, cell]) for rule, task, cell, x in keys if (rule, task, cell) in found]
    return [x for x, _ in kept], [own for _, own in kept]


SEVERAL = 5
"""Seeds from which on it is told how many of them have a small error: a mean of .8 may be four fifths at 1 and one at 0."""


def accuracy_table(table: polars.DataFrame, task: str, cell: str, threshold: float) -> polars.DataFrame:
    """Mean and standard deviation over seeds by size, and what the network was: a row for each rule, the best first.

    Args:
        table: of replicas.
        task, cell: as the table names them.
        threshold: share of the chance error that counts as a small error.
    """
    rows, least = [], 0.0
    for (rule, *key), group in groups(table.filter(polars.col("stage") == "grid")):
        if key != [task, cell]:
            continue
        one = group.row(0, named=True)
        least = 1 - threshold * (1 - one["chance"])
        known = {
            "rule": rule,
            "hidden layers learn from": _learns(one["supervision"], one["pairs"]),
            "top layer": one["top_layer"] or "",
            "network": one["network"] or "",
        }
        shares = {(str(vary), int(size)): own["test_accuracy"].to_list() for (vary, size), own in group.group_by("vary", "P")}
        late = group.filter(~polars.col("converged")).height
        steps = f"{group['steps'].median():,.0f}" + (f", {late} of {group.height} not converged" if late else "")
        cost = {"steps": steps, "GFLOP": _giga(group["operations"]), "seconds": f"{group.unique('run')['seconds'].sum():,.0f}"}
        rows.append((statistics.fmean(group["test_accuracy"]), known, shares, cost))
    rows.sort(key=lambda row: -row[0])
    headings = {
        (vary, size): f"{PREFIX[vary]} = {size:,}" for vary, size in sorted({key for _, _, own, _ in rows for key in own})
    }
    return polars.DataFrame(
        [
            {**known, **{text: _shares(own[key], least) if key in own else "" for key, text in headings.items()}, **cost}
            for _, known, own, cost in rows
        ]
    )


def _shares(accuracies: list[float], least: float) -> str:
    """Mean and deviation, and of several seeds how many reach an accuracy."""
    reached = f", {sum(own >= least for own in accuracies)} of {len(accuracies)}" if len(accuracies) >= SEVERAL else ""
    return f"{mean_and_deviation(accuracies)}{reached}"


def _giga(operations: polars.Series) -> str:
    """The median over replicas, in thousands of millions, to three digits; nothing where runs do not say it."""
    median = operations.median()
    return "" if median is None else f"{float(f'{median / 1e9:.3g}'):,.12g}"


PREFIX = {"train_size": "P", "label_size": "labels"}


def _learns(supervision: str, pairs: str | None) -> str:
    """What hidden layers learn from."""
    learns = supervision if pairs is None else f"{pairs} ({supervision})"
    return "nothing beyond strings" if learns == "none" else learns


def _setting(value: Any) -> str:
    """A value as JSON; of classes with their settings, such as callbacks, the names."""
    if isinstance(value, list) and value and all(isinstance(one, dict) and "class_path" in one for one in value):
        return ", ".join(one["class_path"] for one in value)
    return json.dumps(value)


def chosen_table(chosen: dict[str, Chosen]) -> polars.DataFrame:
    """What the searches have chosen, how good it was on their seeds, and which values lie at an end of their range.

    Settings that fewer than half of the searches that have chosen any have share a column. Where a rule's own file was chosen
    there are none.
    """
    have = Counter(key for own in chosen.values() for key in own.settings)
    searches = sum(bool(own.settings) for own in chosen.values())
    keys = [key for key, number in have.items() if 2 * number >= searches]
    counted = any(own.steps for own in chosen.values())
    rows = [
        {
            "search": name,
            **{key: _setting(own.settings[key]) if key in own.settings else absent for key in keys},
            **({"of its own": _pairs(own.settings, keys) or absent} if len(keys) < len(have) else {}),
            **({"settings": absent} if not have else {}),
            **({"steps": f"{own.steps:,}" if own.steps else "the study's"} if counted else {}),
            "at the edge": ", ".join(own.at_edge) or "none",
            "accuracy": f"{own.accuracy:.3f}",
            "settings tried": f"{own.tried}" + (f", {own.failed} failed" if own.failed else ""),
            "steps x replicas": f"{own.budget:,}",
        }
        for name, own in chosen.items()
        for absent in ["–" if own.settings else "as its file"]
    ]
    return polars.DataFrame(rows)


def _pairs(settings: dict[str, Any], but: list[str]) -> str:
    """Settings with their values, but those of some names."""
    return ", ".join(f"{key}: {_setting(value)}" for key, value in settings.items() if key not in but)


def values_table(chosen: dict[str, Chosen]) -> polars.DataFrame:
    """What the best trial of a search with each value of a setting reached, and how many were made with it.

    Settings whose values are tried twice or more on average; accuracies are means over the replicas of a run on the seeds that
    all runs of a search have, of any number of steps.
    """
    keys = list(dict.fromkeys(key for own in chosen.values() for key in own.settings))
    rows = []
    for key, own in chosen.items():
        row = {"search": key}
        for name in keys:
            found: dict[str, list[float]] = {}
            for trial in own.trials:
                if name in trial.settings:
                    found.setdefault(json.dumps(trial.settings[name]), []).extend(trial.accuracies.values())
            found = {value: accuracies for value, accuracies in found.items() if accuracies}
            if 0 < 2 * len(found) <= sum(map(len, found.values())):
                each = sorted(found.items(), key=lambda pair: -max(pair[1]))
                row[name] = "; ".join(f"{_setting(json.loads(text))} {max(all_):.3f} ({len(all_)})" for text, all_ in each)
        rows.append(row)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return polars.DataFrame([{name: row.get(name, "–") for name in columns} for row in rows])

"""``python -m benchmarks.rules_table``: rules with the settings of their own files on one task, as a table in
``docs/rules-at-their-best.md``.

Each rule is one run of all sizes and seeds; finished runs are kept, so that the command goes on where it was stopped.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from experiments.files import read_json, read_settings, write_atomically
from experiments.run.tables import by_size, sizes_of
from experiments.settings import RULE_FILES
from experiments.shipped import CONFIGS
from experiments.study.make import make_run
from experiments.terminal import mean_and_deviation

RULES = """
    frozen frozen_below_top backprop backprop_bottleneck backprop_contrastive
    end_to_end_contrastive end_to_end_all_contrastive sibling_contrastive
    feedback_alignment dfa sign_dfa drtp ebd pepita node_perturbation gevb forward_forward byol simsiam scff softhebb
"""
TASK, PAGE = CONFIGS / "tasks" / "rules_L3.yaml", CONFIGS.parent / "docs" / "rules-at-their-best.md"
RUNS = Path("runs/rules-table")
MARKS = "<!-- table: begin -->", "<!-- table: end -->"


def main(names: list[str], task: Path = TASK, runs: Path = RUNS, page: Path = PAGE, more: tuple[str, ...] = ()) -> None:
    """Make the runs of some rules, all by default, and write the lines of those of the table that have been made.

    Args:
        names: of settings files in ``configs/rules``.
        task: settings file.
        runs: folder of the runs.
        page: Markdown file between whose marks the table is written.
        more: further settings of every run.
    """
    for name in names or RULES.split():
        started, folder = time.monotonic(), runs / name
        args = [f"-c={task}", f"-c={RULE_FILES / f'{name}.yaml'}", "--model.network.width=64", "--compile=false", *more]
        make_run(args, str(folder))
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    made = {name: read_json(runs / name / "results.json") for name in RULES.split() if (runs / name / "results.json").exists()}
    text = page.read_text(encoding="utf-8")
    begin, end = text.index(MARKS[0]) + len(MARKS[0]), text.index(MARKS[1])
    write_atomically(page, f"{text[:begin]}\n{table(made)}\n{text[end:]}")


def table(made: dict[str, dict[str, Any]]) -> str:
    """A line for each rule: what it learned from, its network, its optimizer, and the accuracy at each size."""
    groups = by_size(sizes_of(next(iter(made.values()))))
    lines = [["rule", "learns from", "hands on", "optimizer", *(f"P = {size[0]:,}" for size in groups)]]
    for name, results in made.items():
        shares = [replica["test_accuracy"] for replica in results["replicas"]]
        source = results["supervision"]
        learns = source["rule"] if source["pairs"] is None else f"{source['pairs']} ({source['rule']})"
        cells = [mean_and_deviation([shares[r] for r in places]) for places in groups.values()]
        lines.append([name, learns, *settings_of(name), *cells])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def settings_of(name: str) -> tuple[str, str]:
    """What a layer hands on, and the optimizer, as a rule's settings file says."""
    settings = read_settings("rule", RULE_FILES / f"{name}.yaml")
    model = settings["model"]["init_args"]
    network, optimizer = model.get("network", {}).get("init_args", {}), model["optimizer"]
    units = "normalised units" if network.get("normalise") else "units"
    hands_on = f"normalised {network['bottleneck']}" if network.get("bottleneck") else units
    told = [f"{optimizer['class_path'].rpartition('.')[2]} {optimizer['init_args']['lr']:g}"]
    told += [f"decay {optimizer['init_args']['weight_decay']:g}"] if "weight_decay" in optimizer["init_args"] else []
    told += ["falling"] if "CosineDecay" in str(settings.get("trainer")) else []
    return ", ".join([hands_on, *(["tanh"] if network.get("activation") == "tanh" else [])]), ", ".join(told)


if __name__ == "__main__":
    main(sys.argv[1:])

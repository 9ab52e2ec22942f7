"""The commands of ``rhm``: where each is written and what it does, in a line."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """A command: a line of text for its help, and the module with the function that does it."""

    text: str
    module: str


COMMANDS = {
    "fit": Command("train a rule, test it and keep the results in --run_dir", "experiments.run.command"),
    "sweep": Command(
        "make all runs of a study: -c STUDY.yaml --run_dir=DIR [--quick] [--dry-run] [--retry] [--strict]",
        "experiments.study.sweep_command",
    ),
    "report": Command("figures, tables and a page of a study: DIR", "experiments.report.report"),
    "validate": Command("measure accuracy and ridge probes of a run in --run_dir", "experiments.run.command"),
    "test": Command("measure accuracy, ridge and logistic probes of a run in --run_dir", "experiments.run.command"),
    "check": Command(
        "build everything as fit would, train nothing, print only what is wrong [--contract]", "experiments.run.command"
    ),
    "rules": Command("list every learning rule: family, supervision, what it sees, source", "experiments.rules"),
    "configs": Command("list the settings files that -c finds by name, or print one: NAME", "experiments.configs"),
    "describe": Command("print what a task is: --v --n --m --s --L", "experiments.describe"),
    "curves": Command("draw test accuracy against training-set size from the results of runs", "experiments.report.curves"),
    "demo": Command("three rules on one task in a few minutes", "experiments.demo"),
}
RUN = ("fit", "check", "validate", "test")
"""Those that take the settings of a run."""

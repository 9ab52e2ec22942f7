"""``rhm sweep``: a study's file and the command line's changes to it."""

from __future__ import annotations

from dataclasses import fields

from experiments.classes import Branches
from experiments.commands import COMMANDS
from experiments.settings import Parser, discover
from experiments.study.file import study_settings
from experiments.study.launcher import Launcher
from experiments.study.study import Rule, Search, Study
from experiments.study.sweep import sweep
from experiments.terminal import quiet
from rhm import InvalidInput

BRANCHES: Branches = {"": (Rule, "--help"), "search": (Search, "--help")}
"""Classes whose settings the parser of a study does not list by itself."""


def sweep_command(args: list[str]) -> None:
    """Read a study, with its quick variant if asked for, and sweep it."""
    discover()
    quiet()
    parser = Parser(prog="rhm sweep", description=COMMANDS["sweep"].text)
    parser.branches = BRANCHES
    parser.add_argument("-c", "--config", action="config", help="the study's file; later settings win")
    parser.add_argument("--run_dir", type=str, help="folder of the study")
    parser.add_argument("--launcher", type=str, default="local", help="local, slurm or ray")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--slurm", type=dict, default={}, help="parameters of submitit's Slurm executor")
    known = (
        "file of an earlier sweep, or of its report, with what its searches have chosen: those that ask the same are not made"
    )
    parser.add_argument("--chosen", type=str | None, default=None, help=known)
    flags = {
        "quick": "the file's quick variant",
        "retry": "repeat what has failed",
        "strict": "refuse rather than skip; exit with 1 if a run of the figures has failed",
    }
    flags["dry_run"] = "print what would be run and train nothing"
    for flag, text in flags.items():
        parser.add_argument(f"--{flag}", f"--{flag.replace('_', '-')}", action="store_true", help=text)
    parser.add_class_arguments(Study)
    settings = parser.parse_args(study_settings(args))
    where = Launcher(settings.launcher, settings.jobs, settings.slurm)
    built = parser.instantiate_classes(settings)
    study = Study(**{field.name: built[field.name] for field in fields(Study)})
    if settings.run_dir is None and not settings.dry_run:
        raise InvalidInput("run_dir", "nothing", "--run_dir=DIR, the folder of the study")
    sweep(study, settings.run_dir or "", where, settings.retry, settings.strict, settings.dry_run, settings.chosen)

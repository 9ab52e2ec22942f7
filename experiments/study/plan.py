"""The runs of a study: what each is for and the arguments that it is made with, and the file that lists them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from experiments.files import text_of, whole_of
from experiments.study.study import VARIED
from rhm import Task

FINAL = "-more"
"""How the stage of a search's run ends that is made on further grammars."""


@dataclass(frozen=True)
class Run:
    """A run: its folder's name, what it is for, and the arguments of ``rhm fit``.

    Attributes:
        name: path of its folder within the study's ``runs``.
        rule: name in tables and figures.
        stage: ``search-N``, ``grid`` or ``refined-N``.
        task: parameters.
        settings: of the rule in this study.
        cell: settings of the grid.
        sizes: replicas, crossed with the seeds.
        vary: what the sizes are sizes of.
        steps: length of the run.
        args: of ``rhm fit``.
    """

    name: str
    rule: str
    stage: str
    task: dict[str, int]
    settings: dict[str, Any]
    cell: dict[str, Any]
    sizes: list[int]
    seeds: list[int]
    vary: str
    steps: int
    args: list[str]

    @property
    def replicas(self) -> int:
        """How many are trained at once."""
        return len(self.sizes) * len(self.seeds)

    @property
    def is_search(self) -> bool:
        """Whether it is of a search, and of no figure."""
        return self.stage.startswith("search")

    @property
    def work(self) -> int:
        """Tokens that are seen in a batch of one string: what the time of a run grows with."""
        silent = self.cell.get("data.silent")
        tuples = self.task["s"] * (1 + silent if isinstance(silent, int) else 1)
        return self.steps * self.replicas * tuples ** self.task["L"]


@dataclass(frozen=True)
class Plan:
    """What ``runs.json`` holds.

    Attributes:
        runs: all that have been planned so far.
        skipped: parts of the grid that cannot be, with the reason.
        notes: what else a reader of the results must know.
    """

    runs: list[Run]
    skipped: list[str]
    notes: list[str]

    @classmethod
    def of(cls, content: Any) -> Plan:
        """The plan in what a file says; one of :data:`experiments.files.UNREADABLE` if there is none."""
        runs = [_checked(Run(**run)) for run in content["runs"]]
        if len({run.name for run in runs}) < len(runs):
            raise ValueError("a run stands twice")
        return cls(runs, [str(reason) for reason in content["skipped"]], [str(note) for note in content["notes"]])

    def text(self) -> str:
        """For the file."""
        return json.dumps(asdict(self), indent=1) + "\n"


def _checked(run: Run) -> Run:
    """A run whose parts are of their types, as far as anything is computed from them."""
    Task(**run.task)
    content = vars(run)
    for key in "name", "rule", "stage":
        text_of(content, key)
    if run.vary not in VARIED:
        raise ValueError(f"vary is {run.vary!r}")
    for key, least in ("sizes", 1), ("seeds", 0):
        for number in content[key]:
            whole_of({key: number}, key, least)
    if not isinstance(run.cell, dict) or not all(isinstance(argument, str) for argument in run.args):
        raise TypeError("cell or args are not those of a run")
    return run

"""All runs of a study, settings searched, sizes refined around P*; a sweep goes on where it was stopped."""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType

from rich.table import Table

from experiments.classes import check_class
from experiments.files import write_atomically
from experiments.run.requeue import listen
from experiments.study.check import fitting
from experiments.study.chosen import Chosen, read_chosen, write_chosen
from experiments.study.dry_run import print_costs
from experiments.study.folder import StudyFolder, alone
from experiments.study.grid import Combination, expand
from experiments.study.job import NOTHING_CHOSEN, Failure
from experiments.study.launcher import Launcher
from experiments.study.launchers import launch
from experiments.study.make import accuracies, job_of
from experiments.study.names import cell_label, task_label
from experiments.study.plan import Plan, Run
from experiments.study.search import Tuner, open_storage
from experiments.study.study import Study
from experiments.study.tidy import complexities, curve, gather, next_size
from experiments.terminal import PlainConsole, wide_console
from rhm import InvalidInput
from rules import LocalRule


def sweep(
    study: Study,
    run_dir: str,
    launcher: Launcher = Launcher(),
    retry: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    chosen: str | None = None,
) -> None:
    """Make all runs of a study that are not finished.

    A stage at a time: the search, whose choices are written to ``RUN_DIR/chosen.json``; the grid; rounds of refinement.

    Args:
        study: see :class:`experiments.study.study.Study`.
        run_dir: folder of the study: ``study.yaml``, ``runs.json``, ``failed.json``, ``search.journal``,
            ``chosen.json``, ``runs/``.
        launcher: where the runs are made.
        retry: repeat runs that have failed.
        strict: refuse a study of which something would be skipped, and exit with 1 if a run of the figures has failed.
        dry_run: print what would be run, how long and how large, and train nothing.
        chosen: file of an earlier sweep, or of its report, with what its searches have chosen: those that ask the same are not
            made again.
    """
    answers = known_answers(study, chosen)
    for rule in study.rules:
        if rule.is_class:
            check_class("rules", rule.rule, LocalRule)
    combinations, skipped = expand(study)
    combinations = fitting(combinations, skipped)
    if strict and skipped:
        raise InvalidInput("study", skipped[0], "with --strict: only tasks, sizes and networks that exist")
    console = wide_console()
    for reason in skipped:
        console.print(f"skipped: {reason}", soft_wrap=True, highlight=False)
    for combination in combinations if answers else []:
        check_answer(combination, answers)
    if dry_run:
        print_costs(study, combinations, launcher, console, answers)
        return
    with alone(StudyFolder(Path(run_dir)), study) as folder:
        before = listen(signal.SIGTERM, _stop)
        try:
            own = _Sweep(study, folder, combinations, skipped, launcher, retry, console, answers)
            own.run()
            if strict and any(run.name in own.failed and not run.is_search for run in own.planned):
                raise SystemExit(1)
        except (KeyboardInterrupt, _Terminated) as stop:
            print(f"stopped; the same command goes on with what is in {folder.path}", file=sys.stderr)
            raise SystemExit(143 if isinstance(stop, _Terminated) else 130) from None
        finally:
            listen(signal.SIGTERM, before)


def known_answers(study: Study, chosen: str | None) -> dict[str, Chosen]:
    """What a file says that searches have chosen, by their questions.

    Raises:
        InvalidInput: no such file, nothing of use in it, or a study without a search.
    """
    if chosen is None:
        return {}
    if study.search is None:
        raise InvalidInput("chosen", chosen, "nothing, as the study has no search")
    if not Path(chosen).is_file():
        raise InvalidInput("chosen", chosen, f"a file: {StudyFolder(Path('RUN_DIR')).chosen} of a sweep, or of its report")
    found = {own.question: own for own in read_chosen(Path(chosen), "chosen").values() if own.question}
    if not found:
        raise InvalidInput("chosen", f"{chosen}, which does not say what was asked", "a file of a search, of this version")
    return {question: replace(own, taken_from=own.taken_from or chosen) for question, own in found.items()}


def check_answer(combination: Combination, answers: dict[str, Chosen]) -> None:
    """See that what was chosen is something that the search could have chosen.

    Raises:
        InvalidInput: other settings, or other numbers of steps.
    """
    own, space = answers.get(combination.question), combination.space
    if own is None or space is None:
        return
    lengths = combination.search_steps
    for trial in [own.settings, *(trial.settings for trial in own.trials)]:
        if trial and trial.keys() != set(space.names):
            raise InvalidInput(
                "chosen", f"{own.taken_from} with {sorted(trial)}", f"of {combination.name} {sorted(space.names)}, or none"
            )
    if own.steps not in (None, *lengths):
        raise InvalidInput(
            "chosen", f"{own.taken_from} with steps {own.steps}", f"of {combination.name} null or one of {lengths}"
        )


class _Terminated(BaseException):
    """SIGTERM: all ends as after Ctrl-C."""


def _stop(signum: int, frame: FrameType | None) -> None:
    raise _Terminated


class _Sweep:
    def __init__(
        self,
        study: Study,
        folder: StudyFolder,
        combinations: list[Combination],
        skipped: list[str],
        launcher: Launcher,
        retry: bool,
        console: PlainConsole,
        answers: dict[str, Chosen],
    ):
        self.study, self.folder, self.combinations, self.skipped = study, folder, combinations, skipped
        self.launcher, self.console = launcher, console
        self.planned: list[Run] = []
        self.notes: list[str] = []
        self.retry = retry
        self.stage = 0
        self.searches = 0
        self.failed = self._read_failed()
        self.chosen = read_chosen(folder.chosen)
        self.answers = answers

    def _read_failed(self) -> dict[str, Failure]:
        try:
            return self.folder.read_failed()
        except ValueError as error:
            self.console.print(f"{self.folder.failed} cannot be read ({error}): what has failed is tried again", soft_wrap=True)
            return {}

    def run(self) -> None:
        self._search()
        self._make("grid", [self._run(c, "grid", c.sizes) for c in self.combinations])
        for i in range(1, self.study.refine + 1):
            self._make(f"refined {i}", self._refined(f"refined-{i}"))
        self._say()

    # ---------------------------------------------------------------- a stage

    def _make(self, title: str, runs: list[Run]) -> None:
        """Make runs that are neither finished nor have failed before, the longest first."""
        self.planned += runs
        self.stage += 1
        self._write_plan()
        jobs = []
        for run in sorted(runs, key=lambda run: -run.work):
            callbacks = [] if run.is_search else self.study.callbacks
            job = job_of(run.name, run.args, self.folder.runs.resolve() / run.name, callbacks, run.steps)
            again = self.retry and self._why(run.name) != NOTHING_CHOSEN
            if job.finished or run.name not in self.failed or again:
                jobs.append(job)
        try:
            search = self.study.search
            stages = 1 + self.study.refine + (0 if search is None or not self.searches else search.stages)
            shown = f"stage {self.stage} of {stages}, {title}"
            launch(jobs, self.folder.path.resolve(), self.launcher, shown, self.failed)
        finally:
            self.folder.write_failed(self.failed)

    def _why(self, name: str) -> str | None:
        """The kind of failure of a run; None if it has not failed."""
        return self.failed[name].kind if name in self.failed else None

    def _write_plan(self) -> None:
        write_atomically(self.folder.plan, Plan(self.planned, self.skipped, self.notes).text())

    def _note(self, text: str) -> None:
        """Something that a reader of the results must know, in the terminal and in the plan."""
        self.notes.append(text)
        self.console.print(text, soft_wrap=True, highlight=False)

    def _search(self) -> None:
        """Write down the settings that are chosen for each combination."""
        search = self.study.search
        if search is None:
            return
        shared: dict[str, list[Combination]] = {}
        for combination in self.combinations:
            shared.setdefault(combination.searched_as, []).append(combination)
        taken = {key: own for key, (first, *_) in shared.items() if (own := self._taken(key, first)) is not None}
        for file in dict.fromkeys(own.taken_from for own in taken.values()):
            number = sum(own.taken_from == file for own in taken.values())
            self._note(f"{number} of {len(shared)} searches were made before: what {file} says that they have chosen")
        storage = open_storage(self.folder.search)
        tuners = {key: Tuner(first, storage) for key, (first, *_) in shared.items() if key not in taken}
        self.searches = len(tuners)
        for number in range(1, search.rounds + 1):
            for tuner in tuners.values():
                tuner.begin(number)
            for rung in range(search.rungs if tuners else 0):
                self._make("search", [run for tuner in tuners.values() for run in tuner.runs(rung)])
                for tuner in tuners.values():
                    tuner.hear(rung, lambda run: accuracies(self.folder.runs / run.name))
        if search.finalists and tuners:
            self._make("search", [tuner.run(*final, more=True) for tuner in tuners.values() for final in tuner.finals()])
            for tuner in tuners.values():
                tuner.hear_finals(lambda run: accuracies(self.folder.runs / run.name))
        for key, combinations in shared.items():
            own = taken[key] if key in taken else tuners[key].chosen()
            if own is not None:
                own = self.chosen[key] = self._kept(key, own, combinations)
            for note in tuners[key].notes if own is None else own.notes:
                self._note(f"search {key}: {note}")
        write_chosen(self.folder.chosen, self.chosen)

    def _taken(self, key: str, combination: Combination) -> Chosen | None:
        """What was chosen elsewhere, unless it is searched here; failures of a search that was begun here are forgotten."""
        before = self.chosen.get(key)
        if before is not None and before.taken_from is None:
            return None
        question = combination.question
        own = before if before is not None and before.question == question else self.answers.get(question)
        if own is not None:
            for name in [name for name in self.failed if name.startswith(f"{combination.name}/search-")]:
                del self.failed[name]
        return own

    def _kept(self, key: str, own: Chosen, combinations: list[Combination]) -> Chosen:
        """The best settings, or those that were the best before if there are runs with them."""
        before = self.chosen.get(key)
        begun = any(any((self.folder.runs / c.name).glob("[gr]*/config.yaml")) for c in combinations)
        if before is None or (before.settings, before.steps) == (own.settings, own.steps) or not begun:
            return own
        self._note(f"search {key}: {own.run} is the best now, but runs with the settings chosen before exist: kept")
        return before

    def _run(self, combination: Combination, stage: str, sizes: list[int]) -> Run:
        """A run with the settings that the search has chosen; one for which there are none has failed before it starts."""
        chosen = self.chosen.get(combination.searched_as)
        settings, steps = ({}, None) if chosen is None else (chosen.settings, chosen.steps)
        run = combination.run(stage, sizes, self.study.seeds, settings, steps)
        if self.study.search is not None and chosen is None:
            self.failed[run.name] = Failure("none of the settings that were searched has finished", NOTHING_CHOSEN)
        elif self._why(run.name) == NOTHING_CHOSEN:
            del self.failed[run.name]
        return run

    def _refined(self, stage: str) -> list[Run]:
        """One more size for each combination whose P* lies between two sizes that are not near one another."""
        table = gather(self.folder.runs, self.planned).table
        found, runs = complexities(table, self.study.threshold), []
        for combination in self.combinations:
            key = combination.rule.label, task_label(combination.task), cell_label(combination.cell)
            if key not in found:
                continue
            rows = table.filter((table["rule"] == key[0]) & (table["task"] == key[1]) & (table["cell"] == key[2]))
            size = next_size(curve(rows.filter(~rows["stage"].str.starts_with("search")))[0], found[key])
            if size is not None:
                runs.append(self._run(combination, stage, [size]))
        return runs

    def _say(self) -> None:
        """Print P* of all combinations and what failed."""
        gathered = gather(self.folder.runs, self.planned)
        table = Table(title=f"P*: test error under {self.study.threshold:g} of the chance error, with 95 % interval over seeds")
        for column in "rule", "task", "cell":
            table.add_column(column)
        for column in "P*", "interval":
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("")
        for (rule, task, cell), complexity in complexities(gathered.table, self.study.threshold).items():
            table.add_row(rule, task, cell, complexity.shown(complexity.value), complexity.interval, complexity.note)
        self.console.print_table(table, keys=3)
        for name, failure in self.failed.items():
            self.console.print(f"failed: {name}: {failure.message}", soft_wrap=True, highlight=False)
        if self.failed:
            self.console.print("--retry repeats what has failed")
        self.console.print(f"rhm report {self.folder.path} draws the figures and writes the page", soft_wrap=True)

"""Whether runs can be made, found by building them, before any is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentError
from pytorch_lightning import Trainer
from rich.progress import track

from experiments.explain import in_one_line
from experiments.run.command import RunCommand
from experiments.settings import ParsingError, discover, instantiate
from experiments.study.grid import Combination
from experiments.study.make import fit_arguments
from experiments.terminal import quiet
from rhm import InvalidInput

NOWHERE = "nowhere/to/be/found"
"""Folder of a run that is not made."""
ANY_MACHINE = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]
"""Runs may be made on other machines than this."""


def fitting(combinations: list[Combination], skipped: list[str]) -> list[Combination]:
    """Those whose rule, network, pairs and settings fit together.

    Each rule is built once for each cell and once for each task that fit. What does not fit may be the cell or the task: it is
    taken to be the one for which the same was said twice.
    """
    found: list[Combination] = []
    check = Check()
    fit, said = set[tuple[str, str]](), dict[tuple[str, str], list[str]]()
    left_out: dict[tuple[str, str], list[str]] = {}
    for combination in track(combinations, description="checking", transient=True):
        rule = combination.rule.label
        parts = (rule, f"cell {combination.cell}"), (rule, f"task {combination.task}")
        if fit.issuperset(parts):
            found.append(combination)
            continue
        before = [reason for part in parts if part not in fit for reason in said.get(part, []) if said[part].count(reason) > 1]
        reason = before[0] if before else check.why_not(combination)
        if reason is None:
            fit.update(parts)
            found.append(combination)
            continue
        for part in parts:
            said.setdefault(part, []).append(reason)
        left_out.setdefault((rule, reason), []).append(combination.name)
    for (_, reason), names in left_out.items():
        skipped.append(f"{names[0]}{f' and {len(names) - 1} like it' if names[1:] else ''}: {reason}")
    if not found:
        raise InvalidInput("study", "a grid without a run", f"rules and networks that fit together; {skipped[-1]}")
    return found


class Check:
    """Whether combinations can be trained, by building their runs with one replica.

    Settings that are neither the rule's nor the data's, and the study's callbacks, are tried out once for each rule.
    """

    def __init__(self) -> None:
        self.tried: set[str] = set()

    def why_not(self, combination: Combination) -> str | None:
        """Why a combination's rule, network, pairs and settings do not fit together; None if they do.

        Of settings that are searched some fit: values may exclude one another, and a trial that fails is a result. Of a range
        both ends and what lies between fit, with values of lists that do.
        """
        if combination.space is None:
            return self._with(combination, {})
        for place in ("low", "middle", "high") if combination.space.ranges else ("low",):
            said = []
            for settings in combination.space.examples(place):
                reason = self._with(combination, settings)
                if reason is None:
                    break
                said.append(reason)
            else:
                return said[0]
        return None

    def _with(self, combination: Combination, searched: dict[str, Any]) -> str | None:
        study = combination.study
        run = combination.run("check", combination.sizes, study.seeds, searched)
        own = of_rule(run.args)
        others = [a for a in run.args if a not in own and not a.startswith(("-c=", "--trainer.max_steps="))]
        key = str([combination.rule.rule if study.callbacks else "", sorted(others)])
        reason = why_not(run.args, study.callbacks, key not in self.tried)
        if reason is None:
            self.tried.add(key)
        return reason


def why_not(args: list[str], more_callbacks: Sequence[Any] = (), whole: bool = True) -> str | None:
    """Why a run cannot be made, in a line, found by building it with one replica; None if it can.

    Args:
        args: of :func:`experiments.study.make.make_run`.
        more_callbacks: of the same.
        whole: build it with its trainer; else rule and data alone.
    """
    discover()
    quiet()
    try:
        if whole:
            OneReplica(["fit", *fit_arguments(args, NOWHERE, more_callbacks), *ANY_MACHINE], only_check=True)
        else:
            rule = instantiate(of_rule(args))
            rule.data.keep_share(0, rule.data.replicas)
            rule.prepare(rule.data)
    except (ParsingError, ArgumentError, ValueError) as error:
        return in_one_line(error)
    return None


class OneReplica(RunCommand):
    """All that a run needs, built with its first replica alone."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Keep the replica, and go on as ever."""
        self.datamodule.keep_share(0, self.datamodule.replicas)
        return super().instantiate_trainer(**kwargs)


def of_rule(args: list[str]) -> list[str]:
    """A run's arguments as far as they make a rule and its data."""
    files = [f"--config={argument.removeprefix('-c=')}" for argument in args if argument.startswith("-c=")]
    return files + [argument for argument in args if argument.startswith(("--model", "--data"))]

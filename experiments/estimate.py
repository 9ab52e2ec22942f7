"""What runs will cost, from a few steps timed on this machine: the time of one core, or of its GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jsonargparse import ArgumentError
from pytorch_lightning import Trainer
from rich.progress import track

from experiments.explain import explain
from experiments.launch import fit_arguments
from experiments.study import Combination, Run
from rules import LocalRule

START_SECONDS = 1.0
"""Of a run, before its first step: settings are read, network and grammar are built."""
EVALUATION_STEPS = 4.0
"""Cost of showing a network one string in the test with its ridge probes, relative to one string of a training step."""
RESULT_BYTES = 60_000
"""Of a finished run: settings, results and heat map."""

NOWHERE = "nowhere/to/be/found"
"""Folder of a run that is not made."""
ANY_MACHINE = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]
"""Runs may be made on other machines than this."""


@dataclass(frozen=True)
class Cost:
    """What a combination's runs cost, a replica.

    Attributes:
        seconds: of a training step, a replica; of one core if there is no GPU.
        bytes: of a checkpoint, a replica.
    """

    seconds: float
    bytes: float


def stepper(args: list[str]) -> Callable[[int], None]:
    """A function that computes the updates of a step and applies them, without a trainer, on the device that trains.

    Args:
        args: of :func:`experiments.cli.instantiate`.
    """
    from experiments.cli import instantiate

    rule = instantiate(args)
    rule.prepare(rule.data)
    return step_of(rule)


def step_of(rule: LocalRule) -> Callable[[int], None]:
    """The same for a rule that is prepared."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rule.to(device)
    rule.data.move(device)
    optimizer = rule.configure_optimizers()

    @torch.no_grad()
    def step(i: int) -> None:
        rule.give_gradients(rule.updates(rule.compute(rule.data.train_batch(i))).layers)
        optimizer.step()

    return step


class Costs:
    """Cost of a study's runs: the rule's step on its first task, times what a task and a cell cost the reference.

    Timed are one step of each rule, on its first task in the first cell, and steps of the reference on each task in each
    cell, with as many replicas as the runs have, up to eight. Other combinations are taken to scale alike.

    Args:
        combinations: of the study.
        seeds: number of seeds.
    """

    def __init__(self, combinations: list[Combination], seeds: int):
        self.found: dict[tuple[str, str, str], Cost] = {}
        reference: dict[tuple[str, str], Combination] = {}
        for combination in combinations:
            reference.setdefault((str(combination.task), str(combination.cell)), combination)
        first: dict[str, Combination] = {}
        for combination in combinations:
            first.setdefault(combination.rule.label, combination)
        wanted = [*reference.values(), *(c for c in first.values() if c not in reference.values())]
        for combination in track(wanted, description="timing", transient=True):
            replicas = min(8, seeds * len(combination.sizes))
            self.found[_key(combination)] = measure(combination, replicas)
        self.reference = {key: _key(combination) for key, combination in reference.items()}
        self.first = {
            rule: (_key(combination), str(combination.task), str(combination.cell)) for rule, combination in first.items()
        }

    def of(self, combination: Combination) -> Cost:
        """The cost of a combination's steps."""
        if (key := _key(combination)) in self.found:
            return self.found[key]
        own_key, task, cell = self.first[combination.rule.label]
        own, here = self.found[own_key], self.found[self.reference[str(combination.task), str(combination.cell)]]
        there = self.found[self.reference[task, cell]]
        return Cost(own.seconds * here.seconds / there.seconds, own.bytes * here.bytes / there.bytes)

    def seconds(self, combination: Combination, run: Run) -> float:
        """Of a run."""
        replicas, batch = len(run.sizes) * len(run.seeds), combination.setting("data.batch_size", 128)
        strings = combination.study.test_size + 2048
        steps = run.steps + EVALUATION_STEPS * strings / batch
        return START_SECONDS + steps * replicas * self.of(combination).seconds

    def checkpoint(self, combination: Combination, run: Run) -> float:
        """Bytes of a run's two checkpoints, which go when it is finished."""
        return 2 * len(run.sizes) * len(run.seeds) * self.of(combination).bytes


def _key(combination: Combination) -> tuple[str, str, str]:
    return combination.rule.label, str(combination.task), str(combination.cell)


def of_rule(args: list[str]) -> list[str]:
    """A run's arguments as far as they make a rule and its data."""
    files = [f"--config={argument.removeprefix('-c=')}" for argument in args if argument.startswith("-c=")]
    return files + [argument for argument in args if argument.startswith(("--model", "--data"))]


def measure(combination: Combination, replicas: int, steps: int = 3) -> Cost:
    """Time steps of a combination."""
    from experiments.cli import instantiate

    size = combination.sizes[:1]
    run = combination.run("timing", size, list(range(replicas)), {})
    rule = instantiate(of_rule(run.args))
    rule.prepare(rule.data)
    step = step_of(rule)
    gpu, threads = torch.cuda.is_available(), torch.get_num_threads()
    clock = time.perf_counter if gpu else time.process_time  # not disturbed by what else the machine does
    torch.set_num_threads(1)
    times = []
    for i in range(steps + 1):
        start = clock()
        step(i)
        if gpu:
            torch.cuda.synchronize()
        times.append(clock() - start)
    torch.set_num_threads(threads)
    numbers = sum(p.numel() * p.element_size() for p in rule.parameters()) * 3 + sum(b.nbytes for b in rule.buffers())
    return Cost(statistics.median(times[1:]) / replicas, numbers / replicas)


class Check:
    """Whether combinations can be trained, by building their runs with one replica.

    Settings that are neither the rule's nor the data's, and the study's callbacks, are tried out once for each rule.
    """

    def __init__(self) -> None:
        self.tried: set[str] = set()

    def why_not(self, combination: Combination) -> str | None:
        """Why a combination's rule, network, pairs and settings do not fit together; None if they do."""
        study, trials = combination.study, combination.trials()
        run = combination.run("check", combination.sizes, study.seeds, trials[0] if trials else {})
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
        args: of :func:`experiments.launch.fit`.
        more_callbacks: of the same.
        whole: build it with its trainer; else rule and data alone.
    """
    from experiments.cli import SETTINGS, ParsingError, discover, instantiate, quiet

    classes = discover()
    quiet()
    try:
        if whole:
            _build(["fit", *fit_arguments(args, NOWHERE, more_callbacks), *ANY_MACHINE])
        else:
            rule = instantiate(of_rule(args))
            rule.data.keep_share(0, rule.data.replicas)
            rule.prepare(rule.data)
    except ParsingError as error:
        return explain(str(error), classes, {*error.options, *SETTINGS})
    except (ValueError, ArgumentError) as error:
        return explain(str(error), classes, ())
    return None


def _build(args: list[str]) -> None:
    """Build all that a run needs, with its first replica alone."""
    from experiments.cli import RHMCommand

    class OneReplica(RHMCommand):
        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            self.datamodule.keep_share(0, self.datamodule.replicas)
            return super().instantiate_trainer(**kwargs)

    OneReplica(args, only_check=True)

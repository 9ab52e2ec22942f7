"""What runs will cost, from a few steps timed on this machine: the time of one core, or of its GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.progress import track

from experiments.run.checkpoints import StepCheckpoint
from experiments.settings import DATA, instantiate
from experiments.study.check import of_rule
from experiments.study.grid import Combination
from experiments.study.plan import Run
from rules import LocalRule

START_SECONDS = 1.0
"""Of a run, before its first step: settings are read, network and grammar are built."""
EVALUATION_STEPS = 4.0
"""Cost of showing a network one string in the test with its ridge probes, relative to one string of a training step."""
TIMED_REPLICAS = 8
"""With more, a step takes longer in proportion."""


@dataclass(frozen=True)
class Cost:
    """What a combination's runs cost, a replica.

    Attributes:
        seconds: of a training step, a replica; of one core if there is no GPU.
        bytes: of a checkpoint, a replica.
    """

    seconds: float
    bytes: float


def stepper(rule: LocalRule) -> Callable[[int], None]:
    """A function that computes the updates of a step and applies them, without a trainer, on the device that trains.

    Args:
        rule: prepared.
    """
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
    """

    def __init__(self, combinations: list[Combination]):
        self.found: dict[tuple[str, str, str], Cost] = {}
        reference: dict[tuple[str, str], Combination] = {}
        for combination in combinations:
            reference.setdefault((str(combination.task), str(combination.cell)), combination)
        first: dict[str, Combination] = {}
        for combination in combinations:
            first.setdefault(combination.rule.label, combination)
        wanted = [*reference.values(), *(c for c in first.values() if c not in reference.values())]
        for combination in track(wanted, description="timing", transient=True):
            self.found[_key(combination)] = measure(combination, min(TIMED_REPLICAS, combination.replicas))
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
        strings = combination.study.test_size + DATA["probe_size"]
        steps = run.steps + EVALUATION_STEPS * strings / combination.setting("batch_size")
        return START_SECONDS + steps * run.replicas * self.of(combination).seconds

    def checkpoint(self, combination: Combination, run: Run) -> float:
        """Bytes of a run's two checkpoints, which go when it is finished."""
        return StepCheckpoint.KEEP * run.replicas * self.of(combination).bytes


def _key(combination: Combination) -> tuple[str, str, str]:
    return combination.rule.label, str(combination.task), str(combination.cell)


def measure(combination: Combination, replicas: int, steps: int = 3) -> Cost:
    """Time steps of a combination."""
    size = combination.sizes[:1]
    run = combination.run("timing", size, list(range(replicas)), {})
    rule = instantiate(of_rule(run.args))
    rule.prepare(rule.data)
    step = stepper(rule)
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

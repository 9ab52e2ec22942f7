"""``python -m benchmarks``: prints ratios. The two sides of a ratio take turns, so that a slow minute slows both.
``python -m benchmarks diagnostics`` prints a part by its name; several may be named.

Shape suffixes: R replica, B batch, D position, C channel, G groups of positions, M rows, N classes, F inputs, E units.
"""

from __future__ import annotations

import logging
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.jax_step import jax_loop
from benchmarks.steps import CONFIGS, Steps, operations, rule_of
from callbacks import (
    Diagnostic,
    EventFiles,
    GradientAlignment,
    HyperParameters,
    MaskStatistics,
    PairStatistics,
    RepresentationGeometry,
    RunProgress,
    StepLog,
    SynonymicSensitivity,
)
from callbacks.find import callbacks_of
from callbacks.logistic import TOLERANCE, fit_logistic
from callbacks.probes import targets_of
from datamodules import Batch, RHMDataModule, SiblingPairs
from experiments.run.compiling import no_compiler
from networks import HierarchicalNetwork
from rhm import RandomHierarchyModel
from rules import LocalRule, Step
from rules.backprop import Backprop
from rules.clapp import CLAPP
from rules.contrastive import LayerwiseContrastive
from rules.lpl import LatentPredictiveLearning

STRINGS = 100_000
PROBE_ROWS, PENALTY = 4096, 1e-5
"""Of the logistic probes of a run."""
TASKS = [(8, 8, 8, 2, 3), (8, 8, 8, 2, 4), (16, 16, 8, 2, 3), (16, 16, 8, 2, 4), (16, 16, 8, 2, 5)]


def turns(*functions: Callable[[], object], rounds: int = 9) -> list[float]:
    """Median seconds of each function, after one call to warm up, called in turn."""
    for function in functions:
        function()
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, own in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            own.append(time.perf_counter() - start)
    return [statistics.median(own) for own in times]


def plain_sampler(v: int, n: int, m: int, s: int, L: int) -> Callable[[], object]:
    """Top-down sampling with replacement, all levels kept: what one writes in ten minutes."""
    rules = {level: torch.randint(v, (n if level == L else v, m, s)) for level in range(1, L + 1)}

    def sample() -> list[torch.Tensor]:
        levels = [torch.randint(n, (STRINGS, 1))]
        for level in range(L, 0, -1):
            choice = torch.randint(m, levels[-1].shape)
            levels.append(rules[level][levels[-1], choice].flatten(1))
        return levels

    return sample


def sampling(table: Table) -> None:
    """(a) Our sampler against the plain one, one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    index = torch.arange(STRINGS)
    for task in track(TASKS, "sampling"):
        model = RandomHierarchyModel(*task)
        ours, plain = turns(partial(model.sample, index), plain_sampler(*task))
        speed = f"{STRINGS / ours / 1e6:.1f} against {STRINGS / plain / 1e6:.1f} million strings/s"
        table.add_row("a", f"sampling {task}, plain time / ours", f"{plain / ours:.2f}", "3 and more", speed)
    torch.set_num_threads(threads)


def rule_and_data(width: int, batch: int, replicas: int) -> tuple[LocalRule, RHMDataModule]:
    """Backprop at v=n=8, m=4, s=2, L=4."""
    data = RHMDataModule(L=4, batch_size=batch, seeds=list(range(replicas)))
    return Backprop(HierarchicalNetwork(width)).prepare(data), data


def autograd_loop(width: int, batch: int) -> Callable[[int], None]:
    """The same network in ordinary PyTorch: linear layers on reshaped patches, autograd, Adam."""
    data = RHMDataModule(L=4, batch_size=batch)
    layers = [torch.nn.Linear(2 * (8 if k == 0 else width), width) for k in range(4)] + [torch.nn.Linear(width, 8)]
    optimizer = torch.optim.Adam([p for layer in layers for p in layer.parameters()], fused=True)
    step = 0

    def run(steps: int) -> None:
        nonlocal step
        for _ in range(steps):
            batch_ = data.train_batch(step)
            h = torch.nn.functional.one_hot(batch_.x_RBD[0].long(), 8).float()
            for layer in layers[:-1]:
                h = torch.relu(layer(h.reshape(h.shape[0], h.shape[1] // 2, -1)))
            loss = torch.nn.functional.cross_entropy(layers[-1](h[:, 0]), batch_.y_RB[0].long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1

    return run


class Stopwatch(pl.Callback):
    """Seconds that the steps after the first took.

    Args:
        first: steps to warm up.
    """

    def __init__(self, first: int):
        self.first = first

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Start after the first steps, stop at each."""
        if trainer.global_step == self.first:
            self.start = time.perf_counter()
        self.seconds = time.perf_counter() - getattr(self, "start", time.perf_counter())


def through_lightning(width: int, batch: int, steps: int, per_call: int = 1, replicas: int = 1) -> float:
    """Seconds a step in a Trainer with the command line's callbacks and logger."""
    rule, data = rule_and_data(width, batch, replicas)
    rule.steps_per_call, first = per_call, max(10, per_call)
    watch = Stopwatch(first)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=steps + first,
            max_epochs=-1,
            accelerator="cpu",
            logger=TensorBoardLogger(folder, name="", version=""),
            callbacks=[EventFiles(), StepLog(), HyperParameters(), RunProgress(), watch],
            enable_checkpointing=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
        )
        trainer.fit(rule, data)
    return watch.seconds / steps


def lightning(table: Table) -> None:
    """(b) A step through Lightning against the same step in a plain loop."""
    for width, batch, goal, steps in ((256, 128, "at most 1.1", 60), (32, 32, "at most 1.5", 400)):
        loop, ordinary = Steps(rule_and_data(width, batch, 1)[0]), autograd_loop(width, batch)
        loop(10), ordinary(10)
        ours, plain, autograd = [], [], []
        for _ in track(range(7), f"Lightning, width {width}"):
            ours.append(through_lightning(width, batch, steps))
            plain.append(turns(partial(loop, steps), rounds=1)[0] / steps)
            autograd.append(turns(partial(ordinary, steps), rounds=1)[0] / steps)
        ratio = statistics.median(o / p for o, p in zip(ours, plain, strict=True))
        against_autograd = statistics.median(o / p for o, p in zip(ours, autograd, strict=True))
        note = f"{statistics.median(ours) * 1e3:.2f} ms; {against_autograd:.2f} of ordinary PyTorch with autograd"
        table.add_row("b", f"Lightning / plain loop, width {width}, batch {batch}", f"{ratio:.2f}", goal, note)


STEPS_A_CALL = 50
"""What a run takes by itself where steps are short: as many as there are from one line of the log to the next."""


def limit(table: Table) -> None:
    """(i) A step through Lightning, as a run makes it, against autograd, JAX, the matrix products alone and itself compiled."""
    for replicas, width in track([(r, w) for r in (1, 16) for w in (32, 64, 256)], "limit"):
        steps = 100 if replicas * width <= 64 else 50 if replicas * width < 1024 else STEPS_A_CALL // 5
        per_call, rounds = min(STEPS_A_CALL, steps), 5
        rule, data = rule_and_data(width, 128, replicas)
        others = {
            "plain loop": partial(Steps(rule), steps),
            "matrix products": partial(bare_products(rule, 128), steps),
            "JAX": jax_loop(width, rule_and_data(width, 128, replicas)[1], steps),
            "autograd": partial(autograd_loop(width, 128), steps) if replicas == 1 else None,
            "compiled": partial(compiled(width, replicas), steps) if no_compiler() is None else None,
        }
        there = {name: run for name, run in others.items() if run is not None}
        for run in there.values():
            run()
        ours, theirs = [], {name: list[float]() for name in there}
        for _ in range(rounds):
            ours.append(through_lightning(width, 128, steps, per_call, replicas))
            for name, run in there.items():
                theirs[name].append(turns(run, rounds=1)[0] / steps)
        note = f"{statistics.median(ours) * 1e3 / replicas:.2f} ms a replica and step"
        for name, seconds in theirs.items():
            ratio = statistics.median(s / o for s, o in zip(seconds, ours, strict=True))
            table.add_row("i", f"{name} / ours, R = {replicas}, width {width}", f"{ratio:.2f}", "", note)
            note = ""
        if {"JAX", "compiled"} <= theirs.keys():
            ratio = statistics.median(s / c for s, c in zip(theirs["JAX"], theirs["compiled"], strict=True))
            table.add_row("i", f"JAX / compiled, R = {replicas}, width {width}", f"{ratio:.2f}", "", "")


def compiled(width: int, replicas: int) -> Steps:
    """Steps of which all up to the optimizer is compiled, as by ``--compile=true``."""
    rule = rule_and_data(width, 128, replicas)[0]
    rule.compile()
    return Steps(rule)


def costs(table: Table) -> None:
    """(k) A step of each settings file against one of backpropagation: computing time, and operations of matrix products."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    reference = Steps(rule_of("backprop", COST_REPLICAS, COST_WIDTH))
    for name in track(sorted(path.stem for path in CONFIGS.glob("*.yaml")), "costs"):
        loop, times = Steps(rule_of(name, COST_REPLICAS, COST_WIDTH)), list[tuple[float, float]]()
        for run in loop, reference:
            run(2)
        for _ in range(9):
            times.append((computing(loop, COST_STEPS), computing(reference, COST_STEPS)))
        ratio = statistics.median(own / other for own, other in times)
        products = operations(loop) / operations(reference)
        note = f"{products:.1f} in matrix products" if products else "no matrix products"
        table.add_row("k", f"{name} / backprop", f"{ratio:.1f}", "under 2", note)
    torch.set_num_threads(threads)


COST_REPLICAS, COST_WIDTH, COST_STEPS = 4, 64, 5


def computing(run: Callable[[int], object], steps: int) -> float:
    """Seconds of computing time."""
    start = time.process_time()
    run(steps)
    return time.process_time() - start


class Turns(pl.Callback):
    """Switches the other callbacks off and on again, and keeps the computing time of the blocks of steps between.

    Args:
        block: steps of a block.
    """

    def __init__(self, block: int):
        self.block = block
        self.loud: list[float] = []
        self.silent: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start with all callbacks on."""
        self.all, self.start = callbacks_of(trainer), time.process_time()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """At the end of a block, after all others."""
        if trainer.global_step % self.block == 0:
            now = time.process_time()
            loud = callbacks_of(trainer) == self.all
            (self.loud if loud else self.silent).append(now - self.start)
            vars(trainer)["callbacks"] = [self] if loud else self.all
            self.start = time.process_time()


def logging_share(table: Table) -> None:
    """(g) The share of a step that callbacks and logger take at their default pace, in computing time of one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pace = StepLog().every
    for width, batch, r, blocks in track(((256, 128, 1, 15), (256, 128, 8, 7), (32, 32, 1, 60), (32, 32, 8, 40)), "logging"):
        rule, data = rule_and_data(width, batch, r)
        turn = Turns(pace)
        with tempfile.TemporaryDirectory() as folder:
            trainer = pl.Trainer(
                max_steps=2 * (blocks + 1) * pace,
                max_epochs=-1,
                accelerator="cpu",
                logger=TensorBoardLogger(folder, name="", version=""),
                callbacks=[EventFiles(), StepLog(), HyperParameters(), RunProgress(), turn],
                enable_checkpointing=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                limit_val_batches=0,
            )
            trainer.fit(rule, data)
        pairs = list(zip(turn.loud, turn.silent, strict=True))[1:]  # the first to warm up
        share = statistics.median(1 - silent / loud for loud, silent in pairs)
        note = f"of {statistics.median(loud for loud, _ in pairs) / pace * 1e3:.2f} ms, once in {pace} steps"
        table.add_row("g", f"logging / step, width {width}, batch {batch}, R = {r}", f"{share:.3f}", "under .05", note)
    torch.set_num_threads(threads)


def bare_products(rule: LocalRule, batch: int) -> Callable[[int], None]:
    """The matrix products of a step of backprop and nothing else."""
    R, calls = rule.data.replicas, []
    for k, (layer, positions) in enumerate(zip(rule.network.layers, rule.network.positions, strict=True)):
        F, E = layer.weight_RGFE.shape[-2:]
        x, w, delta = torch.randn(R, batch * positions, F), torch.randn(R, F, E), torch.randn(R, batch * positions, E)
        calls += [(x, w), (x.transpose(1, 2), delta)] + ([(delta, w.transpose(1, 2))] if k else [])
    F, N = rule.readout.weight_RFN.shape[-2:]
    x, w, delta = torch.randn(R, batch, F), torch.randn(R, F, N), torch.randn(R, batch, N)
    calls += [(x, w), (x.transpose(1, 2), delta), (delta, w.transpose(1, 2))]

    def run(steps: int) -> None:
        for _ in range(steps):
            for a, b in calls:
                torch.bmm(a, b)

    return run


def products(table: Table) -> None:
    """(c) The share of the matrix products in a step."""
    for replicas in track((1, 16), "matrix products"):
        rule, data = rule_and_data(256, 128, replicas)
        loop, bare = Steps(rule), bare_products(rule, 128)
        steps = 20 if replicas == 1 else 3
        whole, alone = turns(partial(loop, steps), partial(bare, steps))
        note = f"{alone / steps * 1e3:.1f} of {whole / steps * 1e3:.1f} ms"
        table.add_row("c", f"matrix products / step, R = {replicas}", f"{alone / whole:.2f}", ".65 and more", note)


def replicas(table: Table) -> None:
    """(d) What a replica costs when several train together."""
    for width, batch in ((256, 128), (32, 32)):
        loops = [Steps(rule_and_data(width, batch, r)[0]) for r in (1, 4, 16)]
        steps = 5 if width == 256 else 50
        seconds = turns(*(partial(loop, steps) for loop in loops), rounds=5)
        for r, own in zip((4, 16), seconds[1:], strict=True):
            note = f"{own / r / steps * 1e3:.2f} ms a replica and step"
            table.add_row("d", f"cost a replica, R = {r} / R = 1, width {width}", f"{own / r / seconds[0]:.2f}", "", note)


class MakingBatches:
    """The batches of steps, one after another."""

    def __init__(self, data: RHMDataModule):
        self.data, self.step = data, 0

    def __call__(self, steps: int) -> None:
        for _ in range(steps):
            self.data.train_batch(self.step)
            self.step += 1


def batches(table: Table) -> None:
    """(e) The share of making batches."""
    for r in track((1, 16), "batches"):
        rule, data = rule_and_data(256, 128, r)
        loop, steps = Steps(rule), 64 if r == 1 else 16
        making = MakingBatches(data)
        whole, alone = turns(partial(loop, steps), partial(making, 16 * steps), rounds=5)
        making_share = alone / 16 / whole
        table.add_row("e", f"making batches / step, R = {r}", f"{making_share:.3f}", "under .05", "")


def forms(table: Table) -> None:
    """(f) Explicit plasticity against autograd of the same loss: time of the updates, and what autograd keeps."""
    for kind in CLAPP, LatentPredictiveLearning:
        rules = []
        for form in "explicit", "autograd":
            data = RHMDataModule(L=4, batch_size=128, pairs=SiblingPairs())
            rules.append(kind(HierarchicalNetwork(256, bottleneck=8), form=form).prepare(data))
        step = rules[0].compute(rules[0].data.train_batch(0))
        seconds = turns(*(partial(many_updates, rule, step) for rule in rules), rounds=9)
        kept = [saved_bytes(rule, step) for rule in rules]
        note = f"kept for a graph: {kept[0]} and {kept[1] / 1e6:.2f} MB a step"
        table.add_row(
            "f", f"updates of {kind.__name__}, explicit / autograd", f"{seconds[0] / seconds[1]:.2f}", "under 1", note
        )


@torch.no_grad()
def many_updates(rule: LocalRule, step: Step) -> None:
    """The updates of a step, twenty times."""
    for _ in range(20):
        rule.layer_updates(step)


@torch.no_grad()
def saved_bytes(rule: LocalRule, step: Step) -> int:
    """Bytes of the tensors that autograd saves while a rule makes its updates."""
    saved = [0]

    def pack(t: torch.Tensor) -> torch.Tensor:
        saved[0] += t.numel() * t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        rule.layer_updates(step)
    return saved[0]


def look(diagnostic: Diagnostic, trainer: pl.Trainer, rule: LocalRule) -> None:
    """One measurement."""
    with torch.inference_mode(False), torch.no_grad():
        diagnostic.measure(trainer, rule)


def diagnostics(table: Table) -> None:
    """(h) What one measurement of each diagnostic costs, in training steps."""
    trainer, between = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False), 500
    for r in track((1, 4), "diagnostics"):
        supervised = rule_and_data(256, 128, r)[0]
        data = RHMDataModule(L=4, batch_size=128, seeds=list(range(r)), pairs=SiblingPairs())
        paired = LayerwiseContrastive(HierarchicalNetwork(256, bottleneck=8)).prepare(data)
        for rule, diagnostic in (
            (supervised, GradientAlignment()),
            (paired, GradientAlignment()),
            (supervised, MaskStatistics()),
            (supervised, SynonymicSensitivity()),
            (supervised, RepresentationGeometry()),
            (paired, PairStatistics()),
        ):
            diagnostic.check(rule)
            loop, steps = Steps(rule), 10 if r == 1 else 2
            one, step = turns(partial(look, diagnostic, trainer, rule), partial(loop, steps), rounds=5)
            step /= steps
            name = f"{type(diagnostic).__name__}, {type(rule).__name__}, R = {r}"
            note = f"{one * 1e3:.0f} against {step * 1e3:.1f} ms; {one / step / between:.1%} at one in {between} steps"
            table.add_row("h", name, f"{one / step:.1f}", "", note)


def probes(table: Table) -> None:
    """(j) The logistic probes of a layer against scikit-learn's, to the same tolerance, on what backpropagation has learned."""
    rule, data = rule_and_data(64, 128, 1)
    Steps(rule)(300)
    strings = data.grammar.sample(torch.arange(*data.probe_range))
    with torch.no_grad():
        states = rule(strings.x_RBD)
    for k, (positions, state) in enumerate(zip(rule.network.positions, states, strict=True), 1):
        targets = targets_of(data.task, positions)
        x_RGMF = state.out_RBDC.flatten(1, 2)[:, None, :PROBE_ROWS]
        y = [target.of(strings.symbols[target.level], 1)[:, :, :PROBE_ROWS] for target in targets]
        z = StandardScaler().fit_transform(x_RGMF[0, 0].numpy())
        symbols = [slot.numpy() for y_t in y for slot in y_t[0, 0].unbind(-1)]
        logistic = LogisticRegression(C=1 / (2 * PENALTY * len(z)), tol=TOLERANCE, max_iter=500)
        run, other = partial(fit_logistic, x_RGMF, y, targets, PENALTY, 500), partial(each, logistic, z, symbols)
        ours, theirs = turns(run, other, rounds=3)
        note = f"{len(symbols)} regressions, {len(z)} rows: {ours:.2f} against {theirs:.2f} s"
        table.add_row("j", f"scikit-learn / logistic probes, layer {k}", f"{theirs / ours:.1f}", "1 and more", note)


def each(logistic: Any, z: Any, symbols: list[Any]) -> None:
    """A regression after another on the same rows."""
    for of in symbols:
        logistic.fit(z, of)


def main() -> None:
    """Print all ratios, or those of the parts that are named."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    table = Table(
        title=f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}, v=n=8, m=4, s=2, L=4"
    )
    for column in "", "ratio", "value", "goal", "measured":
        table.add_column(column)
    all_parts = sampling, lightning, products, replicas, batches, forms, logging_share, diagnostics, limit, costs, probes
    parts = {part.__name__: part for part in all_parts}
    named = sys.argv[1:] or list(parts)
    if not parts.keys() >= set(named):
        raise SystemExit(f"benchmarks: got {' '.join(named)}, allowed: {' '.join(parts)}")
    for name in named:
        parts[name](table)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()

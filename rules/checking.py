"""Whether a rule keeps the contract: :func:`check_rule`, for rules of one's own too.

The tests of every rule ask with the same functions.

Shape suffixes: R replica.
"""

from __future__ import annotations

import copy
import logging
import pickle
import re
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor

from datamodules import RHMDataModule, SiblingPairs
from rhm import InvalidInput
from rules.base.contract import Updates
from rules.base.local_rule import LocalRule
from rules.base.perturbed import (
    compute,
    copied,
    of_layer,
    positions_interact,
    said,
    same,
    shake,
    strings_add_up,
    units_interact,
    unmoved,
    with_other_error,
    with_other_labels,
    with_other_layers,
    with_other_loss,
)

TASK = {"v": 4, "n": 4, "m": 2, "s": 2, "L": 3}
SIZES = {"train_size": 64, "batch_size": 16, "test_size": 32, "probe_size": 32}
SEEDS = (5, 0, 9)
STEPS = 6
"""Of a training, half of which is resumed."""
Make = Callable[[Sequence[int]], LocalRule]
"""A new rule for replicas of these seeds, prepared."""


class Finding(NamedTuple):
    """What a check found: nothing, if the rule passes."""

    check: str
    found: str = ""

    @property
    def ok(self) -> bool:
        """Whether the rule passes."""
        return not self.found


class ContractBroken(AssertionError):
    """A rule that fails checks, with a line for each."""


def check_rule(
    rule: type[LocalRule],
    settings: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    raises: bool = True,
) -> list[Finding]:
    """Try whether a rule keeps the contract, in double precision on a small task, on the CPU; some seconds.

    - ``contract``: gradients by parameter name and shape, a number of layers, estimates of buffers with a rate.
    - ``asking``: the same step twice gives the same answer, and asking changes nothing.
    - ``knowledge``: see :meth:`rules.base.knowledge.Knowledge.check_knowledge`.
    - ``locality.FIELD``: what a layer's update and what it tracks depend on is what ``locality`` says, in both directions, with
      parameters and buffers moved off their start; for ``partner`` and other positions, and of layers alone that learn.
    - ``replicas``: each of three trains as it does alone.
    - ``training``: the layers that the rule says it trains move, those that nothing trains stay, and all stay finite.
    - ``resume``: a run that goes on from a checkpoint ends bit for bit as one that was never stopped.
    - ``copies``: a copy and a pickle of a trained rule say what it says.

    Not tried: whether a matrix of the layer carries a signal back (``locality.transport_within_layer``), for which one has to
    know all that a rule computes beside a :class:`rules.base.contract.Step`; several ranks; the equation, which needs an
    oracle. Buffers that only make sense together, such as a distribution, are moved apart, and may fail for that.
    A rule whose layers learn one after another is checked with settings that have all learn at once.

    Args:
        rule: its class.
        settings: arguments of its constructor, such as ``{"network": HierarchicalNetwork(width=12)}``.
        data: arguments of :class:`datamodules.RHMDataModule` beside the small task, such as ``{"pairs": ClassPairs()}``; a rule
            that needs pairs has siblings by default. The batch has 16 strings.
        raises: raise what is found; else return it.

    Raises:
        ContractBroken: checks failed, one line each.
        InvalidInput: the rule refuses its settings or data.
    """

    def make(seeds: Sequence[int], **more: Any) -> LocalRule:
        pairs = {"pairs": SiblingPairs()} if rule.uses_pairs else {}
        arguments = {**TASK, **pairs, **copy.deepcopy(dict(data or {})), **SIZES, "seeds": list(seeds)}
        return rule(**copy.deepcopy(dict(settings or {}))).prepare(RHMDataModule(**arguments))

    findings = findings_of(make)
    failed = [f"{finding.check}: {finding.found}" for finding in findings if not finding.ok]
    if raises and failed:
        raise ContractBroken("\n".join([f"{rule.__name__} fails {len(failed)} of {len(findings)} checks:", *failed]))
    return findings


def findings_of(make: Make) -> list[Finding]:
    """What the checks of :func:`check_rule` find, where something else makes the rules.

    Args:
        make: with batches of 16 strings.

    Raises:
        InvalidInput: the rule refuses its settings or data.
    """
    with _in_double_precision():
        make(SEEDS)
        return list(_findings(make))


def _findings(make: Make) -> Iterator[Finding]:
    first = _tried("contract", lambda: contract(make(SEEDS)))
    yield first
    if not first.ok:  # or all others say the same
        return
    shaken = make(SEEDS)
    shake(shaken)
    try:
        found = list(locality(shaken))
        yield from [*found, partners(shaken)] if found[0].ok else found
    except Exception as error:
        yield Finding("locality", _told(error))
    knowledge = _tried("knowledge", lambda: make(SEEDS).check_knowledge())
    yield knowledge
    if not knowledge.ok:  # nor would a trainer start
        return
    for name, check in {
        "replicas": lambda: replicas(make),
        "training": lambda: training(make(SEEDS)),
        "resume": lambda: resume(make),
        "copies": lambda: copies(make(SEEDS)),
    }.items():
        yield _tried(name, check)


def _tried(name: str, check: Callable[[], str | None]) -> Finding:
    """A check's finding, or what it raised."""
    try:
        return Finding(name, check() or "")
    except Exception as error:
        return Finding(name, _told(error))


def _told(error: Exception) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, InvalidInput):
        return text
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}, line {frame.lineno})"


# -------------------------------------------------------------------- what a rule says of a step


@torch.no_grad()
def contract(rule: LocalRule) -> str:
    """Whether what the rule says fits its layers and buffers; raises what is refused in a step, which is made."""
    updates = rule.updates(compute(rule))
    rule.apply_updates(updates, rule.configure_optimizers())
    nameless = [name for name in updates.estimates if not re.search(r"\d", name)]
    return f"an estimate of no layer: no number in {nameless[0]}" if nameless else ""


def learning(updates: Updates) -> list[bool]:
    """For each layer whether anything that is said of it is not 0."""
    layers = range(1, len(updates.layers) + 1)
    return [any(bool(value.any()) for value in of_layer(updates, k).values()) for k in layers]


def locality(rule: LocalRule) -> Iterator[Finding]:
    """What a rule's answers depend on, against what it says; ``asking`` first.

    A rule is shown a step in which one thing was changed. What its locality does not name must not move a bit of what it says
    of a layer, gradients and estimates; what it names must move something.

    Args:
        rule: see :func:`rules.base.perturbed.shake`.
    """
    step, says = compute(rule), rule.locality
    state = {key: value.clone() for key, value in rule.state_dict().items()}
    before = said(rule, step)
    layers = range(1, len(before.layers) + 1)
    again = unmoved(before, said(rule, compute(rule)))
    changes = [key for key, value in rule.state_dict().items() if not torch.equal(value, state[key])]
    asking = "" if all(again) else f"the same step twice, two answers for layers {_layers(again)}"
    yield Finding("asking", f"it changes {', '.join(changes)}" if changes else asking)
    if changes or asking:
        return
    moves = learning(before)

    def each(name: str, same: list[bool], declared: bool, learns: list[bool] = moves) -> Finding:
        """Of layers that learn each depends on what is declared."""
        wrong = [s == (m and declared) for s, m in zip(same, learns, strict=True)]
        return _compared(name, declared, any(wrong), f" of layers {_layers([not w for w in wrong])}")

    yield _either("label", all(unmoved(before, said(rule, with_other_labels(rule, step)))), says.label)
    yield each("error", unmoved(before, said(rule, with_other_error(rule, step))), says.error)
    yield each("scalar_error", unmoved(before, said(rule, with_other_loss(rule, step))), says.scalar_error)
    alone = []
    for k in layers:
        other = copied(rule)
        alone.append(unmoved(before, said(other, with_other_layers(other, step, keep=k - 1)))[k - 1])
    yield _either("other_layers", all(alone), says.other_layers)
    yield _either("lateral", not any(units_interact(rule, step, k) for k in layers), says.lateral)
    yield _either("batch", strings_add_up(rule, step), says.batch)


def partners(rule: LocalRule) -> Finding:
    """Whether what partners or other positions have seen and answered moves what weights learn, against what the rule says."""
    step = compute(rule)
    moved = any(positions_interact(rule, step, k) for k in range(1, len(said(rule, step).layers) + 1))
    if moved and not rule.uses_pairs:
        says = rule.locality.partner or rule.locality.lateral
        return Finding("locality.partner", "" if says else "updates depend on other positions, but neither partner nor lateral")
    return _either("partner", not moved, rule.locality.partner)


def _either(name: str, same: bool, declared: bool) -> Finding:
    return _compared(name, declared, same == declared, "")


def _compared(name: str, declared: bool, wrong: bool, where: str) -> Finding:
    found = f"{declared}, but updates{where} {'do not depend' if declared else 'depend'} on it"
    return Finding(f"locality.{name}", found if wrong else "")


def _layers(right: list[bool]) -> str:
    return ", ".join(str(k) for k, fine in enumerate(right, 1) if not fine)


# -------------------------------------------------------------------- what training makes of it


def replicas(make: Make) -> str:
    """Whether each of three replicas trains as it would alone, but for rounding."""
    together = train(make(SEEDS))
    for r, seed in enumerate(SEEDS):
        for key, value in train(make([seed])).items():
            if not key.startswith("accuracy") and not torch.allclose(together[key][r : r + 1], value, rtol=1e-7, atol=1e-9):
                return f"{key} of seed {seed} is another beside seeds {SEEDS} than alone"
    return ""


def training(rule: LocalRule) -> str:
    """Whether the layers that the rule says it trains move, and those that nothing trains do not."""
    before = {name: value.clone() for name, value in rule.named_parameters()}
    train(rule)
    if bool(rule.diverged_R.any()):
        return "weights that are not finite"
    for k, (part, by) in enumerate(zip(rule.parts, rule.trained_by, strict=True), 1):
        own = {id(parameter) for parameter in part.parameters()}
        moved = [name for name, value in rule.named_parameters() if id(value) in own and not torch.equal(value, before[name])]
        name = f"layer {k}" if k < len(rule.parts) else "the readout"
        if bool(moved) != (by != "nothing"):
            return f"{name} is trained by {by}, but {'moves' if moved else 'nothing of it moves'}"
    return ""


def resume(make: Make) -> str:
    """Whether half a training that goes on from a checkpoint is a whole one, bit for bit, whatever random generators say."""
    with torch.random.fork_rng([]), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        whole, first, second = train(make(SEEDS)), make(SEEDS), make(SEEDS)
        trainer = quiet_trainer(max_steps=STEPS // 2, precision="64-true")
        trainer.fit(first, first.data)
        trainer.save_checkpoint(f"{folder}/half.ckpt")
        torch.manual_seed(1)
        quiet_trainer(max_steps=STEPS, precision="64-true").fit(second, second.data, ckpt_path=f"{folder}/half.ckpt")
    others = [key for key, value in second.state_dict().items() if not torch.equal(value, whole[key])]
    return f"{', '.join(others)} {'is' if len(others) == 1 else 'are'} not as without a stop" if others else ""


def copies(rule: LocalRule) -> str:
    """Whether a copy and a pickle of a trained rule say what it says. The optimizer is one with a pickle: lambdas have none."""
    rule.optimizer = torch.optim.SGD
    train(rule, 2)
    ours = said(rule, rule.compute(rule.data.train_batch(2))).layers
    try:
        pickled = pickle.loads(pickle.dumps(rule))
    except (AttributeError, TypeError, pickle.PicklingError) as error:  # which of them depends on the version of Python
        return f"the trained rule has no pickle: {error}"
    for name, other in {"a copy": copy.deepcopy(rule), "a pickle": pickled}.items():
        with torch.no_grad():
            theirs = said(other, other.compute(other.data.train_batch(2))).layers
        if not all(same(ours, theirs)):
            return f"{name} of the trained rule says something else"
        train(other, 1)
    return ""


def quiet_trainer(**settings: Any) -> pl.Trainer:
    """A trainer on the processor that writes, shows and validates nothing, but for what is set."""
    return pl.Trainer(
        **{
            "max_epochs": -1,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
            **settings,
        }
    )


def train(rule: LocalRule, steps: int = STEPS, **settings: Any) -> dict[str, Tensor]:
    """The state of a rule after some steps of a trainer.

    Args:
        rule: prepared.
        steps: so many.
        settings: of the trainer; double precision by default.
    """
    trainer = quiet_trainer(**{"max_steps": steps, "precision": "64-true", **settings})
    trainer.fit(rule, rule.data)
    assert trainer.global_step == steps or settings.get("devices", 1) > 1  # which children count, not this process
    state: dict[str, Tensor] = rule.state_dict()
    return state


@contextmanager
def _in_double_precision() -> Iterator[None]:
    """New tensors have double precision, and the trainer says nothing."""
    before, log = torch.get_default_dtype(), logging.getLogger("pytorch_lightning")
    level = log.level
    torch.set_default_dtype(torch.float64)
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(before)
        log.setLevel(level)

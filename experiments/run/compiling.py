"""Whether a run's step is compiled, and how long that took."""

from __future__ import annotations

import os
import shutil
import time

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from datamodules import ReplicaDataModule
from experiments.run.pace import operations
from experiments.run.ranks import say
from rhm import InvalidInput
from rules import LocalRule
from rules.base.restoring import COMPILED

PAYS = 2e13
"""Floating-point operations of a run from which compiling its step takes less than it wins, on a CPU: docs/performance.md."""
COMPILERS = ("g++", "clang++", "c++")


def compiles(wanted: bool | None, rule: LocalRule, data: ReplicaDataModule, steps: int, trainer: Trainer) -> bool:
    """Whether the step is compiled: as it is wanted, else where that pays. A run that goes on decides as it did before.

    Args:
        wanted: what was asked for; None leaves it open.
        rule: prepared.
        data: that it trains on.
        steps: of the run.
        trainer: with its strategy.

    Raises:
        InvalidInput: it is wanted where ranks share a batch, or where there is no compiler.
    """
    on_cpu, missing = trainer.strategy.root_device.type == "cpu", no_compiler()
    if wanted:
        if trainer.world_size > 1:
            allowed = f"false with {trainer.world_size} ranks that share a batch; spread_replicas=true takes it"
            raise InvalidInput("compile", True, allowed)
        if on_cpu and missing:
            raise InvalidInput("compile", True, f"false without a C++ compiler: {missing}")
        return True
    if wanted is False or not on_cpu or trainer.world_size > 1 or steps * operations(rule, data) < PAYS:
        return False
    if missing:
        say(f"rhm: note: the step is not compiled, which would pay in a run as long as this: {missing}")
    return not missing


def no_compiler() -> str | None:
    """What is missing for a step to be compiled on the CPU; None if nothing is."""
    own = os.environ.get("CXX")
    if own:
        return None if shutil.which(own.split()[0]) else f"CXX={own} is no command"
    return None if any(shutil.which(name) for name in COMPILERS) else f"none of {', '.join(COMPILERS)} is there"


class CompiledStep(Callback):
    """Compiles the step before the first one, with updates that are not applied, and says how long it took.

    Args:
        asked: whether a person has asked for it; if not, a rule that cannot be compiled runs as it is.
    """

    def __init__(self, asked: bool):
        self.asked = asked

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compile.

        Raises:
            InvalidInput: the compiler refuses the rule.
        """
        assert isinstance(pl_module, LocalRule)
        rule, start = pl_module, time.perf_counter()
        rule.compile(mode="reduce-overhead" if rule.device.type == "cuda" else None)  # CUDA graphs: not tried on a GPU
        try:
            with torch.no_grad(), trainer.precision_plugin.train_step_context():
                rule.updates_of(rule.data.train_batch(trainer.global_step))
        except InvalidInput:
            raise
        except Exception as error:
            words = str(error).strip().splitlines()
            reason = f"{type(error).__name__}: {words[0]}" if words else type(error).__name__
            if self.asked:
                raise InvalidInput("compile", True, f"false for {type(rule).__name__} on this machine ({reason})") from error
            rule.__dict__.pop(COMPILED)
            say(f"rhm: note: the step is not compiled, which would pay in a run as long as this: {reason}")
            return
        say(f"rhm: the step is compiled, which took {time.perf_counter() - start:.0f} s")

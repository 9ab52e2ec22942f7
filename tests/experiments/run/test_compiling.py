"""Compiling the step changes no more than rounding, and where it cannot be done one line says so.

In ``make test`` a step is traced and run by the ``eager`` backend, which needs no compiler; ``make test-compile`` compiles every rule.
"""

from __future__ import annotations

import pickle
import signal

import pytest
import torch
from command_line import refused
from rule_helpers import RULES, from_settings, quiet_trainer, train
from run_processes import SIGNAL, assert_same_run, fit

from experiments.cli import main
from experiments.run import compiling
from experiments.run.compiling import compiles
from experiments.run.pace import operations
from rules import LocalRule


@pytest.fixture
def traced(monkeypatch):
    """Steps are traced and then run as they are; gives the number of steps that were asked of the traced function."""
    compile_, calls = LocalRule.compile, []

    def traced_only(self, mode=None):
        compile_(self, backend="eager")
        traced_step = self.updates_of
        self.__dict__["updates_of"] = lambda batch: calls.append(batch) or traced_step(batch)

    monkeypatch.setattr(LocalRule, "compile", traced_only)
    return calls


@pytest.mark.chaos
def test_a_run_that_is_traced_is_the_run_and_goes_on_exactly(traced, tmp_path):
    """What is asked for is done: one look before the first step, then each step; a stopped run is compiled again."""
    settings = {"trainer__max_steps": 30, "checkpoint_every": 10}
    main(fit(tmp_path / "eager", **settings))
    assert not traced
    main(fit(tmp_path / "traced", **settings, compile="true"))
    assert len(traced) == 31
    assert_same_run(tmp_path / "eager", tmp_path / "traced")
    with pytest.raises(SystemExit):
        at = {"trainer__callbacks__step": 17, "trainer__callbacks__signum": int(signal.SIGTERM)}
        main(fit(tmp_path / "stopped", SIGNAL, **settings, **at, compile="true"))
    main(fit(tmp_path / "stopped", **settings, compile="true"))
    assert_same_run(tmp_path / "eager", tmp_path / "stopped")
    assert len(traced) == 31 + 18 + 14


def test_a_run_does_not_go_on_with_another_kind_of_step(traced, tmp_path, capsys):
    with pytest.raises(SystemExit):
        at = {"trainer__callbacks__step": 5, "trainer__callbacks__signum": int(signal.SIGTERM)}
        main(fit(tmp_path / "a", SIGNAL, **at, trainer__max_steps=20))
    capsys.readouterr()
    assert "compile=True" in refused(capsys, *fit(tmp_path / "a", trainer__max_steps=20, compile="true"))


def test_a_copy_and_a_pickle_of_a_compiled_rule_are_not_compiled(traced):
    rule = from_settings("backprop")
    rule.compile()
    batch = rule.data.train_batch(0)
    rule.updates_of(batch)
    assert len(traced) == 1
    pickle.loads(pickle.dumps(rule)).updates_of(batch)
    assert len(traced) == 1


def test_where_there_is_no_compiler_a_line_says_so_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CXX", "/no/such/compiler")
    line = refused(capsys, *fit(tmp_path / "a", compile="true"))
    assert "compile: got True, allowed: false without a C++ compiler: CXX=/no/such/compiler is no command" in line
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "none of g++, clang++, c++ is there" in refused(capsys, *fit(tmp_path / "a", compile="true"))
    assert not list(tmp_path.iterdir())


def test_a_rule_that_the_compiler_refuses_is_named(tmp_path, capsys, monkeypatch):
    def refuse(batch):
        raise RuntimeError("no such operation\nand more")

    monkeypatch.setattr(LocalRule, "compile", lambda self, mode=None: vars(self).update(updates_of=refuse))
    line = refused(capsys, *fit(tmp_path / "a", compile="true"))
    assert "compile: got True, allowed: false for Backprop on this machine (RuntimeError: no such operation)" in line


def test_a_run_that_nobody_asked_to_compile_goes_on_as_it_is_where_the_compiler_refuses(tmp_path, capsys, monkeypatch):
    def refuse(batch):
        raise RuntimeError("no such operation")

    settings = {"trainer__max_steps": 5}
    main(fit(tmp_path / "eager", **settings))
    monkeypatch.setattr(LocalRule, "compile", lambda self, mode=None: vars(self).update(updates_of=refuse))
    monkeypatch.setattr(compiling, "PAYS", 0)
    main(fit(tmp_path / "a", **settings))
    assert "the step is not compiled, which would pay in a run as long as this: RuntimeError" in capsys.readouterr().err
    assert_same_run(tmp_path / "eager", tmp_path / "a")


def test_a_long_run_is_compiled_by_itself_and_says_so_where_it_cannot(capsys, monkeypatch):
    rule = from_settings("backprop")
    trainer = quiet_trainer()
    long = int(compiling.PAYS / operations(rule, rule.data)) + 1
    assert compiles(None, rule, rule.data, long, trainer) and not compiles(None, rule, rule.data, long // 2, trainer)
    assert compiles(True, rule, rule.data, 1, trainer) and not compiles(False, rule, rule.data, long, trainer)
    monkeypatch.setenv("CXX", "/no/such/compiler")
    assert not compiles(None, rule, rule.data, long // 2, trainer) and not capsys.readouterr().err
    assert not compiles(None, rule, rule.data, long, trainer)
    assert "not compiled, which would pay in a run as long as this: CXX=/no/such/compiler" in capsys.readouterr().err


STEPS = {"equilibrium_propagation": 20}
"""Of rules whose weights, when they have been moved by rounding, part in a hundred steps: 4e-14 of a gradient in the first step grow to
2e-4 in the hundredth, and nothing in it has a jump."""


@pytest.mark.compiled
@pytest.mark.parametrize("name", RULES)
def test_compiled_steps_are_the_steps(name):
    """A hundred steps in double precision: every weight and buffer to 1e-5 of its largest entry."""
    torch.set_default_dtype(torch.float64)
    try:
        eager, compiled = (from_settings(name, seeds=(0, 1)) for _ in range(2))
        compiled.compile()
        weights, others = (train(rule, STEPS.get(name, 100)) for rule in (eager, compiled))
    finally:
        torch.set_default_dtype(torch.float32)
    assert "updates_of" in vars(compiled) and "updates_of" not in vars(eager)
    for key, a in weights.items():
        most = float(a.double().abs().max()) if a.numel() else 0.0
        assert torch.allclose(others[key].double(), a.double(), rtol=0, atol=1e-5 * max(most, 1e-12)), key

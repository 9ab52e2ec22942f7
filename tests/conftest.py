"""Settings of all tests, and a look at the shapes of all that they run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import shape_watch
import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("no time limit", deadline=None)  # a busy machine is no failure
settings.load_profile("no time limit")
shape_watch.install()


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is loaded by now stays: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def names_tell_shapes() -> Iterator[None]:
    """No function of ours ends with a name that tells another shape than it holds."""
    shape_watch.looks.clear()
    yield
    found, _ = list(shape_watch.mistakes), shape_watch.mistakes.clear()
    assert not found, "names that tell another shape:\n" + "\n".join(found)


# -------------------------------------------------------------------- --unreached: which functions with suffixes no test called


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--unreached", action="store_true", help="list the functions with shape suffixes that no test called")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["shapes"] = [sorted(shape_watch.watched), sorted(shape_watch.reached)]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    watched, reached = node.workeroutput.get("shapes", ([], []))
    shape_watch.watched.update(watched)
    shape_watch.reached.update(reached)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if config.getoption("--unreached"):
        never = sorted(shape_watch.watched - shape_watch.reached)
        terminalreporter.section(f"{len(never)} of {len(shape_watch.watched)} functions with suffixes were not called")
        for place in never:
            terminalreporter.line(place)

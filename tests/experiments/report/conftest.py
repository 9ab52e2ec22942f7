"""A study whose answer is known, and its report."""

from __future__ import annotations

import pytest
from study_helpers import STUDY, fake_study, p_star, sigmoid_curve

from experiments.cli import main


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A study of two rules and three depths, and its report."""
    folder = tmp_path_factory.mktemp("study")
    runs = fake_study(folder / "a", STUDY, sigmoid_curve(p_star))
    main(["report", str(folder / "a")])
    return folder / "a", runs

"""Reports without their pictures."""

from __future__ import annotations

import pytest

from experiments.report.page import Page


@pytest.fixture
def no_pictures(monkeypatch):
    """For tests that look at words and numbers alone: drawing is most of a report's time."""
    monkeypatch.setattr(Page, "figure", lambda self, name, title, figure, caption: None)

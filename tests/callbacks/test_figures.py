"""Heat maps."""

from __future__ import annotations

import math

import torch

from callbacks.figures import heat_map


def test_heat_maps_wrap_and_mark_what_was_not_measured():
    table = torch.tensor([[0.1, math.nan], [0.9, 0.5]])
    figure = heat_map({str(i): table for i in range(5)}, 0.1, columns=3)
    panels = [ax for ax in figure.axes if ax.images and ax.get_visible()]
    assert len(panels) == 5 and {text.get_text() for text in panels[0].texts} == {"0.10", "–", "0.90", "0.50"}

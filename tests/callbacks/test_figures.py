"""Heat maps."""

from __future__ import annotations

import math

import pytest
import torch

from callbacks.figures import ROW_INCHES, heat_map


def test_heat_maps_wrap_and_mark_what_was_not_measured():
    table = torch.tensor([[0.1, math.nan], [0.9, 0.5]])
    figure = heat_map({str(i): table for i in range(9)}, 0.1)
    panels = [ax for ax in figure.axes if ax.images and ax.get_visible()]
    assert len(panels) == 9 and {text.get_text() for text in panels[0].texts} == {"0.10", "–", "0.90", "0.50"}
    assert len({round(ax.get_position().y0, 3) for ax in panels}) == 2  # rows


@pytest.mark.parametrize("levels", [3, 9])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_heat_map_has_a_title_beside_which_nothing_stands_and_rows_that_a_page_can_show(count, levels):
    title = "LayerwiseContrastive on v=8 n=8 m=4 s=2 L=8, P = 2,048, seeds 0 to 4\nwhat the cells are, in a line that is long"
    figure = heat_map({str(i): torch.rand(levels - 1, levels) for i in range(count)}, 0.1, title=title)
    figure.draw_without_rendering()
    (heading,) = figure.texts
    box = heading.get_window_extent()
    assert " ".join(heading.get_text().split()) == " ".join(title.split())
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    assert all(ax.title.get_window_extent().y1 <= box.y0 for ax in figure.axes if ax.title.get_text())
    assert figure.get_size_inches()[0] <= ROW_INCHES + 0.5

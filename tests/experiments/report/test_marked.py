"""A document between whose marks tables are written."""

from __future__ import annotations

import polars
import pytest

from experiments.report.marked import Marked, markdown
from rhm import InvalidInput


def test_a_table_stands_between_the_marks_and_the_rest_stays(tmp_path):
    path = tmp_path / "a.md"
    path.write_text("one\n<!-- table: begin -->\ntwo\n<!-- table: end -->\nthree <!-- table: end -->\n")
    Marked(str(path)).write([("A title", polars.DataFrame({"a": [1], "b|c": ["x|y"]}))])
    assert path.read_text() == (
        "one\n<!-- table: begin -->\n**A title**\n\n| a | b\\|c |\n| --- | --- |\n| 1 | x\\|y |\n<!-- table: end -->\nthree <!-- table: end -->\n"
    )
    assert markdown(polars.DataFrame({"a": ["x"]})) == "| a |\n| --- |\n| x |"


@pytest.mark.parametrize("content", [None, b"\xff", b"no marks", b"<!-- table: end --> <!-- table: begin -->"])
def test_what_is_no_such_document_is_refused_before_a_report_is_made(content, tmp_path):
    path = tmp_path / "a.md"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match=f"tables: got {path}"):
        Marked(str(path))
    with pytest.raises(InvalidInput, match="tables"):
        Marked(str(tmp_path))

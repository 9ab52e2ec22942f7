"""Files with settings, and settings that are compared."""

from __future__ import annotations

import pytest

from experiments.files import alike, check_folder, new_file, read_json
from rhm import InvalidInput


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (1, 1.0),
        (0.001, "1e-3"),
        (2**62 + 1, str(2**62 + 1)),
        (True, "true"),
        (None, "null"),
        ([0.9, 0.999], (0.9, "0.999")),
        ({"lr": 1, "betas": (1, 2)}, {"lr": "1.0", "betas": [1.0, 2]}),
        ({1: [None]}, {"1": ["None"]}),
    ],
)
def test_settings_that_say_the_same_are_alike_in_whatever_form(one, other):
    assert alike(one, other) and alike(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 2), (1, True), (0, False), (0, None), (2**62, 2**62 + 1), (1, [1]), ([1, 2], [2, 1]), ("cpu", "auto"), ({"a": 1}, {})],
)
def test_settings_that_say_something_else_are_not_alike(one, other):
    assert not alike(one, other) and not alike(other, one)


def test_a_link_that_leads_nowhere_is_no_place_to_write_to(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "gone")
    with pytest.raises(
        InvalidInput,
        match=f"run_dir: got {tmp_path}/a, allowed: a folder; this is a link to {tmp_path}/gone, which is not there",
    ):
        check_folder("run_dir", tmp_path / "a")
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(InvalidInput, match="nothing is overwritten"):
        new_file("out", str(tmp_path / "a.png"), (".png",))
    (tmp_path / "gone").mkdir()
    check_folder("run_dir", tmp_path / "a")


def test_a_path_that_cannot_be_looked_at_is_said_in_one_line(tmp_path):
    with pytest.raises(InvalidInput, match="File name too long"):
        check_folder("out", tmp_path / ("x" * 300))
    with pytest.raises(InvalidInput, match="File name too long"):
        new_file("out", str(tmp_path / ("x" * 300 + ".png")), (".png",))


def test_json_of_somebody_else_has_finite_numbers_and_an_end(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1e400, "b": -1e400, "c": NaN, "d": Infinity, "e": 0.5}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"a": None, "b": None, "c": None, "d": None, "e": 0.5}
    for text in ("[" * 100000, "", "{", "\udc80"):
        (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(ValueError):
            read_json(tmp_path / "a.json")

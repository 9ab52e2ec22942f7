"""Files with settings, and settings that are compared."""

from __future__ import annotations

import json
import math
import os

import pytest

from experiments.files import alike, check_folder, new_file, number_of, read_json, whole_of, write_json
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


def test_what_is_there_is_no_place_to_write_to(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    with pytest.raises(InvalidInput, match="this is a file"):
        check_folder("run_dir", tmp_path / "a.png")
    for name, allowed in (
        ("a.png", "nothing is overwritten"),
        ("b/a.png", "a folder that exists"),
        ("a.png/b.png", "a folder that exists"),
        ("b.jpg", "a file name that ends in .png or .pdf"),
    ):
        with pytest.raises(InvalidInput, match=allowed):
            new_file("out", str(tmp_path / name), (".png", ".pdf"))
    assert new_file("out", str(tmp_path / "b.png"), (".png", ".pdf")) == tmp_path / "b.png"
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(InvalidInput, match="a folder that can be written"):
        new_file("out", str(tmp_path / "b.png"), (".png", ".pdf"))


def test_a_file_is_written_whole_or_stays_as_it_was(tmp_path, monkeypatch):
    seen = []

    def full(descriptor):
        seen.append(sorted(path.name for path in tmp_path.iterdir()))
        raise OSError(28, "No space left on device")

    write_json(tmp_path / "a.json", {"a": [1.5, math.inf, {"b": math.nan}], "c": (-math.inf, None)})
    whole = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(whole) == {"a": [1.5, None, {"b": None}], "c": [None, None]}
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / "a.json", {"b": 2})
    assert seen == [[f".a.json.{os.getpid()}.part", "a.json"]]
    assert os.listdir(tmp_path) == ["a.json"] and (tmp_path / "a.json").read_text(encoding="utf-8") == whole


@pytest.mark.parametrize("value", [True, "1", None, -1, 10**400, [1]])
def test_what_is_no_number_of_its_kind_is_not_read(value):
    for read in whole_of, number_of:
        with pytest.raises(TypeError, match="a is "):
            read({"a": value}, "a")


def test_numbers_are_read_up_to_their_bounds():
    assert whole_of({"a": 2**63 - 1}, "a") == 2**63 - 1 and number_of({"a": 1}, "a", most=1) == 1.0
    for read in (lambda: whole_of({"a": 2**63}, "a"), lambda: whole_of({"a": 0}, "a", 1), lambda: whole_of({"a": 1.0}, "a")):
        with pytest.raises(TypeError, match="not an integer of at least"):
            read()
    with pytest.raises(TypeError, match="not a number from 0 to 1"):
        number_of({"a": 1.1}, "a", most=1)

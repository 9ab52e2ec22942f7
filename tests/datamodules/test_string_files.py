"""Strings and labels from files, and what is refused of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules import StringsDataModule
from datamodules.string_files import checked_strings, depth_of, read_strings
from rhm import InvalidInput

X = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 1, 1], [2, 0, 2, 0]]
Y = [0, 1, 0, 1]


def write(path, x=X, y=Y):
    """The same strings in a file of each kind, by plain means."""
    if path.suffix == ".csv":
        lines = [",".join(map(str, [*tokens, label])) for tokens, label in zip(x, y, strict=True)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif path.suffix == ".npz":
        np.savez(path, x=np.array(x), y=np.array(y))
    else:
        torch.save({"x": torch.tensor(x), "y": torch.tensor(y)}, path)
    return path


@pytest.mark.parametrize("ending", [".npz", ".pt", ".csv"])
def test_what_was_written_is_read(tmp_path, ending):
    x = [[(7 * i + d * d) % 1000 for d in range(8)] for i in range(40)]
    y = [i % 3 for i in range(40)]
    data = StringsDataModule(path=str(write(tmp_path / f"a{ending}", x, y)))
    assert data.x_PD.tolist() == x and data.y_P.tolist() == y
    assert (data.task.v, data.task.n, data.task.L) == (1 + max(map(max, x)), 3, 3)


def test_a_file_of_any_kind_has_the_fingerprint_of_its_strings_and_others_have_another(tmp_path):
    def found(path):
        return StringsDataModule(path=str(path)).task.fingerprint

    same = {found(write(tmp_path / f"a{ending}")) for ending in (".npz", ".pt", ".csv")}
    assert len(same) == 1
    assert same == {StringsDataModule(x=torch.tensor(X, dtype=torch.uint8), y=np.array(Y, np.int16)).task.fingerprint}
    others = [(X[::-1], Y), (X, Y[::-1]), ([*X[:3], [2, 0, 2, 1]], Y), (X + X, Y + Y)]
    assert len(same | {found(write(tmp_path / "b.npz", *other)) for other in others}) == 5


@pytest.mark.parametrize("text", ["\ufeff0,1,0\n1,0,1\n1,1,0\n0,0,1", "0, 1, 0\r\n1, 0, 1\r\n\r\n1, 1, 0\r\n0, 0, 1\r\n"])
def test_a_table_of_another_program_is_read(tmp_path, text):
    (tmp_path / "a.csv").write_bytes(text.encode())
    x, y = read_strings(str(tmp_path / "a.csv"))
    assert x.tolist() == [[0, 1], [1, 0], [1, 1], [0, 0]] and y.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("largest", [1, 255, 256, 32767, 32768])
def test_tokens_are_kept_in_the_smallest_type_that_holds_them(largest):
    x_PD, y_P, task = checked_strings([[0, largest], [largest, 0]] * 2, [0, 0, 1, 1], 2, None)
    assert x_PD.tolist() == [[0, largest], [largest, 0]] * 2 and task.v == largest + 1
    assert x_PD.element_size() == (1 if largest < 256 else 2 if largest < 2**15 else 4) == y_P.element_size()


@pytest.mark.parametrize(
    ("length", "s"), [(2, 2), (8, 2), (64, 2), (64, 4), (64, 8), (64, 64), (243, 3), (1000, 10), (2**20, 2)]
)
def test_the_depth_is_the_power(length, s):
    assert s ** depth_of(length, s) == length


@pytest.mark.parametrize(
    ("length", "s", "fits"),
    [(60, 2, "60"), (64, 3, "2 or 4 or 8 or 64"), (9, 2, "3 or 9"), (16, 8, "2 or 4 or 16"), (1, 2, "none")],
)
def test_a_length_that_is_no_power_is_refused_with_those_that_it_is_of(length, s, fits):
    with pytest.raises(
        InvalidInput, match=f"^data.s: got {s}, allowed: a number whose power is the length .*, {length}: {fits}$"
    ):
        depth_of(length, s)


FOUR = [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("x", "y", "line"),
    [
        (
            [[0, 1], [1, 0, 1, 0], [1, 1], [0, 0]],
            FOUR,
            "data.x: got a list that is no array of numbers, allowed: strings of one length",
        ),
        (
            [torch.zeros(2), torch.zeros(3)],
            FOUR,
            "data.x: got a list that is no array of numbers, allowed: strings of one length",
        ),
        (torch.zeros(4, 2), FOUR, "data.x: got float32, allowed: integers from 0"),
        (np.ones((4, 2)), FOUR, "data.x: got float64, allowed: integers from 0"),
        (torch.zeros(4, 2, dtype=torch.bool), FOUR, "data.x: got bool, allowed: integers from 0"),
        ([["a", "b"]] * 4, FOUR, "data.x: got a list that is no array of numbers"),
        ([[0, 1], [1, -1]] * 2, FOUR, "data.x: got tokens from -1 to 1, allowed: integers from 0, below"),
        ([[0, 1], [1, 2**40]] * 2, FOUR, "data.x: got tokens from 0 to 1099511627776, allowed: integers from 0, below"),
        ([[0, 0]] * 4, FOUR, "data.x: got nothing but the token 0, allowed: two different tokens or more"),
        ([0, 1, 0, 1], FOUR, "data.x: got the shape [4], allowed: strings of one length"),
        (torch.zeros(0, 2, dtype=torch.long), [], "data.x: got the shape [0, 2], allowed: strings of one length"),
        ([[0, 1]] * 4, [0, 1, 0], "data.y: got 3 labels for 4 strings, allowed: a label for each string"),
        ([[0, 1]] * 4, [0, 1, 0, 2], "data.y: got 1 string of class 1, allowed: 2 or more of each class from 0 to 2"),
        ([[0, 1]] * 4, [0, 2, 0, 2], "data.y: got 0 strings of class 1, allowed: 2 or more of each class from 0 to 2"),
        ([[0, 1]] * 4, [0, -1, 0, -1], "data.y: got labels from -1 to 0, allowed: integers from 0, below"),
        ([[0, 1]] * 4, [0.0, 1.0, 0.0, 1.0], "data.y: got float64, allowed: integers from 0"),
        ([[0, 1]] * 4, [[0], [1], [0], [1]], "data.y: got the shape [4, 1], allowed: a row of labels"),
        ([[0, 1, 1]] * 4, FOUR, "data.s: got 2, allowed: a number whose power is the length of the strings, 3: 3"),
    ],
)
def test_strings_that_cannot_be_are_refused_by_name(x, y, line, tmp_path):
    with pytest.raises(InvalidInput) as caught:
        StringsDataModule(x=x, y=y)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)
    if isinstance(x, torch.Tensor | np.ndarray):  # and by that of a file, where they are in one
        torch.save({"x": torch.as_tensor(x), "y": torch.tensor(y)}, tmp_path / "a.pt")
        with pytest.raises(InvalidInput, match=r"data.path: got .*a\.pt with x: ") as caught:
            StringsDataModule(path=str(tmp_path / "a.pt"))
        assert line.removeprefix("data.x: got ") in str(caught.value)


TEXTS = {
    "0,1,0\n1,0\n": "with 2 numbers in line 2, 3 in the first, allowed: strings of one length, the label behind each",
    "0,1,0\n\n1,0,1,1\n": "with 4 numbers in line 3, 3 in the first, allowed",
    "x1,x2,y\n0,1,0\n": "with 'x1' in line 1, allowed: integers between commas, no heading",
    "0,1,0\n0,1.5,1\n": "with '1.5' in line 2, allowed: integers between commas",
    "0,1,0\n0,1.0,1\n": "with '1.0' in line 2, allowed: integers between commas",
    "0,1,0\n0,,1\n": "with '' in line 2, allowed: integers between commas",
    "0;1;0\n0;1;1\n": "with '0;1;0' in line 1, allowed: integers between commas",
    "0,1,0\n0,99999999999999999999,1\n": "(ValueError: ",
    "": ", which is empty, allowed: a line for each string",
    "\n\n": ", which is empty, allowed: a line for each string",
    "0\n1\n0\n1\n": "with x: the shape [4, 0], allowed: strings of one length",
    "0,-1,0\n0,1,1\n0,1,0\n0,1,1\n": "with x: tokens from -1 to 1, allowed: integers from 0",
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_table_that_is_none_is_refused_by_its_line(text, tmp_path):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        StringsDataModule(path=str(tmp_path / "a.csv"))
    assert caught.value.key == "data.path" and TEXTS[text] in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [".npz", ".pt", ".csv"])
@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "folder", "missing"])
def test_a_file_that_is_damaged_or_missing_is_refused_by_name(ending, damage, tmp_path):
    path = write(tmp_path / f"a{ending}")
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"cut": content[: len(content) // 2 + 1], "noise": bytes(range(255, 0, -1)), "empty": b""}[damage])
    with pytest.raises(InvalidInput, match=f"^data.path: got .*a{ending}") as caught:
        StringsDataModule(path=str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.NPZ", "a.npz.gz"])
def test_a_file_of_another_kind_is_refused(name, tmp_path):
    (tmp_path / name).write_text("0,1,0")
    with pytest.raises(InvalidInput, match="allowed: a file whose name ends in .npz, .pt, .csv"):
        read_strings(str(tmp_path / name))


def test_a_file_that_lacks_strings_or_labels_is_refused_with_what_it_has(tmp_path):
    np.savez(tmp_path / "a.npz", tokens=np.array(X), y=np.array(Y))
    torch.save({"x": torch.tensor(X)}, tmp_path / "a.pt")
    torch.save([torch.tensor(X), torch.tensor(Y)], tmp_path / "b.pt")
    np.savez(tmp_path / "b.npz", x=np.array([[1], [1, 2]], dtype=object), y=np.array(Y))
    for name, got in (
        ("a.npz", "with tokens, y,"),
        ("a.pt", "with x,"),
        ("b.pt", "with a list"),
        ("b.npz", "(ValueError: Object arrays"),
    ):
        with pytest.raises(InvalidInput) as caught:
            read_strings(str(tmp_path / name))
        assert caught.value.key == "data.path" and got in str(caught.value)


def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path):
    class Trap:
        def __reduce__(self):
            return exec, ("raise SystemExit('it ran')",)

    torch.save({"x": Trap(), "y": torch.tensor(Y)}, tmp_path / "a.pt")
    with pytest.raises(InvalidInput, match="a whole .pt file of integers"):
        read_strings(str(tmp_path / "a.pt"))

"""Strings and labels from files, and what is refused of them.

Shape suffixes: P string, D position.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rhm import InvalidInput, OwnTask
from rhm.memory import check_memory
from rhm.task import MOST_RULES

LEAST_OF_CLASS = 2
"""Strings of a class: one to train on and one to test with."""
UNEQUAL = "strings of one length: an array or a tensor with a row for each"


def read_strings(path: str) -> tuple[Any, Any]:
    """What a file has as strings and as labels, not yet looked at.

    Args:
        path: an ``.npz`` or ``.pt`` file with ``x`` and ``y``, or a ``.csv`` file with a string a line, integers between
            commas, the last of which is the label.

    Raises:
        InvalidInput: there is no such file, it has another ending, is damaged, or lacks one of the two.
    """
    file = Path(path)
    if file.suffix not in READERS:
        raise InvalidInput("data.path", path, f"a file whose name ends in {', '.join(READERS)}")
    if not file.is_file():
        raise InvalidInput("data.path", path, "a file that exists")
    try:
        return READERS[file.suffix](file)
    except InvalidInput:
        raise
    except Exception as error:  # whatever a damaged file makes of it
        got = f"{path} ({type(error).__name__}: {' '.join(str(error).split())[:80]})"
        raise InvalidInput("data.path", got, f"a whole {file.suffix} file of integers") from error


def _read_npz(file: Path) -> tuple[Any, Any]:
    with np.load(file, allow_pickle=False) as content:
        return _both(file, {name: content[name] for name in content.files if name in ("x", "y")}, content.files)


def _read_pt(file: Path) -> tuple[Any, Any]:
    content = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise InvalidInput("data.path", f"{file} with a {type(content).__name__}", "a dictionary with the tensors x and y")
    return _both(file, content, [*content])


def _both(file: Path, content: dict[str, Any], names: list[Any]) -> tuple[Any, Any]:
    if not {"x", "y"} <= content.keys():
        raise InvalidInput("data.path", f"{file} with {', '.join(map(str, names)) or 'nothing'}", "a file with x and y")
    return content["x"], content["y"]


def _read_csv(file: Path) -> tuple[Any, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a float that is read as an integer, or nothing at all
            rows = np.loadtxt(file, dtype=np.int64, delimiter=",", comments=None, ndmin=2, encoding="utf-8-sig")
    except (ValueError, UserWarning, OverflowError) as error:
        _refuse_line(file)
        raise error
    return rows[:, :-1], rows[:, -1]


def _refuse_line(file: Path) -> None:
    """Name the first line that is not like the first, or not of integers."""
    first = None
    for number, line in _lines(file):
        cells = line.split(",")
        first = first or len(cells)
        wrong = next((cell.strip() for cell in cells if not cell.strip().lstrip("+-").isdecimal()), None)
        if wrong is not None:
            raise InvalidInput("data.path", f"{file} with {wrong!r} in line {number}", "integers between commas, no heading")
        if len(cells) != first:
            got = f"{file} with {len(cells)} numbers in line {number}, {first} in the first"
            raise InvalidInput("data.path", got, "strings of one length, the label behind each")
    if first is None:
        raise InvalidInput("data.path", f"{file}, which is empty", "a line for each string")


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    with open(file, encoding="utf-8-sig") as text:
        yield from ((number, line) for number, line in enumerate(text, 1) if line.strip())


READERS: dict[str, Callable[[Path], tuple[Any, Any]]] = {".npz": _read_npz, ".pt": _read_pt, ".csv": _read_csv}
"""By the ending of a file's name."""


# -------------------------------------------------------------------- what strings must be


def checked_strings(x: Any, y: Any, s: int, path: str | None) -> tuple[Tensor, Tensor, OwnTask]:
    """Tokens ``[P, s**L]``, classes ``[P]``, both in the smallest type that holds them, and the task that they are.

    Args:
        x, y: tensors, arrays or lists.
        s: tuple size.
        path: of the file that they are from; None for those that Python has.

    Raises:
        InvalidInput: strings of unequal length, numbers that are no integers or below 0, labels that do not match, a class with
            fewer than two strings, a length that is no power of ``s``, or strings that are all alike.
    """
    x_PD, y_P = _integers("x", x, 2, path), _integers("y", y, 1, path)
    if len(y_P) != len(x_PD):
        raise _refused("y", f"{len(y_P)} labels for {len(x_PD)} strings", "a label for each string", path)
    v, n = (_range(name, t, path) for name, t in (("x", x_PD), ("y", y_P)))
    if v < 2:
        raise _refused("x", "nothing but the token 0", "two different tokens or more", path)
    count = y_P.bincount(minlength=n)
    if count.min() < LEAST_OF_CLASS:
        label, strings = int(count.argmin()), int(count.min())
        got = f"{strings} string{'s' if strings != 1 else ''} of class {label}"
        raise _refused("y", got, f"{LEAST_OF_CLASS} or more of each class from 0 to {n - 1}", path)
    dtype = next(t for t in (torch.uint8, torch.int16, torch.int32) if max(v, n) - 1 <= torch.iinfo(t).max)
    task = OwnTask(v, n, s, depth_of(x_PD.shape[1], s), len(x_PD), fingerprint(x_PD, y_P))
    return x_PD.to(dtype), y_P.to(dtype), task


def _integers(name: str, given: Any, axes: int, path: str | None) -> Tensor:
    """As int64."""
    allowed = UNEQUAL if name == "x" else "a row of labels, an integer for each string"
    try:
        numbers = given if isinstance(given, Tensor) else torch.from_numpy(np.array(given))
    except (ValueError, TypeError):  # rows of unequal length, or no numbers
        raise _refused(name, f"a {type(given).__name__} that is no array of numbers", allowed, path) from None
    if numbers.dim() != axes or not numbers.numel():
        raise _refused(name, f"the shape {list(numbers.shape)}", allowed, path)
    if numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool:
        raise _refused(name, str(numbers.dtype).removeprefix("torch."), "integers from 0", path)
    check_memory("data.path" if path else f"data.{name}", f"{len(numbers):,} strings", "they", 8 * 2 * numbers.numel())
    return numbers.detach().cpu().long()


def _range(name: str, numbers: Tensor, path: str | None) -> int:
    """How many symbols there are, from 0 to the largest."""
    least, most = int(numbers.min()), int(numbers.max())
    if least < 0 or most >= MOST_RULES:
        kind = "tokens" if name == "x" else "labels"
        raise _refused(name, f"{kind} from {least} to {most}", f"integers from 0, below {MOST_RULES}", path)
    return most + 1


def _refused(name: str, got: str, allowed: str, path: str | None) -> InvalidInput:
    """By the name of the file, or of the tensor."""
    return (
        InvalidInput("data.path", f"{path} with {name}: {got}", allowed) if path else InvalidInput(f"data.{name}", got, allowed)
    )


def depth_of(length: int, s: int) -> int:
    """``L`` of strings of ``s**L`` tokens.

    Raises:
        InvalidInput: there is none.
    """
    roots = {depth: round(length ** (1 / depth)) for depth in range(1, length.bit_length())}
    bases = {base: depth for depth, base in roots.items() if base**depth == length}
    if s not in bases:
        fits = " or ".join(map(str, sorted(bases))) or "none"
        raise InvalidInput("data.s", s, f"a number whose power is the length of the strings, {length}: {fits}")
    return bases[s]


def fingerprint(x_PD: Tensor, y_P: Tensor) -> str:
    """16 letters that tell strings and labels from others."""
    digest = hashlib.blake2b(f"{list(x_PD.shape)}".encode(), digest_size=8)
    for numbers in x_PD, y_P:
        digest.update(numbers.numpy().astype("<i8").tobytes())
    return digest.hexdigest()

"""Notebooks without Jupyter: their cells run from top to bottom, and what they print and draw is written into the file.

python tests/helpers/notebook.py examples/first_curve.ipynb      ``make notebook``
"""

from __future__ import annotations

import ast
import base64
import contextlib
import io
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

NUMBER = re.compile(r"\d+\.\d+")
"""What training has found; other digits are sizes, seeds and symbols, which are the same everywhere."""


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def code(notebook: dict[str, Any]) -> list[str]:
    """The text of each cell of code."""
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def executed(cells: list[str]) -> list[list[dict[str, Any]]]:
    """What each cell puts out, in the format of notebooks, all run in an empty folder and one namespace."""
    names: dict[str, Any] = {"__name__": "notebook"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return [outputs_of(text, names) for text in cells]


def outputs_of(text: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a cell; what it prints, and its last expression as a picture or as text."""
    tree, printed, value = ast.parse(text), io.StringIO(), None
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append({"name": "stdout", "output_type": "stream", "text": lines(printed.getvalue())})
    if hasattr(value, "_repr_png_"):
        data = {"image/png": base64.b64encode(value._repr_png_()).decode()}
        found.append({"data": data, "metadata": {}, "output_type": "display_data"})
    elif value is not None:
        data = {"text/plain": lines(repr(value))}
        found.append({"data": data, "metadata": {}, "output_type": "display_data"})
    return found


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def text_of(outputs: list[dict[str, Any]]) -> str:
    """What a cell has put out, a picture as its kind."""
    parts = []
    for output in outputs:
        data = output.get("data", {})
        parts.append("[image/png]" if "image/png" in data else "".join(output.get("text", data.get("text/plain", ""))))
    return "\n".join(parts)


def differences(ours: str, theirs: str, tolerance: float) -> list[str]:
    """Lines of two texts that differ by more than a tolerance in their decimal numbers, or in anything else."""
    pairs = zip_lines(ours, theirs)
    return [f"{a!r} for {b!r}" for a, b in pairs if not alike(a, b, tolerance)]


def zip_lines(ours: str, theirs: str) -> list[tuple[str, str]]:
    a, b = ours.splitlines(), theirs.splitlines()
    longest = max(len(a), len(b))
    return list(zip(a + ["(no line)"] * (longest - len(a)), b + ["(no line)"] * (longest - len(b)), strict=True))


def alike(ours: str, theirs: str, tolerance: float) -> bool:
    if NUMBER.sub("", ours) != NUMBER.sub("", theirs):
        return False
    pairs = zip(NUMBER.findall(ours), NUMBER.findall(theirs), strict=True)
    return all(abs(float(a) - float(b)) <= tolerance for a, b in pairs)


def rewrite(path: Path) -> None:
    """Run a notebook and keep what its cells put out."""
    notebook = read(path)
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for number, (cell, outputs) in enumerate(zip(cells, executed(code(notebook)), strict=True), 1):
        cell |= {"execution_count": number, "outputs": outputs}
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    rewrite(Path(sys.argv[1]))

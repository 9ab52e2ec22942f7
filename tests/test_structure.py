"""Imports go upward only and never in a circle, and a rule has what the documents say of it."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

from experiments.settings import discover
from rules import LocalRule

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "rhm": set(),
    "networks": {"rhm"},
    "datamodules": {"rhm"},
    "rules": {"rhm", "networks", "datamodules"},
    "callbacks": {"rhm", "networks", "datamodules", "rules"},
    "experiments": {"rhm", "networks", "datamodules", "rules", "callbacks"},
}
ROOMS = ("experiments", "experiments.run", "experiments.study", "experiments.report")
"""Packages of runs, each of which knows those before it; single files above and below them are in the first."""
ABOVE = {"experiments.cli", "experiments.dispatch", "experiments.demo", "experiments.rules", "experiments.describe"}
"""Files of the first that may know all rooms."""


def modules(*packages: str) -> dict[str, Path]:
    """Files of packages and of those in them, by dotted name."""
    found = {}
    for package in packages:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST, name: str, known: set[str], package: bool = False) -> set[str]:
    """Modules among the known that a module imports, wherever in it, also for type hints alone.

    ``from a import b`` is of ``a.b`` where that is a module, else of ``a``; packages on the way are imported before it, but one's
    own package is not counted: its ``__init__`` runs before the module whatever that does.
    """
    here = name.split(".") if package else name.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([*here[: len(here) - node.level + 1], *([node.module] if node.module else [])])
            source = node.module or "" if node.level == 0 else base
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found.add(inner if inner in known else source)
    return {item for item in found & known if item != name}


def graph(files: dict[str, Path]) -> dict[str, set[str]]:
    """For each module those that it imports."""
    known = set(files)
    return {
        name: imports(ast.parse(path.read_text(encoding="utf-8")), name, known, path.name == "__init__.py")
        for name, path in files.items()
    }


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """One shortest way around for each set of modules that reach one another."""
    found, seen = [], set()
    for start in sorted(edges):
        if start in seen:
            continue
        ways, queue = {start: [start]}, [start]
        while queue:
            name = queue.pop(0)
            for other in sorted(edges[name]):
                if other == start:
                    found.append([*ways[name], start])
                    seen |= {*ways[name]}
                    queue = []
                    break
                if other not in ways:
                    ways[other] = [*ways[name], other]
                    queue.append(other)
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_upward_only(package):
    files = modules(package)
    assert files
    for name, path in files.items():
        others = {
            found.split(".")[0]
            for found in imports(ast.parse(path.read_text(encoding="utf-8")), name, set(modules(*MAY_IMPORT)))
        }
        assert others <= MAY_IMPORT[package] | {package}, path


def test_no_import_circle():
    """In the whole tree, imports in functions and for type hints among them."""
    found = circles(graph(modules(*MAY_IMPORT, "benchmarks")))
    assert not found, "\n".join(f"import circle: {' -> '.join(circle)}" for circle in found)


@pytest.mark.parametrize(
    ("edges", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, [["b", "c", "b"]]),
        ({"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"e"}, "e": {"c"}}, [["a", "b", "a"], ["c", "d", "e", "c"]]),
    ],
)
def test_a_circle_is_found_and_named(edges, found):
    assert circles(edges) == found


def test_an_import_is_seen_wherever_it_stands():
    text = """
from a import b, thing
from . import sibling
from ..c import d
def f():
    import e.g
if TYPE_CHECKING:
    from h import Hint
"""
    known = {"a", "a.b", "p.q.sibling", "p.c", "p.c.d", "e", "e.g", "h", "other"}
    assert imports(ast.parse(text), "p.q.me", known) == {"a", "a.b", "p.q.sibling", "p.c.d", "e.g", "h"}


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    there = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for package in MAY_IMPORT
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert sorted(listed) == sorted(there)


def room_of(name: str) -> int:
    return len(ROOMS) if name in ABOVE else max(i for i, room in enumerate(ROOMS) if f"{name}.".startswith(f"{room}."))


def test_a_room_of_experiments_knows_those_before_it_alone():
    """Settings, files and the terminal; one run; many runs; what they say; and above all of them the command line."""
    for name, others in graph(modules("experiments")).items():
        for other in others:
            assert room_of(other) <= room_of(name), f"{name} imports {other}"


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
LONGEST = 60


@pytest.mark.parametrize("package", ["experiments", "benchmarks"])
def test_a_long_function_says_why(package):
    """In its docstring, after the word "Long"."""
    for name, path in modules(package).items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, FUNCTIONS) and node.end_lineno - node.lineno + 1 > LONGEST:
                assert "Long" in (ast.get_docstring(node) or ""), (
                    f"{name}.{node.name} has {node.end_lineno - node.lineno + 1} lines"
                )


def texts_without_encoding(tree: ast.AST) -> list[int]:
    """Lines in which a text is read or written in whatever letters the machine happens to be set to."""

    def is_text(call: ast.Call) -> bool:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        owner = getattr(getattr(call.func, "value", None), "id", "")
        if name in ("run", "Popen", "check_output"):
            return any(word.arg in ("text", "universal_newlines") for word in call.keywords)
        mode = [a.value for a in (*call.args, *(word.value for word in call.keywords)) if isinstance(a, ast.Constant)]
        binary = any(isinstance(text, str) and re.fullmatch("[rwax+]*b[rwax+]*", text) for text in mode)
        return name in ("read_text", "write_text") or (name == "open" and owner not in ("os", "Image") and not binary)

    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and is_text(node)]
    return [call.lineno for call in calls if "encoding" not in {word.arg for word in call.keywords}]


def test_texts_are_utf_8():
    """Wherever they are opened, and whatever the machine is set to; ruff's PLW1514 sees only paths whose type it knows."""
    programs = {"tests.mutations": ROOT / "tests/mutations.py"}
    for name, path in {**modules(*MAY_IMPORT, "benchmarks"), **programs}.items():
        lines = texts_without_encoding(ast.parse(path.read_text(encoding="utf-8")))
        assert not lines, f"{name}: encoding is missing in lines {lines}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("path.read_text()", True),
        ("path.write_text(text)", True),
        ("path.write_text(text, encoding='utf-8')", False),
        ("open(path)", True),
        ("path.open('w')", True),
        ("open(path, 'rb')", False),
        ("path.open(mode='wb')", False),
        ("os.open(path, flags)", False),
        ("subprocess.run(command, text=True)", True),
        ("subprocess.run(command, capture_output=True)", False),
    ],
)
def test_a_text_without_encoding_is_seen(text, found):
    assert bool(texts_without_encoding(ast.parse(text))) == found


RULES = [item for item in discover().values() if issubclass(item, LocalRule)]


@pytest.mark.parametrize("rule", RULES, ids=lambda c: c.__name__)
def test_every_rule_says_where_it_is_from_what_it_sees_and_what_it_knows(rule):
    assert rule.source and rule.__doc__ and rule.locality is not None
    assert rule.knowledge in ("labels", "grammar", "none")
    assert not (rule.knowledge == "none" and (rule.locality.label or rule.locality.error or rule.locality.scalar_error))


def test_the_rules_are_found():
    assert {"Backprop", "DirectFeedbackAlignment", "LayerwiseContrastive"} <= {c.__name__ for c in RULES}

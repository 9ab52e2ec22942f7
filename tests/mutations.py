"""Break each rule's update on purpose, one term at a time, and see which equation notices: ``make test-mutations``.

For every settings file: the functions under ``rules/`` that run in a step are parsed, and each float product, sum and call on a
line that ran is mutated in memory: its sign, one term or factor dropped, or doubled. The rule's oracle cases must then fail.
What no oracle notices survives; a survivor needs a reason in ``tests/mutations.yaml``.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import functools
import inspect
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

import torch
import yaml
from equations import EQUATIONS
from equations.ask import build
from equations.check import Wanted, check, wanted
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rule_helpers import copied

from rules import LocalRule

MARKERS = "<!-- mutations -->", "<!-- /mutations -->"

SURVIVORS = yaml.safe_load((ROOT / "tests" / "mutations.yaml").read_text(encoding="utf-8"))
"""Why a mutant survives: ``function``, ``mutations`` and ``expression`` say which, ``why`` the reason."""

# -------------------------------------------------------------------- mutants

OPERATORS = {
    ast.Add: ("sign", "drop left", "drop right", "double right"),
    ast.Sub: ("sign", "drop left", "drop right", "double right"),
    ast.Mult: ("negate", "drop left", "drop right", "double"),
    ast.Div: ("negate", "drop right", "double"),
    ast.MatMult: ("negate", "double"),
    ast.Pow: ("negate", "double"),
}
SHAPES = "view view_as reshape flatten unflatten transpose permute expand expand_as squeeze unsqueeze size numel"
COPIES = "to contiguous clone detach requires_grad_ get_buffer get_parameter float double long"
RESHAPES = frozenset([*SHAPES.split(), *COPIES.split()])
"""Calls that hand on their numbers as they are: who mutates what they are called on has mutated them."""


REACHED: list[str] = []
"""Mutations of numbers that have taken place in a case: a line may run without the branch of an ``if`` in it."""


class NotANumber(Exception):
    """The mutated expression is no float: shape arithmetic, a dictionary, an index."""


def is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, torch.Tensor) and value.is_floating_point())


def mutated(kind: str, operator: str, left: Any, right: Any = None) -> Any:
    """What stands in a mutant in the place of an expression."""
    true = {
        "Add": lambda: left + right,
        "Sub": lambda: left - right,
        "Mult": lambda: left * right,
        "Div": lambda: left / right,
        "MatMult": lambda: left @ right,
        "Pow": lambda: left**right,
        "USub": lambda: -left,
        "Value": lambda: left,
    }[operator]()
    if not is_number(true):
        if REACHED or true is None:
            return true
        raise NotANumber  # shapes and indices: no need to run the rest of the step
    REACHED.append(kind)
    if kind == "sign":
        return {"Add": lambda: left - right, "Sub": lambda: left + right, "USub": lambda: left}[operator]()
    if kind == "drop left":
        return -right if operator == "Sub" else right
    if kind == "double right":
        return left + 2 * right if operator == "Add" else left - 2 * right
    return {"drop right": lambda: left, "negate": lambda: -true, "double": lambda: 2 * true}[kind]()


builtins.__dict__["__mutated__"] = mutated


@dataclass(frozen=True)
class Site:
    """An expression of a function that can be mutated.

    Attributes:
        index: its place in ``ast.walk`` of the function.
        kind: the mutation.
        line: of the file.
        last: its last line.
        text: its source.
    """

    index: int
    kind: str
    line: int
    last: int
    text: str


def parents_of(tree: ast.AST) -> dict[ast.AST, ast.AST]:
    return {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}


def is_reshape(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RESHAPES


def kinds_of(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> tuple[str, ...]:
    """The mutations of an expression: none where another expression's would be the same."""
    if isinstance(node, ast.BinOp):
        return OPERATORS.get(type(node.op), ())
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
        return ("sign",)
    parent = parents[node]
    if not isinstance(node, ast.Call):
        in_place = isinstance(parent, ast.Call) and isinstance(parent.func, ast.Attribute) and parent.func.attr.endswith("_")
        is_value = isinstance(parent, ast.AugAssign) and node is parent.value
        simple = isinstance(node, ast.Name | ast.Attribute | ast.Subscript)
        return ("negate", "double") if simple and (is_value or (in_place and node in parent.args)) else ()
    linear = isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mult | ast.Div | ast.MatMult)
    negated = isinstance(parent, ast.UnaryOp)
    reshaped = isinstance(parent, ast.Attribute) and is_reshape(parents[parent])
    if isinstance(parent, ast.Expr) or is_reshape(node) or linear or negated or reshaped:
        return ()
    return ("negate", "double")


def skipped(function: ast.FunctionDef, parents: dict[ast.AST, ast.AST], node: ast.AST) -> bool:
    """Decorators, annotations, defaults, slices' bounds and texts are no part of an equation."""
    while node is not function:
        parent = parents[node]
        if parent is function and node not in function.body:
            return True
        if isinstance(parent, ast.Slice | ast.JoinedStr | ast.Raise | ast.Assert | ast.arguments):
            return True
        node = parent
    return False


class Source:
    """A file under ``rules/`` or ``networks/`` and the mutants of its functions."""

    def __init__(self, path: Path):
        self.path, self.text = path, path.read_text(encoding="utf-8")
        names = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        self.module: ModuleType = sys.modules[names]

    def tree(self, qualname: str) -> tuple[ast.Module, ast.FunctionDef]:
        """A fresh tree, and the function in it."""
        module = ast.parse(self.text)
        node: Any = module
        for name in qualname.split("."):
            node = next(n for n in node.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name == name)
        return module, node

    def function(self, qualname: str) -> FunctionType:
        """The function object behind decorators and descriptors."""
        found: Any = self.module
        for name in qualname.split("."):
            found = vars(found)[name]
        if isinstance(found, property):
            found = found.fget
        elif isinstance(found, functools.cached_property):
            found = found.func
        elif isinstance(found, staticmethod | classmethod):
            found = found.__func__
        function = inspect.unwrap(found)
        assert isinstance(function, FunctionType)
        return function

    def sites(self, qualname: str, lines: set[int]) -> list[Site]:
        """What can be mutated on lines that ran."""
        _, function = self.tree(qualname)
        parents, found = parents_of(function), []
        for index, node in enumerate(ast.walk(function)):
            if not isinstance(node, ast.expr) or skipped(function, parents, node):
                continue
            last = node.end_lineno or node.lineno
            if lines.isdisjoint(range(node.lineno, last + 1)):
                continue
            text = " ".join(ast.unparse(node).split())
            found += [Site(index, kind, node.lineno, last, text) for kind in kinds_of(node, parents)]
        return found

    def mutant(self, qualname: str, site: Site) -> CodeType:
        """The code of the function with one expression mutated."""
        module, function = self.tree(qualname)
        parents = parents_of(function)
        node: Any = list(ast.walk(function))[site.index]
        operands, operator = [node], "Value"
        if isinstance(node, ast.BinOp):
            operands, operator = [node.left, node.right], type(node.op).__name__
        elif isinstance(node, ast.UnaryOp):
            operands, operator = [node.operand], "USub"
        head = [ast.Constant(site.kind), ast.Constant(operator)]
        call = ast.Call(ast.Name("__mutated__", ast.Load()), [*head, *operands], [])
        replace(parents[node], node, ast.copy_location(call, node))
        code: Any = compile(ast.fix_missing_locations(module), str(self.path), "exec")
        return next(c for c in codes_in(code) if c.co_qualname == qualname)


def replace(parent: ast.AST, old: ast.AST, new: ast.AST) -> None:
    """Put one child of a node in the place of another."""
    for name, value in ast.iter_fields(parent):
        if value is old:
            setattr(parent, name, new)
        elif isinstance(value, list):
            setattr(parent, name, [new if item is old else item for item in value])


def codes_in(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from codes_in(constant)


# -------------------------------------------------------------------- what runs in a step


@dataclass
class Prepared:
    """An oracle case that is ready: the rule before its step, and what the equation wants.

    Attributes:
        lines: those that ran, by file and outermost function.
    """

    rule: LocalRule
    wants: Wanted
    lines: dict[tuple[Path, str], set[int]] = field(default_factory=lambda: defaultdict(set))

    def check(self) -> None:
        check(copied(self.rule), self.wants)


def prepared(name: str, args: tuple[str, ...], folders: tuple[Path, ...]) -> Prepared:
    """Build a case, see that it passes, and note the lines under ``folders`` that ran."""
    args = (*EQUATIONS[name].small, *args)
    rule = build(name, *args)
    case = Prepared(rule, wanted(EQUATIONS[name], copied(rule), name, args))

    def trace(frame: Any, event: str, _: Any) -> Any:
        path = Path(frame.f_code.co_filename)
        if not any(folder in path.parents for folder in folders):
            return None
        qualname = frame.f_code.co_qualname.split(".<locals>")[0]
        if "<" in qualname:  # a lambda of a table
            return None
        case.lines[path, qualname].add(frame.f_lineno)
        return trace

    sys.settrace(trace)
    try:
        case.check()
    finally:
        sys.settrace(None)
    return case


# -------------------------------------------------------------------- a row of the table


@dataclass
class Row:
    """What became of the mutants of a settings file.

    Attributes:
        counts: of ``values`` (the equation noticed), ``error`` (the mutant could not run) and ``survived``.
        survivors: file, function, line and mutation.
    """

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    survivors: list[tuple[Path, str, Site]] = field(default_factory=list)


def verdict(cases: list[Prepared]) -> str:
    """``values``, ``error``, ``survived``, or ``nothing`` if the mutated expression is no number in any case."""
    REACHED.clear()
    for case in cases:
        try:
            case.check()
        except AssertionError:
            return "values"
        except NotANumber:
            continue
        except Exception:
            return "error"
    return "survived" if REACHED else "nothing"


def row_of(name: str, cases: list[Prepared], chosen: Callable[[Path], bool], progress: Progress) -> Row:
    """Mutate every function that ran in a case and that is chosen, one expression at a time."""
    row, ran = Row(name), defaultdict(set)
    for case in cases:
        for place, lines in case.lines.items():
            ran[place] |= lines
    jobs = []
    for (path, qualname), lines in sorted(ran.items()):
        if chosen(path):
            source = source_of(path)
            jobs += [(source, qualname, site) for site in source.sites(qualname, lines)]
    task = progress.add_task(name, total=len(jobs))
    for source, qualname, site in jobs:
        span = range(site.line, site.last + 1)
        covering = [case for case in cases if not case.lines.get((source.path, qualname), set()).isdisjoint(span)]
        function, mutant = source.function(qualname), source.mutant(qualname, site)
        original = function.__code__
        assert mutant.co_freevars == original.co_freevars
        function.__code__ = mutant
        try:
            found = verdict(covering)
        finally:
            function.__code__ = original
        if found != "nothing":
            row.counts[found] += 1
        if found == "survived":
            row.survivors.append((source.path, qualname, site))
        progress.advance(task)
    progress.remove_task(task)
    for case in cases:
        case.check()  # all is as it was
    return row


@functools.cache
def source_of(path: Path) -> Source:
    return Source(path)


# -------------------------------------------------------------------- all rows

CONTRACT_CASES: list[tuple[str, tuple[str, ...]]] = [
    ("backprop", ()),
    ("backprop", ("--model.clip=0.01",)),
    ("backprop", ("--model.network.bottleneck=3",)),
    ("frozen", ()),
    ("frozen", ("--data.label_size=16",)),
    ("frozen", ("--data.labels=false",)),
    ("forward_dfa", ()),
    ("sibling_contrastive", ()),
]
"""Rules whose steps go through all of the base class."""

NETWORK_CASES: list[tuple[str, tuple[str, ...]]] = [
    ("backprop", ()),
    ("backprop", ("--model.network.bottleneck=3",)),
    ("backprop", ("--model.network.activation=tanh",)),
    ("backprop", ("--model.network=LocallyConnectedNetwork", "--model.network.width=5", "--model.network.bottleneck=3")),
    ("forward_dfa", ("--model.network.bottleneck=3",)),
    ("node_perturbation", ("--model.network.bottleneck=3",)),
    ("feedback_alignment", ("--model.network.bottleneck=3",)),
    ("gevb", ()),
    ("softhebb", ()),
    ("softhebb", ("--model.temperature=0.4", "--model.network.power=0.7")),
    ("scff", ()),
    ("sibling_contrastive", ()),
    ("forward_forward", ()),
    *(("exchange_clustering", args) for args in ((), *EQUATIONS["exchange_clustering"].variants)),
]
"""Rules that use all of the layers' own updates."""


def rows(names: list[str], progress: Progress) -> Iterator[Row]:
    """The base contract and the network once, then each rule's own functions."""
    in_rules, in_networks = (ROOT / "rules",), (ROOT / "networks",)
    contract = {path for path, _ in prepared("frozen", (), in_rules).lines} - {ROOT / "rules" / "frozen.py"}
    whole = progress.add_task("all", total=len(names))
    for name in names:
        if name == "contract":
            cases = [prepared(*case, in_rules) for case in CONTRACT_CASES if case[0] in EQUATIONS]
            yield row_of(name, cases, lambda path: path in contract, progress)
        if name == "networks":
            cases = [prepared(*case, in_networks) for case in NETWORK_CASES if case[0] in EQUATIONS]
            yield row_of(name, cases, lambda path: True, progress)
        if name in EQUATIONS:
            cases = [prepared(name, args, in_rules) for args in ((), *EQUATIONS[name].variants)]
            yield row_of(name, cases, lambda path: path not in contract, progress)
        progress.advance(whole)


def explain(path: Path, qualname: str, site: Site) -> str | None:
    """The reason that ``tests/mutations.yaml`` gives for a survivor."""
    for known in SURVIVORS:
        if (known["function"], known["expression"]) == (qualname, site.text) and site.kind in known["mutations"]:
            return str(known["why"])
    return None


def report(found: list[Row], console: Console) -> bool:
    """The table in the terminal; whether every survivor has a reason."""
    table = Table("rule", "mutants", "caught by values", "caught by an error", "survived")
    for row in found:
        table.add_row(row.name, *(str(n) for n in numbers_of(row)))
    console.print(table)
    explained = True
    for row in found:
        for path, qualname, site in row.survivors:
            reason = explain(path, qualname, site)
            explained &= reason is not None
            place = f"{path.relative_to(ROOT)}:{site.line} {qualname}"
            console.print(f"{row.name}: {place}: {site.kind}: {site.text}: {reason or 'NOT EXPLAINED'}", markup=False)
    return explained


def numbers_of(row: Row) -> list[int]:
    return [row.counts.total(), row.counts["values"], row.counts["error"], row.counts["survived"]]


def markdown(found: list[Row]) -> str:
    """The table, and survivors with their reasons, once each."""
    lines = ["| rule | mutants | caught by values | caught by an error | survived |", "|---|---|---|---|---|"]
    lines += [f"| {row.name} | {' | '.join(str(n) for n in numbers_of(row))} |" for row in found]
    totals = [sum(column) for column in zip(*map(numbers_of, found), strict=True)]
    lines += [f"| all | {' | '.join(str(n) for n in totals)} |", ""]
    reasons = defaultdict(set)
    for row in found:
        for path, qualname, site in row.survivors:
            key = f"`{path.relative_to(ROOT)}` `{qualname}`, {site.kind} in `{site.text}`"
            reasons[key, explain(path, qualname, site) or "not explained"].add(row.name)
    if reasons:
        lines += ["| survivor | in | why |", "|---|---|---|"]
    for (key, reason), names in sorted(reasons.items()):
        lines.append(f"| {key.replace('|', chr(92) + '|')} | {', '.join(sorted(names))} | {reason} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rules", nargs="*", help="settings files, contract, networks; all by default")
    parser.add_argument("--out", type=Path, help="write the table between two marker lines of this file")
    asked = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    console = Console()
    with Progress(console=console, transient=True) as progress:
        found = list(rows(asked.rules or ["contract", "networks", *sorted(EQUATIONS)], progress))
    explained = report(found, console)
    if asked.out is not None:
        text = asked.out.read_text(encoding="utf-8")
        start, end = (text.index(marker) for marker in MARKERS)
        asked.out.write_text(text[: start + len(MARKERS[0])] + "\n" + markdown(found) + "\n" + text[end:], encoding="utf-8")
    return 0 if explained else 1


if __name__ == "__main__":
    sys.exit(main())

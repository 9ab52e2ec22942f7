"""``rhm describe``: what a task is, before anything is trained on it."""

from __future__ import annotations

import math

import torch
from rich.table import Table
from rich.tree import Tree

from datamodules.rhm_datamodule import task_of
from experiments.files import new_file, writing
from experiments.settings import DATA
from experiments.terminal import wide_console
from rhm import Derivation, InvalidInput, RandomHierarchyModel, SparseHierarchyModel, SparseTask, Task
from rhm.frequencies import Frequencies
from rhm.grammar_file import TASK, read_grammar

MOST_NODES = 100
"""Hidden symbols of a tree that fits on a screen, as many times as each has positions."""
MOST_FREQUENCIES = 8
"""Of a level, in a row of a table."""
MANY_NODES = 10**5
"""With more, the number of strings has too many digits to be computed for a table."""


def describe(
    v: int = DATA["v"],
    n: int = DATA["n"],
    m: int = DATA["m"],
    s: int = DATA["s"],
    L: int = DATA["L"],
    seed: int = 0,
    string: int = 0,
    json: str | None = None,
    grammar: str | None = None,
    silent: int = DATA["silent"],
) -> None:
    """Print a task's size, what theory says of it, and one of its strings as a tree.

    Args:
        v: vocabulary size.
        n: number of classes.
        m: synonyms, rules of each symbol.
        s: tuple size.
        L: depth.
        seed: of the grammar, and of the numbers of its strings.
        string: number of the string that is drawn.
        json: also write the grammar to this file.
        grammar: take the grammar of this file, and its sizes.
        silent: silent positions beside each symbol of a string.
    """
    model = _model(dict(zip(TASK, (v, n, m, s, L), strict=True)), seed, grammar)
    if not 0 <= string < model.index_range:
        raise InvalidInput("string", string, f"0 to {model.index_range - 1}")
    if json is not None:
        new_file("json", json, (".json",))
    console = wide_console()
    sparse = SparseHierarchyModel(model, silent)
    console.print_table(_facts(sparse.task, model.frequencies))
    if model.task.nodes * (silent + 1) <= MOST_NODES:
        console.print(_tree(sparse.sample(torch.tensor([string])), sparse.task, string))
    else:
        among = " among silent ones" if silent else ""
        console.print(f"(string {string} has {model.task.nodes:,} hidden symbols{among}: too many to draw as a tree)")
    if json is not None:
        with writing("json", json, "file"):
            model.to_json(json)
        console.print(f"grammar written to {json}", soft_wrap=True)


def _model(sizes: dict[str, int], seed: int, grammar: str | None) -> RandomHierarchyModel:
    file = None if grammar is None else read_grammar(grammar)
    task = Task(**sizes) if file is None else task_of(file, grammar, sizes)
    unequal = {} if file is None else file.frequencies
    model = RandomHierarchyModel(task.v, task.n, task.m, task.s, task.L, seeds=[seed], frequencies=unequal)
    if file is not None:
        model.take_rules(file.rules)
    return model


def _facts(sizes: SparseTask, frequencies: Frequencies) -> Table:
    task, S0 = sizes.informative, sizes.silent
    sparse = f" S0={S0}" if S0 else ""
    table = Table(title=f"Random Hierarchy Model v={task.v} n={task.n} m={task.m} s={task.s} L={task.L}{sparse}")
    table.add_column("quantity", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("meaning")
    if S0:
        share = f"tokens of a string, of which 1 in (S0 + 1)^L = {(S0 + 1) ** task.L:,} is informative"
        table.add_row("d = (s (S0 + 1))^L", f"{sizes.length:,}", share)
    else:
        table.add_row("d = s^L", f"{task.length:,}", "tokens of a string")
    P_max = _number(task.P_max) if task.nodes < MANY_NODES else f"about 10^{task.nodes * math.log10(task.m):.0f}"
    table.add_row("P_max", P_max, "strings in all, n m^((s^L-1)/(s-1))")
    table.add_row("chance", f"{task.chance:.4f}", "accuracy of guessing, 1/n")
    supervised = "order of the strings that a supervised deep network needs"
    if S0:
        shared = f"{supervised}, with (S0 + 1)^L where positions share no weights"
        table.add_row("n m^L (S0 + 1)^2", _number(task.supervised_complexity * (S0 + 1) ** 2), shared)
    else:
        table.add_row("n m^L", _number(task.supervised_complexity), supervised)
        table.add_row("v m^3", _number(task.self_supervised_complexity), "order of the strings that latent prediction needs")
    table.add_row("n m ln 10", f"{task.coverage_floor:.0f}", "below, over 10 % of the root's rules stay unseen")
    signal = "yes" if task.unlabelled_signal or frequencies else "no"
    table.add_row("unlabelled signal", signal, "do strings without labels tell of the grammar (not if m = v^(s-1), n = v)?")
    for level in sorted(frequencies, reverse=True):
        shown = " ".join(f"{frequency:.3g}" for frequency in frequencies[level][:MOST_FREQUENCIES])
        more = " ..." if task.m > MOST_FREQUENCIES else ""
        table.add_row(f"level {level}", shown + more, "frequencies of a symbol's rules, first to last")
    return table


def _number(x: int) -> str:
    return f"{x:,}" if x < 10**12 else f"{x:.3e}" if x < 10**300 else f"about 10^{x.bit_length() * math.log10(2):.0f}"


def _tree(derivation: Derivation, task: SparseTask, string: int) -> Tree:
    """Symbols below symbols; a dot is a silent position, with all that stands below it."""
    symbols = [level[0, 0].tolist() for level in derivation.symbols]

    def grow(branch: Tree, level: int, position: int) -> None:
        if level == 0:
            return
        for child in range(position * task.s, (position + 1) * task.s):
            symbol = symbols[level - 1][child]
            if symbol == task.silence:
                branch.add("·")
            else:
                grow(branch.add(f"{symbol}"), level - 1, child)

    root = Tree(f"string {string}: class {symbols[-1][0]} (level {task.L}); below, level by level, down to the tokens")
    grow(root, task.L, 0)
    return root

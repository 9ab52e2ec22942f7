"""``python -m benchmarks.floor``: strings that tell the root's rules, the best accuracy where tokens are replaced, and grammars
two of whose symbols have the same siblings.

Shape suffixes: T trial, N class; R replica, B string, D position; A symbol, P rule, E pair of symbols, O sibling.
"""

from __future__ import annotations

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from rhm import RandomHierarchyModel, Task
from rhm.hashing import fold
from rhm.noise import replaced
from rhm.posterior import class_posterior

SHARE = 0.01
"""Of the chance error."""
TRIALS = 4000
GRAMMARS = 4000


def errors(n: int, m: int, P: int, trials: int = TRIALS) -> tuple[float, float]:
    """The least expected test errors after ``P`` strings where all symbols below the root are known.

    A root's rule that was seen is known. Of one that was not, either nothing is: all classes are as likely. Or that each class
    has ``m`` rules: then it belongs to a class of which fewer have been seen, the likelier the more are missing.

    Args:
        n, m: classes, and rules of each.
        P: strings.
        trials: draws of strings, by which the second is estimated.

    Returns:
        The error without and with this elimination.
    """
    rng = np.random.default_rng(0)
    seen = np.zeros((trials, n * m), bool)
    np.put_along_axis(seen, rng.integers(n * m, size=(trials, P)), True, axis=1)
    missing_TN = m - seen.reshape(trials, n, m).sum(-1)
    eliminated_T = (missing_TN.sum(-1) - missing_TN.max(-1)) / (n * m)
    return (1 - 1 / (n * m)) ** P * (1 - 1 / n), float(eliminated_T.mean())


def strings(n: int, m: int) -> tuple[int, int]:
    """How many strings bring each of the two errors to a hundredth of the chance error."""
    found = []
    for which in (0, 1):
        low, high = 1, 20 * n * m  # the error falls with every string
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if errors(n, m, middle)[which] <= SHARE * (1 - 1 / n) else (middle + 1, high)
        found.append(low)
    return found[0], found[1]


def best_accuracies(L: int, noise: float, seeds: int = 5, strings: int = 4096) -> list[float]:
    """Of one who knows the grammar, v=n=8, m=4, s=2: the largest share of replaced strings whose class anybody can name."""
    model = RandomHierarchyModel(v=8, n=8, m=4, s=2, L=L, seeds=tuple(range(seeds)))
    derivation = model.sample(torch.arange(strings).expand(seeds, -1))
    key_RB = fold(torch.arange(seeds)[:, None], "noise") + torch.arange(strings)
    shown_RBD = replaced(derivation.symbols[0], 8, noise, fold(key_RB, "string"))
    right_RB = class_posterior(model, shown_RBD, noise).argmax(-1) == derivation.symbols[L][..., 0]
    return right_RB.double().mean(1).tolist()


def with_alike(model: RandomHierarchyModel) -> torch.Tensor:
    """Which grammars have two symbols of a level below the root with the same siblings, left and right: bool ``[R]``.

    Each symbol is the same share of the siblings of both, on either side, in the strings of all classes. A rule that learns
    from siblings alone is told nothing that would tell them apart, however many strings it is shown.

    Raises:
        ValueError: tuples of three and more.
    """
    task, R = model.task, model.replicas
    if task.s != 2:
        raise ValueError(f"tuples of {task.s}, not of two")
    found_R = torch.zeros(R, dtype=torch.bool)
    often_RA = torch.full((R, task.n), 1 / task.n, dtype=torch.float64)  # how frequent symbols of the level above are
    for level in range(task.L, 1, -1):
        pairs_RP2 = model.rules(level).long().flatten(1, 2)
        pair_RP = pairs_RP2[..., 0] * task.v + pairs_RP2[..., 1]
        beside_RE = torch.zeros(R, task.v**2, dtype=torch.float64)
        beside_RE.scatter_add_(1, pair_RP, often_RA.repeat_interleave(task.m, 1) / task.m)
        beside_RAA = beside_RE.unflatten(1, (task.v, task.v))
        siblings_RAO = torch.cat([beside_RAA, beside_RAA.transpose(1, 2)], 2)
        often_RA = siblings_RAO.sum(2) / 2
        share_RAO = siblings_RAO / siblings_RAO.sum(2, keepdim=True)  # NaN, and so like no other, of a symbol that never occurs
        alike_RAA = (share_RAO[:, :, None] - share_RAO[:, None]).abs().amax(-1) < 1e-9
        found_R |= alike_RAA.triu(1).flatten(1).any(1)
    return found_R


def main() -> None:
    """Print the floors of docs/near-the-floor.md and docs/findings.md."""
    table = Table("m (n = 8)", "n m ln 10", f"an error of {SHARE:g}, guessed", "by elimination")
    for m in range(2, 7):
        table.add_row(str(m), f"{Task(v=8, n=8, m=m, s=2, L=2).coverage_floor:.0f}", *map(str, strings(8, m)))
    Console().print(table)
    table = Table("noise (v = n = 8, m = 4)", "L = 3: best accuracy", "L = 4")
    for noise in 0.05, 0.1, 0.2:
        cells = [best_accuracies(L, noise) for L in (3, 4)]
        table.add_row(f"{noise:g}", *(f"{np.mean(own):.3f} ± {np.std(own, ddof=1):.3f}" for own in cells))
    Console().print(table)
    table = Table("m (v = n = 8, s = 2)", "L = 2: grammars with two symbols that have the same siblings", "L = 4", "L = 8")
    for m in range(2, 9):
        shares = [with_alike(RandomHierarchyModel(8, 8, m, 2, L, tuple(range(GRAMMARS)))).double().mean() for L in (2, 4, 8)]
        table.add_row(str(m), *(f"{share:.2%}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    main()

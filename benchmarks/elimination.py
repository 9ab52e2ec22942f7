"""``python -m benchmarks.elimination``: what elimination saves a rule that counts, whose readout does not eliminate.

Exchange clustering, with the class as context, finds the two codes below the root of each string. Their class is then read in
three ways: by the run's own readout, a linear one; from a table of the pairs in training strings, by a guess where a pair is
not in it; and in place of the guess the class of which the fewest pairs have been seen, as each has as many rules.

Shape suffixes: R replica, B string, D position, C pair of codes, N class.
"""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from datamodules import RHMDataModule, SiblingPairs
from networks import CodeNetwork
from rules.exchange_clustering import ExchangeClustering

SIZES = [74, 96, 111, 128, 160, 181, 224]
SEEDS = list(range(100, 110))
SMALL = 0.99
"""A share of test strings that is counted as all."""


def read_off(
    pair_RB: Tensor, y_RB: Tensor, size_R: Tensor, test_RB: Tensor, answer_RB: Tensor, n: int, pairs: int
) -> list[Tensor]:
    """Share of test strings whose class a table of pairs of codes tells, by a guess and by elimination of what it lacks.

    Args:
        pair_RB, y_RB: pair of codes of each training string, ``C`` many, and its class.
        size_R: strings that each replica has: the first so many.
        test_RB, answer_RB: the same of test strings.
        n, pairs: how many classes and pairs of codes, ``N`` and ``C``, there are.

    Returns:
        Expected accuracies ``[R]`` of the two.
    """
    has_RB = torch.arange(pair_RB.shape[1]) < size_R[:, None]
    counts_RCN = torch.zeros(len(pair_RB), pairs, n)
    counts_RCN.view(len(pair_RB), -1).scatter_add_(1, pair_RB * n + y_RB, has_RB.float())
    seen_RC, class_RC = counts_RCN.sum(-1) > 0, counts_RCN.argmax(-1)
    lacking_R1 = (functional.one_hot(class_RC, n) * seen_RC[..., None]).sum(1).argmin(-1, keepdim=True)
    known_RB = seen_RC.gather(1, test_RB)
    right_RB = (class_RC.gather(1, test_RB) == answer_RB).float()
    others = torch.full_like(right_RB, 1 / n), (lacking_R1 == answer_RB).float()
    return [torch.where(known_RB, right_RB, other_RB).mean(1) for other_RB in others]


def codes(rule: ExchangeClustering, index: Tensor) -> tuple[Tensor, Tensor]:
    """The pair of codes below the root of the strings of these numbers, and their classes, both ``[R, B]``."""
    strings = rule.data.strings(index)
    out_RBDC = rule(strings.x_RBD)[-2].out_RBDC
    left_RB, right_RB = out_RBDC.argmax(-1).unbind(-1)
    return left_RB * out_RBDC.shape[-1] + right_RB, strings.y_RB.long()


def accuracies(steps: int = 600) -> list[Tensor]:
    """Of a run of v=n=8, m=4, s=2, L=4: of its own readout, and of the two tables, ``[R]`` each, sizes one after another."""
    data = RHMDataModule(L=4, train_size=SIZES, seeds=SEEDS, pairs=SiblingPairs(), batch_size=64, test_size=1024)
    rule = ExchangeClustering(CodeNetwork(64), label_context=True)
    trainer = pl.Trainer(
        max_steps=steps, max_epochs=-1, num_sanity_val_steps=0, limit_val_batches=0, logger=False, enable_checkpointing=False
    )
    trainer.fit(rule, data)
    trainer.test(rule, data, verbose=False)
    with torch.no_grad():
        train, test = codes(rule, torch.arange(max(SIZES))), codes(rule, torch.arange(*data.test_range))
    size_R = torch.tensor(data.replica_sizes)
    return [rule.test_accuracy_R, *read_off(*train, size_R, *test, data.task.n, data.task.v**2)]


def main() -> None:
    """Print the table of docs/near-the-floor.md."""
    table = Table(
        "strings", *(f"{name}: mean ± std, of ten" for name in ("linear readout", "table, guessed", "table, eliminated"))
    )
    rows = [values_R.view(len(SEEDS), len(SIZES)) for values_R in accuracies()]
    for i, size in enumerate(SIZES):
        own = [values[:, i] for values in rows]
        table.add_row(str(size), *(f"{a.mean():.3f} ± {a.std():.3f}, {int((a >= SMALL).sum())}" for a in own))
    Console().print(table)


if __name__ == "__main__":
    main()

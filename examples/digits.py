"""Handwritten digits as strings, an example of data of one's own: ``make digits``, and ``docs/own-data.md`` says what it finds.

    python examples/digits.py write FILE.npz     scikit-learn's 1,797 digits of 8 x 8 pixels
    python examples/digits.py linear FILE.yaml   a linear classifier of the pixels, on the splits of these settings

Shape suffixes: P string, D position, F inputs.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from datamodules import StringsDataModule
from experiments.settings import instantiate

LEVELS = 4
"""Of grey, in place of 17."""


def quadtree(size: int) -> np.ndarray:
    """Pixels of a square image, row by row, in the order of a quadtree: four neighbours are a square, and so on upwards."""
    order = np.arange(size * size).reshape(size, size)
    while size > 1:
        size //= 2
        order = order.reshape(size, 2, size, 2, -1).transpose(0, 2, 1, 3, 4).reshape(size, size, -1)
    return order.ravel()


def write(path: Path) -> None:
    """Strings of ``4**3`` tokens in ``LEVELS`` levels of grey, with the digits as labels."""
    images, labels = load_digits(return_X_y=True)
    x_PD = (images * LEVELS // 17).astype(np.uint8)[:, quadtree(8)]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, x=x_PD, y=labels)
    print(f"{len(x_PD):,} strings of {x_PD.shape[1]} tokens in {path}")


def linear(settings: Path) -> None:
    """Test accuracy of logistic regression on the tokens, one-hot, for each replica of the settings."""
    data = instantiate([f"--config={settings}", "--model=Backprop"]).data
    assert isinstance(data, StringsDataModule)
    found: dict[int, list[float]] = {}
    for r, size in enumerate(data.replica_sizes):
        assert size is not None
        (x_PF, y_P), (tested_PF, labels_P) = (one_hot(data, r, start, end) for start, end in ((0, size), data.test_range))
        model = LogisticRegression(max_iter=1000).fit(x_PF, y_P)
        found.setdefault(size, []).append(float(model.score(tested_PF, labels_P)))
    for size, accuracies in found.items():
        print(f"linear, {size:,} strings: {statistics.fmean(accuracies):.3f} ± {statistics.stdev(accuracies):.3f}")


def one_hot(data: StringsDataModule, r: int, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of a replica's strings from one number to another."""
    derivation = data.strings(torch.arange(start, end))
    codes = torch.nn.functional.one_hot(derivation.x_RBD[r].long(), data.task.v)
    return codes.flatten(1).numpy(), derivation.y_RB[r].numpy()


if __name__ == "__main__":
    {"write": write, "linear": linear}[sys.argv[1]](Path(sys.argv[2]))

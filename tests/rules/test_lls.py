"""Local learning by synchronization: class vectors are what the paper's code makes of a class and a place.

Shape suffixes: N classes, F numbers of a layer.
"""

from __future__ import annotations

import math

import pytest
import torch

from rhm import InvalidInput
from rules.lls import LocalSynchronization, class_vectors


def test_class_vectors_are_sines_of_evenly_spaced_frequencies():
    vectors = class_vectors(8, 300)
    for n, f in ((0, 0), (0, 299), (3, 17), (7, 1), (7, 299)):
        assert vectors[n, f] == pytest.approx(math.sin((50 + n * (512 - 50) / 7) * f), abs=1e-5)


def test_class_vectors_are_nearly_orthogonal():
    vectors = torch.nn.functional.normalize(class_vectors(8, 1024), dim=1)
    assert ((vectors @ vectors.T).fill_diagonal_(0).abs() < 0.15).all()


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(InvalidInput, match="model.temperature"):
        LocalSynchronization(temperature=0.0)

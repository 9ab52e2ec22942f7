"""Integers of the data in whatever form they are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datamodules import RHMDataModule
from datamodules.numbers import said
from rhm import InvalidInput


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (3, [3]),
        (np.int64(3), [3]),
        (3.0, [3]),
        ("3", [3]),
        (range(3), [0, 1, 2]),
        ((4, 2), [4, 2]),
        ([np.int64(2), 1e1, np.float32(5), "1e2", torch.tensor(7.0)], [2, 10, 5, 100, 7]),
        (np.arange(3), [0, 1, 2]),
        (torch.arange(3), [0, 1, 2]),
        (2**63 - 1, [2**63 - 1]),
        (str(2**53 + 1), [2**53 + 1]),
    ],
)
def test_seeds_and_sizes_are_integers_in_whatever_form(given, kept):
    data = RHMDataModule(seeds=given, train_size=1e3)
    assert data.replica_seeds == kept and data.replica_sizes == [1000] * len(kept)
    assert {type(seed) for seed in data.replica_seeds} == {int}
    if 0 not in kept and max(kept) < 5000:
        data = RHMDataModule(train_size=given)
        assert data.replica_sizes == kept and {type(size) for size in data.replica_sizes} == {int}


def test_numbers_of_strings_are_kept_as_integers():
    data = RHMDataModule(batch_size="1e1", test_size=np.int64(64), probe_size=32.0, eval_batch_size="16")
    kept = (
        data.batch_size,
        data.test_range[1] - data.test_range[0],
        data.probe_range[1] - data.probe_range[0],
        data.eval_batch_size,
    )
    assert kept == (10, 64, 32, 16) and {*map(type, kept)} == {int}


def test_one_size_is_kept_as_a_number_and_one_seed_in_a_list():
    assert said({"train_size": [64.0], "seeds": "7", "label_size": range(2, 4)}) == {
        "train_size": 64,
        "seeds": [7],
        "label_size": [2, 3],
    }


@pytest.mark.parametrize("key", ["v", "L", "seeds", "train_size", "label_size", "batch_size", "test_size", "eval_batch_size"])
@pytest.mark.parametrize("value", [1.5, True, "abc", float("nan"), float("inf"), [1.5], [True], [None], {}, object(), [[1]]])
def test_what_is_no_integer_is_refused_by_its_name(key, value):
    with pytest.raises(InvalidInput) as caught:
        RHMDataModule(**{key: value})
    assert caught.value.key == f"data.{key}" and "\n" not in str(caught.value)

"""Names tell shapes: each file's legend, and the check that looks at all that the tests run (``tests/conftest.py``)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import shape_watch
import torch
from shape_watch import PACKAGES, WatchingLoader
from suffixes import axes_of, held_by, legend_mistakes, shape_mistakes
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
FILES = sorted(path.relative_to(ROOT) for folder in (*PACKAGES, "benchmarks") for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_legend_names_the_letters_that_the_file_uses_and_no_other(path):
    assert legend_mistakes((ROOT / path).read_text()) == []


def test_files_were_found_in_every_package():
    assert {path.parts[0] for path in FILES} == {*PACKAGES, "benchmarks"}


# -------------------------------------------------------------------- the check itself

LEGEND = '"""Words.\n\nShape suffixes: R replica, B batch (strings);\nF = 2 C inputs.\n"""\n'


@pytest.mark.parametrize(
    ("source", "mistakes"),
    [
        (LEGEND + "x_RBF = 1", []),
        (LEGEND + "a.x_R1 = 1\ndef f(y_RB): g(z_F=1)", []),
        (LEGEND + "x_RF = y.z_RBD", ["D of z_RBD is missing"]),
        (LEGEND + "f_RB = 1", ["F is in no name"]),
        (LEGEND + "f('x_RBF', 'y_KR')", ["K of y_KR is missing"]),
        (LEGEND.replace("F =", "B =") + "x_RB = 1", ["B stands twice"]),
        ("x_RB = 1", ["B of x_RB is missing", "R of x_RB is missing"]),
        ("MOST_R = P_max = x.T = x2 = 1", []),
    ],
)
def test_a_legend_that_lacks_a_letter_or_has_one_too_many_is_reported(source, mistakes):
    assert legend_mistakes(source) == mistakes


def test_which_names_have_a_suffix():
    names = ["x_RBD", "bias_RG1E", "_keys_R", "feedback_2_weight_RGFE", "two_words_K"]
    assert [axes_of(name) for name in names] == ["RBD", "RG1E", "R", "RGFE", "K"]
    assert not any(axes_of(name) for name in ("x", "x_1", "P_max", "TASK_L", "MOST_RULES", "x_Rb", "R", "setUp", "x_RBD2"))


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


@pytest.mark.parametrize(
    ("named", "mistakes"),
    [
        ({"x_RBD": zeros(2, 3, 4), "y_RB": zeros(2, 3), "R": 2, "other": zeros(7)}, []),
        ({"x_RBD": zeros(2, 3)}, ["x_RBD is [2, 3]"]),
        ({"x_R": np.zeros((2, 1))}, ["x_R is [2, 1]"]),
        ({"x_RB": zeros(2, 3), "y_BR": zeros(2, 3)}, ["B is 3 in x_RB and 2 in y_BR", "R is 2 in x_RB and 3 in y_BR"]),
        ({"x_CC": zeros(2, 3)}, ["C is 2 in x_CC and 3 in x_CC"]),
        ({"x_RB": zeros(2, 3), "mean_RB": zeros(2, 1)}, []),
        ({"mean_RB": zeros(2, 1), "x_RB": zeros(2, 3), "y_RB": zeros(2, 4)}, ["B is 3 in x_RB and 4 in y_RB"]),
        ({"x_R1": zeros(2, 1)}, []),
        ({"x_R1": zeros(2, 3)}, ["1 is 1 in x_R1 and 3 in x_R1"]),
        ({"x_RB": zeros(2, 3), "B": 4}, ["B is 4 and, in x_RB, 3"]),
        ({"xs_RB": [zeros(2, 3), zeros(2, 4)], "each_R": {"a": zeros(2), "b": None}}, []),
        ({"xs_RB": (zeros(2, 3), zeros(2))}, ["xs_RB holds tensors of [1, 2] axes"]),
        ({"each_R": {"a": zeros(2, 3)}}, ["each_R holds tensors of [2] axes"]),
        ({"x_RB": None, "y_RB": 3, "keys_R": len}, []),
    ],
)
def test_another_rank_and_unequal_sizes_are_reported(named, mistakes):
    assert sorted(shape_mistakes(named)) == mistakes


class Held(NamedTuple):
    x_RB: Tensor
    y_R: Tensor


def test_fields_belong_together_and_parameters_stand_by_themselves():
    assert held_by(Held(zeros(2, 3), zeros(2)))[0].keys() == {"x_RB", "y_R"}
    assert [shape_mistakes(group) for group in held_by(Held(zeros(2, 3), zeros(3)))] == [["R is 2 in x_RB and 3 in y_R"]]
    module = nn.Module()
    module.register_parameter("weight_RF", nn.Parameter(zeros(2, 3)))
    module.register_buffer("other_RF", zeros(2, 4))
    module.register_buffer("mean_R", zeros(2, 4))
    assert [shape_mistakes(group) for group in held_by(module)] == [["mean_R is [2, 4]"]]
    assert held_by(zeros(2)) == held_by((zeros(2),)) == []


SOURCE = '''
from __future__ import annotations
import torch

def right(x_RB):
    """Documented."""
    return x_RB.sum()

def wrong_rank(x_RB):
    mean_R = x_RB.mean(1, keepdim=True)
    return mean_R

def two_sizes(x_RB):
    y_RB = torch.cat([x_RB, x_RB], 1)

def raises(x_RB):
    y_RB = x_RB[0]
    raise KeyError

def while_handling(x):
    try:
        raise KeyError
    except KeyError:
        return wrong_rank(x)

def means_R(x):
    if x is None:
        return None
    def inner():
        y_RB = x
        return y_RB
    return inner().mean(1)[None]

def holds(held, y_R):
    pass

def promised(x_RB):
    """Only documented."""

class Thing:
    @property
    def sizes_R(self):
        return torch.zeros(2, 3)

    def plain(self, x):
        return [x_RB for x_RB in x]
'''


@pytest.fixture
def module(tmp_path):
    path = tmp_path / "thing.py"
    path.write_text(SOURCE)
    loader = WatchingLoader("thing", str(path))
    made = importlib.util.module_from_spec(importlib.util.spec_from_file_location("thing", path, loader=loader))
    loader.exec_module(made)
    assert not list(tmp_path.rglob("*.pyc"))
    yield made
    for names in shape_watch.watched, shape_watch.reached:
        names -= {name for name in names if name.startswith("thing.")}


def taken() -> list[str]:
    """What the watch has found, before the fixture of all tests sees it."""
    found, _ = list(shape_watch.mistakes), shape_watch.mistakes.clear()
    return found


def test_a_function_is_looked_at_as_it_ends_and_is_otherwise_as_it_was(module):
    x = zeros(2, 3)
    assert module.right(x) == 0 and module.right.__doc__ == "Documented." and taken() == []
    assert {name for name in shape_watch.reached if name.startswith("thing.")} == {"thing.right"}
    assert module.wrong_rank(x).shape == (2, 1) and taken() == ["thing.wrong_rank: mean_R is [2, 1]"]
    assert module.two_sizes(x) is None and taken() == ["thing.two_sizes: B is 3 in x_RB and 6 in y_RB"]
    with pytest.raises(KeyError) as caught:
        module.raises(x)
    assert caught.traceback[-1].lineno + 1 == SOURCE.splitlines().index("    raise KeyError") + 1
    assert taken() == []
    assert module.while_handling(x).shape == (2, 1) and taken() == ["thing.wrong_rank: mean_R is [2, 1]"]


def test_a_function_is_looked_at_in_its_first_calls_of_each_test(module):
    for _ in range(shape_watch.LOOKS - 1):
        module.right(zeros(2, 3))
    assert module.right(zeros(2)) == 0 and taken() == ["thing.right: x_RB is [2]"]
    assert module.right(zeros(2)) == 0 and taken() == []
    shape_watch.looks.clear()  # as before every test
    assert module.right(zeros(2)) == 0 and taken() == ["thing.right: x_RB is [2]"]


def test_what_a_function_with_a_suffix_returns_has_its_shape(module):
    assert module.means_R(None) is None and taken() == []
    assert module.means_R(zeros(2, 3)).shape == (1, 2) and taken() == ["thing.means_R: means_R is [1, 2]"]
    assert module.Thing().sizes_R.shape == (2, 3) and taken() == ["thing.Thing.sizes_R: sizes_R is [2, 3]"]


def test_a_named_tuple_among_the_locals_is_looked_into_by_itself(module):
    module.holds(Held(zeros(4, 3), zeros(4)), zeros(2))
    assert taken() == []
    module.holds(Held(zeros(4, 3), zeros(3)), zeros(2))
    assert taken() == ["thing.holds: held.R is 4 in x_RB and 3 in y_R"]


def test_only_functions_with_suffixes_are_watched(module):
    watched = {name.removeprefix("thing.") for name in shape_watch.watched if name.startswith("thing.")}
    assert watched == {
        "right",
        "wrong_rank",
        "two_sizes",
        "raises",
        "means_R",
        "means_R.inner",
        "holds",
        "Thing.sizes_R",
        "Thing.plain",
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_our_packages_are_watched(package):
    assert isinstance(importlib.import_module(package).__loader__, WatchingLoader)

"""Ridge and logistic probes against scikit-learn, and what they must not depend on.

Shape suffixes: R replica, G groups, M rows, F features, T columns of all targets.
"""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional

from callbacks import logistic as regressions
from callbacks.logistic import TOLERANCE, Steps, fit_logistic
from callbacks.probes import Probe, ProbeCounts, RidgeSums, Target, targets_of
from rhm import Task


def test_level_below_asks_for_each_of_the_symbols_and_level_above_for_the_ancestor():
    task = Task(4, 4, 2, 2, 3)
    by_level = {t.level: t for t in targets_of(task, 2)}  # layer 2
    assert [(by_level[l].slots, by_level[l].sharers) for l in range(4)] == [(4, 1), (2, 1), (1, 1), (1, 2)]
    tokens = torch.arange(8).view(1, 1, 8)
    assert by_level[0].of(tokens, 1).tolist() == [[[[0, 1, 2, 3], [4, 5, 6, 7]]]]
    assert by_level[3].of(torch.tensor([[[3]]]), 1).tolist() == [[[[3], [3]]]]
    assert by_level[0].of(tokens, 2).tolist() == [[[[0, 1, 2, 3]], [[4, 5, 6, 7]]]]
    two_ancestors = {t.level: t for t in targets_of(task, 4)}[2].of(torch.tensor([[[2, 3]]]), 1)
    assert two_ancestors.flatten().tolist() == [2, 2, 3, 3]
    assert [t.level for t in targets_of(Task(6, 6, 2, 6, 2), 9)] == [0, 2]  # 9 goes into 36 and 1 into 9, but not 6


def test_right_answers_are_counted_where_something_is_said_among_symbols_that_say_something():
    """Three symbols, the last of which says nothing; two slots."""
    counts = ProbeCounts(2, [Target(0, 2, 1, 3, unasked=1)])
    y = torch.tensor([[[[0, 2], [1, 1], [2, 2], [2, 0]]], [[[2, 1], [0, 1], [2, 2], [0, 2]]]])
    said = torch.tensor([[[[0, 0], [0, 1], [0, 0], [0, 0]]], [[[1, 1], [0, 0], [0, 0], [0, 0]]]])
    scores = functional.one_hot(said, 3).double()
    scores[..., 2] = 5.0  # that nothing is said would be the answer everywhere
    counts.update(scores.flatten(-2), [y])
    assert counts.compute().tolist() == [[3 / 4], [3 / 4]]


def ridge(x_RGMF: Tensor, y: list[Tensor], targets: list[Target], penalty: float = 1e-3, parts: int = 3) -> Probe:
    R, G, M, F = x_RGMF.shape
    sums = RidgeSums(R, G, F, targets, penalty, x_RGMF.device)
    for part in torch.arange(M).tensor_split(parts):
        sums.update(x_RGMF[:, :, part], [y_t[:, :, part] for y_t in y])
    return sums.solve()


def logistic(x_RGMF: Tensor, y: list[Tensor], targets: list[Target], penalty: float = 1e-3, iterations: int = 2000) -> Probe:
    probe, slope_R = fit_logistic(x_RGMF, y, targets, penalty, iterations)
    assert (slope_R <= TOLERANCE).all()
    return probe


def made_up(
    seed: int, features: int, rows: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, list[Tensor], list[Target]]:
    """Two replicas, two groups: units of very different scales that depend on one another, and symbols that depend on them."""
    g = torch.Generator().manual_seed(seed)
    hidden_RGMF = torch.randn(2, 2, rows, features, generator=g, dtype=torch.float64)
    mixing = torch.randn(features, features, generator=g, dtype=torch.float64) / features**0.5
    scale_F = 10 ** torch.empty(features, dtype=torch.float64).uniform_(-2, 2, generator=g)
    x_RGMF = ((hidden_RGMF @ mixing).relu() + 0.1 * hidden_RGMF) * scale_F
    targets = [Target(0, 2, 1, 3), Target(1, 1, 1, 4)]
    noise = [torch.randn(2, 2, rows, t.slots, t.symbols, generator=g, dtype=torch.float64) for t in targets]
    teach = [torch.randn(features, t.columns, generator=g, dtype=torch.float64) for t in targets]
    y = [
        ((hidden_RGMF @ w).unflatten(-1, (t.slots, t.symbols)) + 2 * e).argmax(-1)
        for w, t, e in zip(teach, targets, noise, strict=True)
    ]
    return x_RGMF.to(dtype), y, targets


SHAPES = [
    (seed, features, rows) for seed, (features, rows) in enumerate([(1, 40), (3, 30), (5, 200), (12, 100), (20, 400)] * 4)
]


@pytest.mark.parametrize(("seed", "features", "rows"), SHAPES)
def test_ridge_probes_are_those_of_scikit_learn_on_standardised_features(seed, features, rows):
    x_RGMF, y, targets = made_up(seed, features, rows)
    penalty = (1e-3, 0.1)[seed % 2]
    scores_RGMT = ridge(x_RGMF, y, targets, penalty).scores(x_RGMF)
    for r, g in np.ndindex(2, 2):
        z_MF = StandardScaler().fit_transform(x_RGMF[r, g].numpy())
        hot_MT = torch.cat(
            [torch.nn.functional.one_hot(y_t[r, g], t.symbols).flatten(1) for y_t, t in zip(y, targets, strict=True)], 1
        )
        theirs = Ridge(alpha=penalty * rows).fit(z_MF, hot_MT.numpy()).predict(z_MF)
        np.testing.assert_allclose(scores_RGMT[r, g].numpy(), theirs, atol=1e-8)


@pytest.mark.parametrize(
    ("seed", "features", "rows"),
    [*SHAPES[::3], *(pytest.param(*shape, marks=pytest.mark.chaos) for shape in SHAPES if shape not in SHAPES[::3])],
)
def test_logistic_probes_are_those_of_scikit_learn_on_standardised_features(seed, features, rows):
    x_RGMF, y, targets = made_up(seed, features, rows)
    penalty = (1e-3, 1e-2)[seed % 2]
    parts = logistic(x_RGMF, y, targets, penalty, 100).scores(x_RGMF).split([t.columns for t in targets], -1)
    for part, y_t, target in zip(parts, y, targets, strict=True):
        for r, g, slot in np.ndindex(2, 2, target.slots):
            z_MF, y_M = StandardScaler().fit_transform(x_RGMF[r, g].numpy()), y_t[r, g, :, slot]
            theirs = LogisticRegression(C=1 / (2 * penalty * rows), tol=1e-8, max_iter=5000).fit(z_MF, y_M.numpy())
            shown = theirs.classes_  # symbols that never occur have no score of theirs
            ours = part[r, g].unflatten(-1, (target.slots, target.symbols))[:, slot].softmax(-1)[:, shown]
            np.testing.assert_allclose(ours.numpy(), theirs.predict_proba(z_MF), atol=5e-3)


def test_rows_that_are_equal_count_as_often_as_they_occur():
    """With symbols of their own: a layer sees the same patch with other classes above it."""
    x_RGMF, y, targets = made_up(5, 5, 12)
    g = torch.Generator().manual_seed(1)
    drawn = torch.randint(12, (300,), generator=g)
    drawn[:100] = 3
    many_RGMF = x_RGMF[:, :, drawn]
    kept = [torch.rand(y_t[:, :, drawn].shape, generator=g) < 0.7 for y_t in y]
    y = [torch.where(kept_t, y_t[:, :, drawn], 0) for kept_t, y_t in zip(kept, y, strict=True)]
    ours = logistic(many_RGMF, y, targets, 1e-3).scores(many_RGMF)[..., -4:].softmax(-1)
    for r, j in np.ndindex(2, 2):
        z_MF = StandardScaler().fit_transform(many_RGMF[r, j].numpy())
        theirs = LogisticRegression(C=1 / (2 * 1e-3 * 300), tol=1e-8, max_iter=5000).fit(z_MF, y[1][r, j, :, 0].numpy())
        np.testing.assert_allclose(ours[r, j][:, theirs.classes_].numpy(), theirs.predict_proba(z_MF), atol=5e-3)


SLOTS = 5


def near_copies(apart: float) -> tuple[Tensor, list[Tensor], list[Target]]:
    """Six units and six that are all but copies of them; symbols that depend on both and on what is between them, some on little
    else than noise, so that regressions converge one after another."""
    g = torch.Generator().manual_seed(0)
    first, between = (
        torch.randn(1, 1, 400, 6, generator=g, dtype=torch.float64),
        torch.randn(1, 1, 400, 6, generator=g, dtype=torch.float64),
    )
    teach = torch.randn(12, SLOTS * 3, generator=g, dtype=torch.float64)
    noise = torch.randn(1, 1, 400, SLOTS, 3, generator=g, dtype=torch.float64) * torch.tensor([[0.01], [0.3], [1], [3], [30]])
    symbols = ((torch.cat([first, between], -1) @ teach).unflatten(-1, (SLOTS, 3)) + noise).argmax(-1)
    return torch.cat([first, first + apart * between], -1), [symbols], [Target(0, SLOTS, 1, 3)]


@pytest.mark.parametrize("penalty", [1e-3, 1e-5])
def test_units_that_are_all_but_copies_have_the_probes_of_scikit_learn_by_steps_of_which_none_leads_up(penalty, monkeypatch):
    x_RGMF, y, targets = near_copies(0.04)
    assert abs(np.corrcoef(x_RGMF[0, 0, :, 0], x_RGMF[0, 0, :, 6])[0, 1] - 0.9992) < 1e-4
    rises, step_down = [], regressions.step_down

    def watched(rows, seen_NQI, at_NQI, loss_Q, *rest):
        found = step_down(rows, seen_NQI, at_NQI, loss_Q, *rest)
        rises.append((found[1] - loss_Q).max())
        return found

    monkeypatch.setattr(regressions, "step_down", watched)
    scores = logistic(x_RGMF, y, targets, penalty, 40).scores(x_RGMF)[0, 0].unflatten(-1, (SLOTS, 3))
    assert max(rises) < 1e-5
    z_MF = StandardScaler().fit_transform(x_RGMF[0, 0].numpy())
    for slot in range(SLOTS):
        y_M = y[0][0, 0, :, slot]
        theirs = LogisticRegression(C=1 / (2 * penalty * 400), tol=1e-8, max_iter=5000).fit(z_MF, y_M.numpy())
        np.testing.assert_allclose(scores[:, slot].softmax(-1).numpy(), theirs.predict_proba(z_MF), atol=5e-3)
        alone = logistic(x_RGMF, [y[0][..., slot : slot + 1]], [Target(0, 1, 1, 3)], penalty, 40).scores(x_RGMF)[0, 0]
        torch.testing.assert_close(scores[:, slot].softmax(-1), alone.softmax(-1), rtol=0, atol=1e-3)


def test_regressions_of_which_single_precision_gets_no_further_converge_in_double_precision():
    """With next to no penalty, symbols that the units give away have losses that are all but flat."""
    logistic(*near_copies(1.0), 1e-8)


def test_a_step_that_shows_no_curvature_is_remembered_as_none():
    slope_NQI = torch.ones(2, 3, 4)
    steps = Steps(slope_NQI, 0.5)
    before_NQI = steps.direction(slope_NQI)
    steps.add(slope_NQI, torch.stack([torch.zeros(2, 4), -torch.ones(2, 4), torch.ones(2, 4)], 1))
    after_NQI = steps.direction(slope_NQI)
    assert after_NQI[:, :2].equal(before_NQI[:, :2]) and after_NQI[:, 2].equal(-slope_NQI[:, 2])


CHANGES = {
    "scaled": lambda x: torch.cat([x[..., :1] * 1e-25, x[..., 1:2] * -1e25, x[..., 2:]], -1),
    "shifted": lambda x: x + torch.tensor([0.0, 1.0, -3.0, 1e3, 30.0, -1e3]).to(x) * x.std((0, 1, 2)),
    "repeated": lambda x: torch.cat([x, x[..., :2], -3 * x[..., :1] + 2], -1),
    "dead": lambda x: torch.cat([x, torch.zeros_like(x[..., :2])], -1),
    "constant": lambda x: torch.cat([torch.full_like(x[..., :1], 7.3), x, torch.full_like(x[..., :1], -0.1)], -1),
    "rearranged": lambda x: x.flip(-1),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("fit", [ridge, logistic])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_answers_do_not_depend_on_how_units_are_written(fit, change, dtype):
    x_RGMF, y, targets = made_up(3, 6, 300, dtype)
    before, after = (fit(x, y, targets).scores(x) for x in (x_RGMF, CHANGES[change](x_RGMF)))
    error = 1e-6 if dtype == torch.float64 else 5e-3
    torch.testing.assert_close(after, before, rtol=0, atol=error if fit is ridge else 0.02)
    counts = [ProbeCounts(2, targets), ProbeCounts(2, targets)]
    for count, scores in zip(counts, (before, after), strict=True):
        count.update(scores, y)
    assert (counts[0].compute() - counts[1].compute()).abs().max() <= 1 / 300


@given(st.integers(0, 10**6), st.floats(-30, 30), st.floats(-1e3, 1e3), st.integers(1, 7))
def test_a_units_scale_and_offset_and_the_batches_change_no_ridge_probe(seed, log_scale, offset, parts):
    x_RGMF, y, targets = made_up(seed, 4, 40)
    other_RGMF = x_RGMF.clone()
    other_RGMF[..., 0] = (x_RGMF[..., 0] / x_RGMF[..., 0].std() + offset) * 2.0**log_scale
    before = ridge(x_RGMF, y, targets, parts=1).scores(x_RGMF)
    torch.testing.assert_close(ridge(other_RGMF, y, targets, parts=parts).scores(other_RGMF), before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("fit", [ridge, logistic])
@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_a_replica_whose_features_are_not_finite_answers_the_commonest_and_changes_no_other(fit, bad):
    x_RGMF, y, targets = made_up(0, 5, 60)
    alone = fit(x_RGMF[1:], [y_t[1:] for y_t in y], targets)
    x_RGMF[0, 0, 3, 1] = bad
    beside = fit(x_RGMF, y, targets)
    for name in ("centre_RG1F", "weight_RGFT", "bias_RG1T"):
        torch.testing.assert_close(getattr(beside, name)[1:], getattr(alone, name), rtol=0, atol=0)
        assert getattr(beside, name).isfinite().all()
    assert not beside.weight_RGFT[0].any()


def test_a_layer_without_a_unit_that_varies_answers_the_commonest_symbol():
    x_RGMF, y, targets = made_up(0, 3, 50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fit in (ridge, logistic):
            probe = fit(torch.full_like(x_RGMF, 0.3), y, targets)
            scores = probe.scores(x_RGMF)[..., -4:]
            assert (scores.argmax(-1) == y[1].mode(2).values).all() and not probe.weight_RGFT.any()

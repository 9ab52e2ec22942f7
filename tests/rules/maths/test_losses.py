"""What holds of losses beyond their equations, which stand in ``tests/helpers/equations``.

Shape suffixes: R replica, B batch, D pair of a string, C channel.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rules.maths import losses


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_scores_that_are_all_equal_tell_nothing():
    assert losses.info_nce(torch.full((1, 2, 7, 7), 3.0)).item() == pytest.approx(math.log(7))
    assert losses.info_nce_of_targets(torch.full((1, 2, 7, 7), 3.0)).item() == pytest.approx(math.log(7))
    assert losses.cross_entropy(torch.full((1, 5, 3), 7.0), torch.zeros(1, 5)).item() == pytest.approx(math.log(3))


def test_info_nce_has_the_slope_that_finite_differences_find_and_no_overflow():
    scores = random(2, 3, 5, 5).requires_grad_()
    for loss in losses.info_nce, losses.info_nce_of_targets:
        assert torch.autograd.gradcheck(loss, scores)
        far = torch.eye(5).expand(1, 2, 5, 5) * 2e3
        torch.testing.assert_close(loss(far - 1e3), torch.zeros(1))
        torch.testing.assert_close(loss(1e3 - far), torch.full((1,), 2e3 + math.log(4)))


def test_slowness_does_not_change_if_channels_are_mixed_and_does_not_reward_collapse():
    z1 = random(2, 50, 2, 4) * 0.7 + 0.3
    z2 = 0.6 * z1 + random(2, 50, 2, 4, seed=1) * 0.5
    mixed = random(4, 4, seed=2)
    slow = losses.slowness(z1, z2, 1e-12)
    torch.testing.assert_close(losses.slowness(z1 @ mixed, z2 @ mixed, 1e-12), slow, rtol=1e-6, atol=1e-6)
    collapsed = z1.clone(), z2.clone()
    for z in collapsed:
        z[..., 2:] *= 1e-6
    assert (losses.slowness(*collapsed, 0.01) > losses.slowness(z1, z2, 0.01)).all()


def test_slowness_without_a_ridge_is_the_power_of_whitened_differences():
    """``tr(C^-1 E[(z1 - z2)(z1 - z2)^T]) / 2 C``, the classical quantity, but for the covariance's N - 1."""
    z1, samples = random(1, 50, 2, 4) * 0.7 + 0.3, 200
    z2 = 0.6 * z1 + random(1, 50, 2, 4, seed=1) * 0.5
    rows = torch.cat([z1, z2], 1)[0].flatten(0, 1)
    covariance = (rows - rows.mean(0)).T @ (rows - rows.mean(0)) / samples
    difference = (z1 - z2)[0].flatten(0, 1)
    power = torch.trace(torch.linalg.inv(covariance) @ difference.T @ difference) / len(difference) / 2 / 4
    ours = losses.slowness(z1, z2, 1e-12)
    torch.testing.assert_close((1 - ours) * samples / (samples - 1), (1 - power)[None], rtol=1e-8, atol=1e-10)


def test_supervised_contrastive_is_nothing_where_all_are_alone_and_never_looks_at_a_strings_score_with_itself():
    u, y = random(1, 6, 6), torch.tensor([[0, 0, 1, 0, 1, 1]])
    torch.testing.assert_close(losses.supervised_contrastive(u + 5 * torch.eye(6), y), losses.supervised_contrastive(u, y))
    nobody = losses.supervised_contrastive(u.requires_grad_(), torch.arange(6)[None])
    assert torch.equal(nobody, torch.zeros(1))
    assert torch.equal(torch.autograd.grad(nobody.sum(), u)[0], torch.zeros(1, 6, 6))


def test_a_strings_negative_is_another_string_and_the_adjoint_goes_back():
    z = torch.arange(5.0)[None, :, None, None].expand(4, 5, 2, 3)
    shift_R = torch.tensor([1, 2, 3, 4])
    negative = losses.other_strings(z, shift_R)
    assert not (negative == z).any()
    assert [int(x) for x in negative[1, :, 0, 0]] == [2, 3, 4, 0, 1]
    torch.testing.assert_close(losses.scatter_strings(negative, shift_R), z)

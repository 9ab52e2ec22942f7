"""Iterative latent clustering: later steps, k-means against scikit-learn, what it finds and what it refuses.

Shape suffixes: R replica, S codebooks, T cells, D numbers of a description, K codes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from equations.ask import build
from equations.check import check, wanted
from equations.exchange import exchange
from equations.latent import MeansLayer
from rule_helpers import train
from sklearn.cluster import KMeans

from networks import CodeNetwork
from rhm import InvalidInput
from rules.latent_clustering import IterativeLatentClustering
from rules.maths.kmeans import inertia, reassigned, seeded


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("steps", [2, 3, 4, 5, 7])
def test_later_steps_are_the_equations_too(steps):
    """With a turn of 4 steps, half of which counts: the draw, Lloyd's step, and the next layer's counts, draw and step."""
    args = ("--data.train_size=10", "--model.turn=4", "--model.seeded=0.5", "--model.network.codebooks=3")
    rule = build("latent_clustering", *args)
    train(rule, steps=steps)
    check(rule, wanted(exchange(steps, (10, 6), MeansLayer), rule, "latent_clustering", args))


def clouds(R: int = 2, S: int = 3, T: int = 40, K: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cells around four places, one in ten of them not there; codes at random."""
    generator = torch.Generator().manual_seed(0)
    all_RTD = torch.randn(R, T, 3, generator=generator) + 3 * torch.randn(R, K, 3, generator=generator).repeat(1, T // K, 1)
    return all_RTD, torch.rand(R, T, generator=generator) > 0.1, torch.randint(K, (R, S, T), generator=generator)


def test_steps_of_lloyd_are_those_of_scikit_learn():
    """Where no cluster loses all of its cells: scikit-learn then moves its mean, and here its code is nobody's."""
    all_RTD, there_RT, codes_RST = clouds()
    compared = 0
    for r, s in np.ndindex(*codes_RST.shape[:2]):
        one_RTD, one_RT, own_RST = all_RTD[r : r + 1], there_RT[r : r + 1], codes_RST[r : r + 1, s : s + 1]
        rows, codes = one_RTD[0][one_RT[0]].numpy(), own_RST[0, 0][one_RT[0]].numpy()
        start = np.stack([rows[codes == k].mean(0) for k in range(4)])
        fitted = KMeans(4, init=start, n_init=1, max_iter=100, tol=0, algorithm="lloyd").fit(rows)
        for _ in range(100):
            own_RST = reassigned(one_RTD, own_RST, one_RT, 4)
        assert torch.equal(own_RST[0, 0][~one_RT[0]], codes_RST[r, s][~one_RT[0]])
        if len(own_RST[0, 0][one_RT[0]].unique()) == 4:
            assert (own_RST[0, 0][one_RT[0]].numpy() == fitted.labels_).all()
            assert float(inertia(one_RTD, own_RST, one_RT, 4)) == pytest.approx(fitted.inertia_, rel=1e-9)
            compared += 1
    assert compared >= 3


def test_means_are_drawn_by_their_squared_distance():
    """Of cells at 0, 0, 1, 3, 3 two are drawn, and one that is not there: 1 and 3 share a code if 0 and 1 are drawn."""
    all_RTD = torch.tensor([0.0, 0.0, 1.0, 3.0, 3.0, 900.0])[None, :, None]
    there_RT = torch.tensor([[True, True, True, True, True, False]])
    S, generator = 40_000, torch.Generator().manual_seed(0)
    gumbel_RSKT = -(-torch.rand(1, S, 2, 6, generator=generator).log()).log()
    codes_RST = seeded(all_RTD, there_RT, gumbel_RSKT)
    share = float((codes_RST[..., 2] == codes_RST[..., 3]).double().mean())
    wanted_share = 2 / 5 * 1 / (1 + 2 * 9) + 1 / 5 * 2 / (2 + 2 * 4)
    assert abs(share - wanted_share) < 5 * (wanted_share / S) ** 0.5
    assert torch.equal(codes_RST[..., 0], codes_RST[..., 1]) and torch.equal(codes_RST[..., 3], codes_RST[..., 4])


def test_fewer_places_than_means_leave_codes_unused():
    all_RTD, there_RT = torch.zeros(1, 5, 2), torch.ones(1, 5, dtype=torch.bool)
    codes_RST = seeded(all_RTD, there_RT, torch.zeros(1, 2, 3, 5))
    assert codes_RST.unique().numel() == 1
    assert torch.equal(reassigned(all_RTD, codes_RST, there_RT, 3), codes_RST)
    assert inertia(all_RTD, codes_RST, there_RT, 3).tolist() == [[0, 0]]


@pytest.mark.parametrize("seeded_at", [-0.1, 1.0])
def test_a_draw_after_the_turn_is_refused(seeded_at):
    with pytest.raises(InvalidInput, match=r"model\.seeded: got .*, allowed: a number of at least 0 and below 1"):
        IterativeLatentClustering(CodeNetwork(), seeded=seeded_at)

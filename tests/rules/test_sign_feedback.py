"""Sign feedback: the signs are those of the weights, the sizes those that the rule says.

Shape suffixes: R replica.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from feedback_helpers import CLOSE, NETWORKS, assert_same, compute, make, updates

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.brsf import BatchwiseRandomSignFeedback
from rules.feedback_alignment import FeedbackAlignment
from rules.frsf import FixedRandomSignFeedback
from rules.usf import UniformSignFeedback


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_uniform_sign_feedback_is_feedback_alignment_with_the_scaled_signs(network):
    rule, fa = make(UniformSignFeedback, network, feedback_scale=1.5), make(FeedbackAlignment, network)
    for k, name, matrix in rule.carriers():
        for r in range(3):
            w = matrix[r].detach().numpy()
            signs = np.where(w > 0, 1.0, -1.0) * 1.5 * math.sqrt((w**2).sum() / w.size)
            fa.get_buffer(f"feedback_{k}_{name}")[r] = torch.from_numpy(signs)
    step = compute(rule)
    assert_same(updates(rule, step), updates(fa, step), **CLOSE)


@pytest.mark.parametrize(
    "kind", [UniformSignFeedback, FixedRandomSignFeedback, BatchwiseRandomSignFeedback], ids=lambda c: c.__name__
)
def test_sign_feedback_has_the_signs_of_the_weights_as_they_are_now(kind):
    rule = make(kind, NETWORKS["shared, bottleneck"])
    for _ in range(2):
        for k, name, matrix in rule.carriers():
            feedback = rule.feedback(k, name)
            assert feedback.shape == matrix.shape and torch.equal(feedback.sign(), matrix.sign())
        before = [rule.feedback(k, name).abs() for k, name, _ in rule.carriers()]
        with torch.no_grad():
            for _, _, matrix in rule.carriers():
                matrix.neg_().add_(0.01)
        after = [rule.feedback(k, name).abs() for k, name, _ in rule.carriers()]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))  # sizes do not follow the weights


def test_sizes_of_sign_feedback_stay_or_are_drawn_afresh_each_step():
    fixed, fresh = (
        make(kind, HierarchicalNetwork(width=48)) for kind in (FixedRandomSignFeedback, BatchwiseRandomSignFeedback)
    )
    sizes = {}
    for rule in (fixed, fresh):
        sizes[rule] = [rule.feedback(2, "weight_RGFE").abs().detach()]
        updates(rule, compute(rule))
        assert torch.equal(rule.feedback(2, "weight_RGFE").abs(), sizes[rule][0])  # within a step
        rule.after_step()
        sizes[rule].append(rule.feedback(2, "weight_RGFE").abs().detach())
    assert torch.equal(*sizes[fixed])
    one, two = sizes[fresh]
    assert abs(np.corrcoef(one.flatten(), two.flatten())[0, 1]) < 0.05  # 13,824 numbers
    rms = fresh.network.layers[1].weight_RGFE.detach().square().mean().sqrt()
    for size in (one, two, sizes[fixed][0]):
        assert abs(float(size.square().mean().sqrt() / rms) - 1) < 0.03
        assert abs(float(size.mean() / rms) - math.sqrt(2 / math.pi)) < 0.03
    assert not torch.allclose(one[0], one[1])  # replicas
    assert "key_R" in fresh.state_dict()


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"feedback_scale": 0.0}, "model.feedback_scale"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(UniformSignFeedback, **{"network": HierarchicalNetwork(12), **arguments})
    assert error.value.key == key

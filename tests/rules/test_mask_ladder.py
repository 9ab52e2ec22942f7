"""The mask ladder: which rungs are other rules, and that no two are the same.

Shape suffixes: R replica, B batch.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import NETWORKS, assert_same, compute, cosine, make, set_buffer, updates

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.dfa import DirectFeedbackAlignment
from rules.feedback_alignment import FeedbackAlignment
from rules.mask_ladder import RUNGS, MaskLadder


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("network", ["shared", "local", "dense", "tanh"])
def test_mask_ladder_is_fa_at_rung_6_and_dfa_at_rung_7_with_the_same_matrices(network):
    for other, arguments in ((FeedbackAlignment, ("exact", "random")), (DirectFeedbackAlignment, ("constant", "direct"))):
        rule = make(MaskLadder, NETWORKS[network], masks=arguments[0], feedback=arguments[1])
        theirs = make(other, NETWORKS[network])
        matrices = [name for name, _ in theirs.named_buffers() if name.startswith("feedback")]
        assert matrices == [name for name, _ in rule.named_buffers() if name.startswith("feedback")] and len(matrices) == 3
        step = compute(rule)
        assert not torch.allclose(updates(rule, step)[0]["weight_RGFE"], updates(theirs, step)[0]["weight_RGFE"])
        for name in matrices:
            set_buffer(rule, name, theirs.get_buffer(name))
        assert_same(updates(rule, step), updates(theirs, step))


def test_rungs_differ_from_one_another_in_the_layers_below_the_top():
    step, found = None, []
    for masks, feedback in RUNGS:
        rule = make(MaskLadder, HierarchicalNetwork(12), masks=masks, feedback=feedback)
        step = step or compute(rule)
        found.append(updates(rule, step)[0]["weight_RGFE"])
    assert all(abs(cosine(found[i], found[j])) < 0.999 for i in range(8) for j in range(i))


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"masks": "half"}, "model.masks"),
        ({"feedback": "learned"}, "model.feedback"),
        ({"masks": "exact", "feedback": "direct"}, "model.masks"),
        ({"masks": "batch_mean", "feedback": "direct"}, "model.masks"),
        ({"masks": "other_string", "feedback": "direct"}, "model.masks"),
        ({"masks": "none", "feedback": "random"}, "model.masks"),
        ({"masks": "none"}, "model.masks"),
        ({"feedback_scale": 0.0}, "model.feedback_scale"),
        ({"network": HierarchicalNetwork(12, normalise=True)}, "model.network.normalise"),
        ({"network": HierarchicalNetwork(12, bottleneck=6)}, "model.network.bottleneck"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(MaskLadder, **{"network": HierarchicalNetwork(12), **arguments})
    assert error.value.key == key

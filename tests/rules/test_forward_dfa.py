"""Forward direct feedback: what it tracks is the mean Jacobian.

Shape suffixes: R replica, B batch, D position, C channel.
"""

from __future__ import annotations

import pytest
import torch
from feedback_helpers import compute, cosine, encoded, estimates, make, plain_layer, plain_logits
from rule_helpers import every

from networks import HierarchicalNetwork
from rhm import InvalidInput
from rules.forward_dfa import ForwardDirectFeedback


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("activation", "bottleneck"), every(3, [("tanh", 3), ("relu", None), ("linear", None)]))
def test_forward_dfa_comes_to_the_mean_jacobian(activation, bottleneck):
    rule = make(ForwardDirectFeedback, HierarchicalNetwork(4, activation=activation, bottleneck=bottleneck), batch_size=64)
    x = encoded(rule, rule.data.train_batch(0).x_RBD)
    total = {name: torch.zeros_like(buffer) for name, buffer in rule.named_buffers() if name.startswith("feedback")}
    for t in range(600):  # 64 training strings: every batch is all of them
        found = estimates(rule, compute(rule, t))
        for name in total:
            total[name] += found[name] / 600
    below = x
    for k in (1, 2, 3):
        below = plain_layer(rule, k, below)
        out = below.detach().requires_grad_()
        h = out
        for j in range(k + 1, 4):
            h = plain_layer(rule, j, h)
        logits = plain_logits(rule, h)
        jacobian = torch.stack(
            [torch.autograd.grad(logits[:, :, c].sum(), out, retain_graph=True)[0].flatten(2).mean(1) for c in range(4)], 1
        )
        ours = total[f"feedback_{k}"]
        assert ours.shape == jacobian.shape
        for r in range(3):
            assert cosine(ours[r], jacobian[r]) > 0.99, (k, r)
            assert abs(float((ours[r] * jacobian[r]).sum() / jacobian[r].square().sum()) - 1) < 0.1
        assert cosine(rule.feedback(k), jacobian) < 0.5  # the start is random


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"rate": 0.0}, "model.rate"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(arguments, key):
    with pytest.raises(InvalidInput) as error:
        make(ForwardDirectFeedback, **{"network": HierarchicalNetwork(12), **arguments})
    assert error.value.key == key

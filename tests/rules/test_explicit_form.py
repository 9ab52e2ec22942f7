"""Rules whose update is a product of local factors need no graph."""

from __future__ import annotations

import pytest
import torch
from rule_helpers import compute, from_settings, updates

EXPLICIT = [
    *("clapp", "clapp_local", "lpl", "forward_forward", "scff", "softhebb", "gevb", "backprop", "mask_ladder", "pepita"),
    *("dfa", "sign_dfa", "drtp", "dkp", "forward_dfa", "ebd", "feedback_alignment", "usf", "frsf", "brsf", "kolen_pollack"),
    *("weight_mirror", "low_rank_feedback", "node_perturbation"),
]


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def forbidden(*args, **kwargs):
    raise AssertionError("autograd was asked")


@pytest.mark.parametrize("name", EXPLICIT)
def test_a_rule_in_explicit_form_builds_no_graph(name, monkeypatch):
    rule = from_settings(name)
    expected = updates(rule, compute(rule))
    monkeypatch.setattr(torch.autograd, "grad", forbidden)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t), lambda t: t), torch.inference_mode():
        inferred = updates(rule, rule.compute(rule.data.train_batch(0)))
        for ours, update in zip(expected, inferred, strict=True):
            assert all(grad.grad_fn is None and torch.equal(grad, ours[name]) for name, grad in update.items())
    assert not saved


@pytest.mark.parametrize("name", ["clapp", "lpl", "dfa", "feedback_alignment", "pepita"])
def test_the_other_form_asks_autograd(name, monkeypatch):
    rule = from_settings(name, "--model.form=autograd")
    monkeypatch.setattr(torch.autograd, "grad", forbidden)
    with pytest.raises(AssertionError, match="autograd was asked"):
        updates(rule, compute(rule))

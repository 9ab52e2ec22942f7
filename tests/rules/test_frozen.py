"""Random features: what trains which layer."""

from __future__ import annotations

import torch
from rule_helpers import from_settings, train


def test_only_the_top_layer_and_the_readout_learn_where_the_top_learns():
    for name, moving in ("frozen", {"readout"}), ("frozen_below_top", {"network.layers.2", "readout"}):
        rule = from_settings(name, seeds=(0,))
        before = {key: value.clone() for key, value in rule.state_dict().items()}
        after = train(rule, 2)
        moved = {key.rpartition(".")[0] for key, _ in rule.named_parameters() if not torch.equal(after[key], before[key])}
        assert moved == moving, name
        assert rule.trained_by == ["labels" if f"network.layers.{k}" in moving else "nothing" for k in range(3)] + ["labels"]

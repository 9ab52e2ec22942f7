"""Self-contrastive Forward-Forward: what it refuses."""

from __future__ import annotations

import pytest
from rule_helpers import from_settings


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("--model.network.bottleneck=4", "model.network.bottleneck"),
        ("--model.block.head=3", "model.block.head"),
        ("--model.block.end_to_end=true", "model.block.end_to_end"),
        ("--data.batch_size=1", "data.batch_size"),
        ("--data.pairs=null", "data.pairs"),
    ],
)
def test_what_the_rule_cannot_have_is_refused_by_name(argument, key):
    with pytest.raises(ValueError, match=f"{key}: got "):
        from_settings("scff", argument)

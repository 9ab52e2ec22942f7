"""Short names."""

from __future__ import annotations

from experiments.study.names import cell_label, slug


def test_settings_are_told_in_short_only_where_that_says_which_they_are():
    assert cell_label({"model.network": "networks.DenseNetwork", "model.network.width": 8}) == "network=DenseNetwork, width=8"
    two = {"model.network.width": 64, "model.readout.width": 32}
    assert cell_label(two) == "model.network.width=64, model.readout.width=32"
    assert cell_label({"x.lr": "0.5"}) == "lr=0.5" and cell_label({"x.lr": "1.5"}) == "lr=1.5"
    long = [slug(f"betas={'0.9 ' * 50}{end}") for end in "ab"] + [slug(f"{'é' * 100}{end}") for end in "ab"]
    assert len(set(long)) == 4 and all(len(name.encode()) <= 80 for name in long)
    assert slug("network=DenseNetwork, width=8") == "network=DenseNetwork_width=8"

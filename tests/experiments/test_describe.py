"""``rhm describe``."""

from __future__ import annotations

import json

from command_line import rhm


def test_describe_prints_the_tasks_size_and_a_tree(capsys, tmp_path):
    rhm("describe", "--v=8", "--n=8", "--m=4", "--s=2", "--L=4", f"--json={tmp_path / 'g.json'}")
    out = capsys.readouterr().out
    for text in (f"{8 * 4**15:,}", "2,048", "512", "0.1250", "yes", "16"):
        assert text in out
    assert out.count("├── ") + out.count("└── ") == 30
    assert json.loads((tmp_path / "g.json").read_text())["v"] == 8
    rhm("describe", "--m=8", "--L=10", "--s=2")
    assert "no" in capsys.readouterr().out

"""What a run prints."""

from __future__ import annotations

import json
import re

import pytest
from command_line import RUN, rhm

from experiments.report.figures import learning_curves


def test_replicas_of_different_sizes_are_not_averaged(tmp_path, capsys):
    sizes = ["--data.train_size=[32,64]", "--data.label_size=[4,16]", "--data.seeds=[0,1]", "--data.pairs=SiblingPairs"]
    rhm("fit", "--model=LayerwiseContrastive", *RUN, *sizes, f"--run_dir={tmp_path / 'a'}")
    out = capsys.readouterr().out
    results = json.loads((tmp_path / "a/results.json").read_text())
    assert "ridge probes at 64 strings, 16 labels" in out
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if "│   0 1 │" in line]
    assert [row[:2] for row in rows] == [["32", "4"], ["32", "16"], ["64", "4"], ["64", "16"]]
    for strings, labels, _, shown, *_ in rows:
        size = int(strings), int(labels)
        own = [r["test_accuracy"] for r in results["replicas"] if (r["train_size"], r["label_size"]) == size]
        assert shown.split(" ")[0] == f"{sum(own) / 2:.3f}"
    probes = [line for line in out.splitlines() if re.match(r"│ +3 │", line)][0].split("│")[2]
    own = [r["probe"]["layer3"]["level0"] for r in results["replicas"] if (r["train_size"], r["label_size"]) == (64, 16)]
    assert probes.split() == [f"{sum(own) / 2:.3f}", "±", f"{abs(own[0] - own[1]) / 2**0.5:.3f}"]
    kept = {}

    def keep(panels, *args, **more):
        kept.update(panels[""])
        return learning_curves(panels, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.report.curves.learning_curves", keep)
        rhm("curves", f"--run_dirs=[{tmp_path / 'a'}]", f"--out={tmp_path / 'c.png'}")
    assert [name.rsplit(", ", 1)[1] for name in kept] == ["4 labels", "16 labels"]
    own = [r["test_accuracy"] for r in results["replicas"] if (r["train_size"], r["label_size"]) == (32, 16)]
    assert list(kept.values())[1].mean[0] == pytest.approx(sum(own) / 2)

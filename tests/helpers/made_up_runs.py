"""Runs whose results are made up, for ``rhm curves``."""

from __future__ import annotations

import json
from pathlib import Path


def made_up_run(folder: Path, rule: str = "Backprop", **changes) -> str:
    """A finished run's results."""
    folder.mkdir(parents=True)
    replicas = [{"seed": s, "train_size": p, "test_accuracy": 0.5, "chance": 0.25} for s in (0, 1) for p in (32, 64)]
    task = {"v": 4, "n": 4, "m": 2, "s": 2, "L": 3}
    content = {"rule": rule, "task": task, "supervision": {"rule": "labels", "pairs": None}, "replicas": replicas}
    (folder / "results.json").write_text(json.dumps({**content, "status": "finished", **changes}), encoding="utf-8")
    return str(folder)

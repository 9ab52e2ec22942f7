"""The command line, called in this process, and what its runs leave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from experiments.cli import main

ROOT = Path(__file__).parents[2]
SMALL = [
    "--data.v=4",
    "--data.n=4",
    "--data.m=2",
    "--data.L=3",
    "--data.train_size=64",
    "--data.test_size=64",
    "--data.probe_size=64",
    "--data.batch_size=16",
    "--model.network.width=8",
    "--trainer.accelerator=cpu",
]
RUN = [*SMALL, "--trainer.max_steps=6", "--trainer.val_check_interval=3", "--checkpoint_every=2"]


def rhm(*args: str) -> None:
    main(list(args))


def refused(capsys, *args: str) -> str:
    """The one line that a call is refused with."""
    with pytest.raises(SystemExit) as stop:
        rhm(*args)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err.count("\n") == 1 and "Traceback" not in err, err
    return err.strip()


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    last = max((run_dir / "checkpoints").glob("*.ckpt"), key=lambda p: int(p.stem.split("=")[1]))
    return torch.load(last, weights_only=True)["state_dict"]


def results(run_dir: Path) -> dict:
    """Results without times."""
    content = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    return {k: v for k, v in content.items() if k not in ("seconds", "samples_per_second")}

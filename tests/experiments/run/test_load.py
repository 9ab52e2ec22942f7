"""A run as Python objects."""

from __future__ import annotations

import json

import pytest
import torch
from command_line import RUN, rhm
from rule_helpers import every

from experiments.run.load import load_run
from rhm import InvalidInput


@pytest.mark.parametrize("precision", every(2, ["32-true", "64-true"]))
def test_a_loaded_run_answers_as_it_did(tmp_path, precision):
    model = ["--model=LayerwiseContrastive", *RUN, "--data.pairs=SiblingPairs", f"--trainer.precision={precision}"]
    sizes = ["--data.train_size=[32,64]", "--data.label_size=[4,16]", "--data.seeds=[5,7]", "--model.block.head=3"]
    rhm("fit", *model, *sizes, f"--run_dir={tmp_path / 'a'}")
    rule = load_run(str(tmp_path / "a"))
    assert not rule.training and rule.readout.bias_R1N.dtype == (torch.float64 if "64" in precision else torch.float32)
    strings = rule.data.grammar.sample(torch.arange(*rule.data.test_range))
    top = rule(strings.x_RBD)[-1]
    answers_RB = rule.readout(top.out_RBDC, strings.symbols[-1][..., 0]).logits_RBN.argmax(-1)
    accuracy_R = (answers_RB == strings.symbols[-1][..., 0]).double().mean(1)
    written = [replica["test_accuracy"] for replica in json.loads((tmp_path / "a/results.json").read_text())["replicas"]]
    assert accuracy_R.tolist() == pytest.approx(written, abs=1e-6)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="a folder with a run's config.yaml and checkpoints"):
        load_run(str(tmp_path))
    (tmp_path / "config.yaml").write_text("model: 3")
    with pytest.raises(InvalidInput, match="config.yaml and checkpoints"):
        load_run(str(tmp_path))

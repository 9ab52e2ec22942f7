"""Settings that a rule keeps from another one's file."""

from __future__ import annotations

import yaml
from command_line import ROOT, rhm

from experiments.run.kept import kept_from_files

QUICKSTART = f"-c={ROOT / 'configs/quickstart.yaml'}"
SMALL = ["--data.seeds=[0]", "--model.network.width=8", "--trainer.accelerator=cpu"]


def test_another_rule_in_the_place_of_a_files_own_says_what_it_keeps(tmp_path, capsys):
    rhm("check", QUICKSTART, "--model=Backprop", *SMALL, f"--run_dir={tmp_path / 'a'}")
    said = capsys.readouterr().err
    assert said == (
        "rhm: note: Backprop keeps, from a file for LayerwiseContrastive: "
        "model.network.bottleneck=v, model.optimizer.lr=0.003, model.optimizer.fused=True\n"
    )


def test_what_a_later_file_or_the_command_line_says_is_not_kept(tmp_path, capsys):
    dfa = f"-c={ROOT / 'configs/rules/dfa.yaml'}"
    own = "--model.network.bottleneck=2v"
    rhm("check", QUICKSTART, dfa, own, *SMALL, f"--run_dir={tmp_path / 'a'}")
    assert capsys.readouterr().err == ""
    rhm("check", QUICKSTART, *SMALL, f"--run_dir={tmp_path / 'a'}")
    assert capsys.readouterr().err == ""


def test_only_what_is_as_in_the_file_and_has_not_been_typed_is_kept(tmp_path):
    contrastive = {
        "class_path": "LayerwiseContrastive",
        "init_args": {"clip": 1, "block": {"head": 4}, "optimizer": {"lr": 0.1}},
    }
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"model": contrastive}))
    (tmp_path / "b.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"clip": 2}}}))  # of no rule
    model = {"class_path": "rules.Backprop", "init_args": {"clip": 2.0, "optimizer": {"lr": "1e-1"}, "network": {"width": 8}}}
    files = ["-c", str(tmp_path / "a.yaml"), f"--config={tmp_path / 'b.yaml'}"]
    assert kept_from_files(files, model) == ("LayerwiseContrastive", ["model.optimizer.lr=1e-1"])
    for typed in ["--model.optimizer.lr=0.1"], ["--model.init_args.optimizer.init_args.lr", "0.1"]:
        assert kept_from_files([*files, *typed], model) == ("LayerwiseContrastive", [])

"""Settings that a rule keeps from another one's file."""

from __future__ import annotations

from command_line import ROOT, rhm

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

"""The command line as a person uses it: runs, what they leave, how they go on, and what is refused in one line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from command_line import RUN, SMALL, refused, results, rhm, weights
from rich.console import Console

from experiments.cli import COMMANDS, discover, instantiate
from experiments.explain import explain
from experiments.figures import learning_curves
from experiments.rules import FAMILIES, NO_FILE
from rhm.errors import closest, nearest
from rules import Locality, LocalRule
from rules.base.block import Block

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "configs" / "rules").glob("*.yaml"))


# -------------------------------------------------------------------- runs


@pytest.mark.parametrize("rule", RULES, ids=lambda p: p.stem)
def test_every_rules_settings_run_from_the_command_line(rule, tmp_path, capsys):
    rhm("fit", f"-c={rule}", *RUN, f"--run_dir={tmp_path / 'a'}")
    assert "ridge probes" in capsys.readouterr().out
    assert json.loads((tmp_path / "a" / "results.json").read_text())["status"] == "finished"


def test_a_run_leaves_settings_events_checkpoints_picture_and_results_in_its_folder_and_nothing_elsewhere(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    siblings = ["--model=LayerwiseContrastive", "--model.network.bottleneck=4", "--data.pairs=SiblingPairs"]
    rhm("fit", *siblings, *RUN, "--data.train_size=[32,64]", "--data.seeds=[3,1]", "--run_dir=a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    names = {p.name.split(".")[0] for p in (tmp_path / "a").iterdir()}
    assert {"config", "events", "checkpoints", "results", "probe"} <= names
    assert sorted(p.name for p in (tmp_path / "a/checkpoints").iterdir()) == ["step=4.ckpt", "step=6.ckpt"]
    content = json.loads((tmp_path / "a/results.json").read_text())
    assert content["rule"] == "LayerwiseContrastive"
    assert content["task"] == {"v": 4, "n": 4, "m": 2, "s": 2, "L": 3}
    assert content["supervision"] == {"rule": "none", "pairs": "SiblingPairs", "readout_labels": [32, 64, 32, 64]}
    assert [(r["seed"], r["train_size"]) for r in content["replicas"]] == [(3, 32), (3, 64), (1, 32), (1, 64)]
    assert content["steps"] == 6 and content["samples_seen"] == 96 and content["seconds"] > 0
    assert content["samples_per_second"] == pytest.approx(96 * 4 / content["seconds"], rel=0.01)
    assert set(content["versions"]) == {"python", "torch", "pytorch-lightning", "torchmetrics"}
    replica = content["replicas"][0]
    assert replica["chance"] == 0.25 and 0 <= replica["test_accuracy"] <= 1
    assert list(replica["probe"]) == ["layer1", "layer2", "layer3"]
    assert list(replica["probe"]["layer1"]) == ["level0", "level1", "level2", "level3"]


def test_the_same_command_gives_the_same_results_and_weights(tmp_path):
    for name in "ab":
        rhm("fit", "--model=Backprop", *RUN, f"--run_dir={tmp_path / name}")
    assert results(tmp_path / "a") == results(tmp_path / "b")
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(a[name], b[name]) for name in a)
    rhm("fit", "--model=Backprop", *RUN, "--data.seeds=[1]", f"--run_dir={tmp_path / 'c'}")
    assert results(tmp_path / "c")["replicas"] != results(tmp_path / "a")["replicas"]


def test_settings_written_by_a_run_repeat_it_also_those_that_are_null(tmp_path):
    rhm("fit", "--model=Backprop", *RUN, "--data.train_size=null", f"--run_dir={tmp_path / 'a'}")
    assert yaml.safe_load((tmp_path / "a/config.yaml").read_text())["data"]["init_args"]["train_size"] is None
    rhm("fit", "-c", str(tmp_path / "a/config.yaml"), f"--run_dir={tmp_path / 'b'}")
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert results(tmp_path / "a")["supervision"]["readout_labels"] == [96]


def test_a_run_killed_at_half_goes_on_to_the_same_weights_and_results(tmp_path):
    steps = ["--trainer.max_steps=400", "--trainer.val_check_interval=70", "--checkpoint_every=30"]
    command = [sys.executable, "-m", "experiments.cli", "fit", "--model=LayerwiseContrastive", "--data.pairs=ClassPairs"]
    command += [*SMALL, *steps, "--data.seeds=[0,1]"]
    rhm(*command[3:], f"--run_dir={tmp_path / 'whole'}")
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [*command, f"--run_dir={folder}"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not any(int(p.stem.split("=")[1]) >= 150 for p in (folder / "checkpoints").glob("*.ckpt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "results.json").exists()
    rhm(*command[3:], f"--run_dir={folder}")
    whole, killed = weights(tmp_path / "whole"), weights(folder)
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert results(tmp_path / "whole") == results(folder)


def test_an_interrupted_run_says_that_it_was_stopped_and_can_go_on(tmp_path):
    command = [sys.executable, "-m", "experiments.cli", "fit", "--model=Backprop", *SMALL, "--checkpoint_every=20"]
    command += ["--trainer.max_steps=100000", f"--run_dir={tmp_path / 'a'}"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "a/checkpoints").glob("*.ckpt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert "same command" in process.communicate(timeout=60)[1] and process.returncode == 130
    content = json.loads((tmp_path / "a/results.json").read_text())
    assert content["status"] == "stopped" and 0 < content["steps"] < 100000


def test_validate_and_test_read_a_run_and_write_nothing(tmp_path, capsys):
    rhm("fit", "--model=Backprop", *RUN, f"--run_dir={tmp_path / 'a'}")
    fitted = capsys.readouterr().out
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    for command, probes in (("test", 2), ("validate", 1)):
        rhm(command, f"--run_dir={tmp_path / 'a'}")
        out = capsys.readouterr().out
        assert out.count("probes") == probes and out.splitlines()[:5] == fitted.splitlines()[:5]
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_a_run_is_not_measured_with_other_data_or_another_rule(tmp_path, capsys):
    rhm("fit", "--model=Backprop", *RUN, f"--run_dir={tmp_path / 'a'}", "--tables=false")
    run = f"--run_dir={tmp_path / 'a'}"
    rhm("test", run, "--data.test_size=100")
    capsys.readouterr()
    assert "seeds=[5]" in refused(capsys, "test", run, "--data.seeds=[5]")
    assert "L=4" in refused(capsys, "validate", run, "--data.L=4")
    assert "width=9" in refused(capsys, "test", run, "--model.network.width=9")


def test_two_ranks_give_the_weights_and_accuracies_of_one(tmp_path):
    command = ["fit", "--model=Backprop", *RUN, "--trainer.precision=64-true", "--data.eval_batch_size=63", "--tables=false"]
    rhm(*command, f"--run_dir={tmp_path / 'one'}")
    ranks = [sys.executable, "-m", "experiments.cli", *command, "--trainer.devices=2", "--trainer.strategy=ddp"]
    subprocess.run([*ranks, f"--run_dir={tmp_path / 'two'}"], cwd=ROOT, check=True, timeout=120, capture_output=True)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-9)
    assert results(tmp_path / "one")["replicas"] == results(tmp_path / "two")["replicas"]


def test_later_settings_win_and_every_parameter_can_be_reached(tmp_path, capsys):
    quick = f"-c={ROOT / 'configs/quickstart.yaml'}"
    arguments = ["--data.L=6", "--data.train_size=[512,1024]", "--model.optimizer.lr=7e-3", "--model.network.width=64"]
    with pytest.raises(SystemExit) as stop:
        rhm("fit", quick, *arguments, "--print_config")
    assert stop.value.code in (0, None)
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["init_args"]["L"] == 6 and config["data"]["init_args"]["train_size"] == [512, 1024]
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 7e-3
    assert config["model"]["init_args"]["network"]["init_args"]["width"] == 64


# -------------------------------------------------------------------- describe and check


def test_describe_prints_the_tasks_size_and_a_tree(capsys, tmp_path):
    rhm("describe", "--v=8", "--n=8", "--m=4", "--s=2", "--L=4", f"--json={tmp_path / 'g.json'}")
    out = capsys.readouterr().out
    for text in (f"{8 * 4**15:,}", "2,048", "512", "0.1250", "yes", "16"):
        assert text in out
    assert out.count("├── ") + out.count("└── ") == 30
    assert json.loads((tmp_path / "g.json").read_text())["v"] == 8
    rhm("describe", "--m=8", "--L=10", "--s=2")
    assert "no" in capsys.readouterr().out


def test_check_prints_nothing_when_all_is_well_and_writes_nothing(capsys, tmp_path):
    rhm("check", "--model=Backprop", *RUN, f"--run_dir={tmp_path / 'a'}")
    assert capsys.readouterr() == ("", "") and not list(tmp_path.iterdir())


def test_curves_draws_the_results_of_runs_and_refuses_what_does_not_fit(tmp_path, capsys):
    rhm("fit", "--model=Backprop", *RUN, "--data.train_size=[32,64]", f"--run_dir={tmp_path / 'a'}", "--tables=false")
    rhm("curves", f"--run_dirs=['{tmp_path / 'a'}']", f"--out={tmp_path / 'curves.png'}")
    assert "Backprop" in capsys.readouterr().out
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "overwritten" in refused(capsys, "curves", f"--run_dirs=['{tmp_path / 'a'}']", f"--out={tmp_path / 'curves.png'}")
    assert "nowhere" in refused(capsys, "curves", "--run_dirs=[nowhere]", f"--out={tmp_path / 'b.png'}")


def test_help_lists_the_commands(capsys):
    rhm("--help")
    out = capsys.readouterr().out
    assert all(
        f"rhm {name}" in out
        for name in (
            "fit",
            "sweep",
            "report",
            "validate",
            "test",
            "check",
            "rules",
            "describe",
            "curves",
            "search",
            "compare",
            "demo",
        )
    )


# -------------------------------------------------------------------- what is refused

QUICK = f"-c={ROOT / 'configs/quickstart.yaml'}"
STUDY = f"-c={ROOT / 'configs/studies/depth.yaml'}"
REFUSED = {
    "m*v > v**s": (["--data.m=9"], ["data.m", "9", "m <= 8"]),
    "n*m > v**s": (["--data.n=17"], ["data.n", "17", "n <= 16"]),
    "v = 0": (["--data.v=0"], ["data.v", "0", "at least 1"]),
    "L = 0": (["--data.L=0"], ["data.L", "0", "at least 1"]),
    "batch_size = 0": (["--data.batch_size=0"], ["data.batch_size", "0", "at least 1"]),
    "train_size = 0": (["--data.train_size=0"], ["data.train_size", "0", "at least 1"]),
    "width = 0": (["--model.network.width=0"], ["model.network.width", "0", "at least 1"]),
    "max_steps": (["--trainer.max_steps=-1"], ["trainer.max_steps", "-1", "at least 1"]),
    "too many strings": (["--data.L=2", "--data.train_size=500"], ["data.train_size", "500", "4096", "P_max = 512"]),
    "depth": (["--model.network.depth=5"], ["model.network.depth", "5", "16"]),
    "tuple size": (["--model.network.patch=3"], ["model.network.patch", "3", "16"]),
    "siblings at L = 1": (
        ["--data.L=1", "--data.train_size=8", "--data.test_size=8"],
        ["data.pairs", "SiblingPairs", "L=1", "L >= 2"],
    ),
    "siblings in a dense network": (["--model.network=DenseNetwork"], ["data.pairs", "SiblingPairs", "DenseNetwork"]),
    "level of synonyms": (["--data.pairs=SynonymPairs", "--data.pairs.level=5"], ["data.pairs.level", "5", "1 to L=4"]),
    "no pairs": (["--data.pairs=null"], ["data.pairs", "None", "SiblingPairs"]),
    "unknown rule": (["--model=LayerwiseContrastiv"], ["model", "LayerwiseContrastiv", "'LayerwiseContrastive'"]),
    "unknown network": (["--model.network=DenseNetwrk"], ["model.network", "DenseNetwrk", "'DenseNetwork'"]),
    "unknown pairs": (["--data.pairs=SiblingPair"], ["data.pairs", "SiblingPair", "'SiblingPairs'"]),
    "unknown data key": (["--data.trainsize=5"], ["data.trainsize", "unknown key", "'train_size'"]),
    "unknown network key": (["--model.network.widht=5"], ["model.network.widht", "unknown key", "'width'"]),
    "unknown trainer key": (["--trainer.max_stepz=5"], ["trainer.max_stepz", "unknown key", "'max_steps'"]),
    "wrong type": (["--data.L=deep"], ["data.L", "deep", "int"]),
    "mistyped link": (["--data.train_size=${data.Ll}"], ["data.train_size", "${data.Ll}", "int or list"]),
    "precision": (["--trainer.precision=16-mixed"], ["trainer.precision", "16-mixed", "bf16-mixed"]),
    "learning rate": (["--model.optimizer.lr=-1"], ["model.optimizer", "-1"]),
    "accelerator": (["--trainer.accelerator=gpuu"], ["trainer", "gpuu", "cpu"]),
    "gradient clipping": (["--trainer.gradient_clip_val=1"], ["trainer.gradient_clip_val", "1", "model.clip"]),
    "accumulation": (["--trainer.accumulate_grad_batches=2"], ["trainer.accumulate_grad_batches", "2", "batch_size"]),
    "equal seeds": (["--data.seeds=[1,1]"], ["data.seeds", "[1, 1]", "different"]),
    "temperature": (["--model.temperature=0"], ["model.temperature", "0", "above 0"]),
    "activation": (["--model.network.activation=gelu"], ["model.network.activation", "gelu", "relu, tanh, linear"]),
    "score": (["--model.score=dot"], ["model.score", "dot", "bilinear or cosine"]),
    "no level": (["--data.pairs=SynonymPairs"], ["data", "level", "nothing"]),
    "no network": (["--model.network=null"], ["model.network", "None", "HierarchicalNetwork"]),
    "no batch size": (["--data.batch_size=null"], ["data.batch_size", "None", "at least 1"]),
    "abstract rule": (["--model=LocalRule"], ["model", "LocalRule"]),
    "abstract pairs": (["--data.pairs=ViewPairs"], ["data.pairs", "ViewPairs"]),
    "other data": (["--data=LightningDataModule"], ["data", "LightningDataModule"]),
    "validation interval": (["--trainer.val_check_interval=0"], ["trainer.val_check_interval", "0", "at least 1"]),
    "epochs": (["--trainer.max_epochs=3"], ["trainer.max_epochs", "3", "max_steps"]),
    "fast_dev_run": (["--trainer.fast_dev_run=true"], ["trainer.fast_dev_run", "True", "rhm check"]),
    "part of a test": (["--trainer.limit_test_batches=1"], ["trainer.limit_test_batches", "1", "data.test_size"]),
    "part of an epoch": (["--trainer.limit_train_batches=0.5"], ["trainer.limit_train_batches", "0.5", "max_steps"]),
    "checkpoints": (["--checkpoint_every=0"], ["checkpoint_every", "0", "at least 1"]),
    "step log": (["--trainer.callbacks=StepLog", "--trainer.callbacks.every=0"], ["every", "0"]),
    "too many rules": (["--data.v=100000", "--data.n=8", "--data.m=100000"], ["data.m", "100000", "rules"]),
    "a list": (["--data.L=[3,4]"], ["data.L", "[3, 4]", "int"]),
    "no such file": (["-c=configs/no.yaml"], ["config", "configs/no.yaml", "exists"]),
    "a folder of files": (["-c=configs/rules"], ["config: got configs/rules, allowed: a file"]),
    "no accelerator": (["--trainer.accelerator=tpu"], ["trainer.accelerator: got tpu, allowed: auto or cpu"]),
    "sparse gradients": (["--model.optimizer=SparseAdam"], ["model.optimizer: got SparseAdam, allowed: ", "dense"]),
    "groups of parameters": (["--model.optimizer=LBFGS"], ["model.optimizer: got LBFGS", "allowed: "]),
    "nan": (["--model.temperature=.nan"], ["model.temperature: got nan, allowed: a finite number"]),
    "infinity": (["--model.clip=.inf"], ["model.clip: got inf, allowed: a finite number"]),
    "nan in a class": (["--model.optimizer.lr=.nan"], ["model.optimizer.lr: got nan, allowed: a finite number"]),
    "nan in a list": (["--model.optimizer.betas=[0.9,.nan]"], ["model.optimizer.betas: got nan, allowed: a finite number"]),
}


RULE_REFUSED = {
    "pairs of labels without labels": (
        ["--model=VICReg", "--data.pairs=ClassPairs", "--data.labels=false"],
        ["data.labels", "False", "VICReg with ClassPairs"],
    ),
    "backprop without labels": (["--model=Backprop", "--data.labels=false"], ["data.labels", "False", "Backprop"]),
    "Forward-Forward without a label slot": (["--model=ForwardForward"], ["model.network.label_slot", "False", "true"]),
    "Forward-Forward without normalisation": (
        ["--model=ForwardForward", "--model.network.label_slot=true"],
        ["model.network.normalise", "False", "true"],
    ),
    "a label slot for another rule": (
        ["--model=Backprop", "--model.network.label_slot=true"],
        ["model.network.label_slot", "True", "Backprop"],
    ),
    "signed weights for GEVB": (
        ["--model=GlobalErrorVectorBroadcast", "--model.network=VectorNetwork", "--model.network.signed=true"],
        ["model.network.signed", "True", "false"],
    ),
    "a network without vectors for GEVB": (
        ["--model=GlobalErrorVectorBroadcast", "--model.network=DenseNetwork"],
        ["model.network", "DenseNetwork", "VectorNetwork"],
    ),
    "vectors for SoftHebb": (
        ["--model=SoftHebb", "--model.network=VectorNetwork"],
        ["model.network", "VectorNetwork", "SoftHebb"],
    ),
    "a rank above the classes": (["--model=LowRankFeedback", "--model.rank=9"], ["model.rank", "9", "8"]),
    "a rank of 0": (["--model=LowRankFeedback", "--model.rank=0"], ["model.rank", "0", "1"]),
    "a temperature of 0": (["--model=SupervisedContrastive", "--model.temperature=0"], ["model.temperature", "0", "above 0"]),
    "a head of width 0": (["--model=SupervisedContrastive", "--model.head=0"], ["model.head", "0", "at least 1"]),
    "a block's head of width 0": (
        ["--model=VICReg", "--data.pairs=SiblingPairs", "--model.block.head=0"],
        ["model.block.head", "0", "at least 1"],
    ),
    "two heads without a head": (
        ["--model=VICReg", "--data.pairs=SiblingPairs", "--model.block.separate_heads=true"],
        ["model.block.separate_heads", "True", "model.block.head"],
    ),
    "an unknown expansion": (
        ["--model=VICReg", "--data.pairs=SiblingPairs", "--model.block.expansion=none"],
        ["model.block.expansion", "none", "random"],
    ),
    "an unknown form": (["--model=CLAPP", "--data.pairs=SiblingPairs", "--model.form=hebbian"], ["model.form", "explicit"]),
    "masks with direct feedback": (
        ["--model=MaskLadder", "--model.masks=exact", "--model.feedback=direct"],
        ["model.masks", "exact", "direct"],
    ),
    "a ladder with a bottleneck": (["--model=MaskLadder", "--model.network.bottleneck=8"], ["model.network.bottleneck", "8"]),
    "a label in a cosine": (
        ["--model=LayerwiseContrastive", "--data.pairs=SiblingPairs", "--model.score=cosine", "--model.label_context=true"],
        ["model.label_context", "True", "bilinear"],
    ),
    "a momentum of 1": (["--model=BYOL", "--data.pairs=SiblingPairs", "--model.momentum=1"], ["model.momentum", "1"]),
}


@pytest.mark.parametrize("case", RULE_REFUSED)
def test_a_rule_is_refused_what_it_cannot_have(case, capsys, tmp_path):
    arguments, words = RULE_REFUSED[case]
    line = refused(capsys, "fit", *arguments, f"--run_dir={tmp_path / 'a'}")
    assert line.startswith("rhm: ") and all(word in line for word in words), line
    assert not list(tmp_path.iterdir())


def table_of_rules(capsys) -> dict[str, list[str]]:
    """The cells of each line of ``rhm rules``, by the first."""
    rhm("rules")
    lines = [re.split(r"\s{2,}", line.strip()) for line in capsys.readouterr().out.splitlines()]
    return {first: cells for first, *cells in lines}


def test_rules_lists_every_settings_file_with_what_the_rule_that_it_builds_says(capsys):
    table = table_of_rules(capsys)
    assert {path.stem for path in RULES} | {*FAMILIES} <= table.keys() and "no family" not in table and NO_FILE not in table
    assert table["sibling_contrastive"][:3] == ["LayerwiseContrastive", "none", "pair"]
    assert table["class_contrastive"][:3] == ["LayerwiseContrastive", "labels", "pair"]
    assert table["label_context"][:3] == ["LayerwiseContrastive", "labels", "pair, label"]
    assert table["end_to_end_contrastive"][:3] == ["LayerwiseContrastive", "none", "pair, other layers"]
    assert table["clapp_pp"] == ["CLAPPPlusPlus", "none", "pair, other layers", "arXiv 2601.21683"]
    assert table["frozen"][:3] == ["FrozenFeatures", "none", "nothing"]
    order = [*table]
    assert order.index("feedback") < order.index("dfa") < order.index("self-supervised") < order.index("gim")
    for rule in (rule for rule in discover().values() if issubclass(rule, LocalRule)):
        assert rule.family in FAMILIES and rule.source and rule.__name__ in {cells[0] for cells in table.values() if cells}, (
            rule
        )
        assert rule.__doc__ and rule.__doc__ != LocalRule.__doc__


class Mine(LocalRule):
    """A rule with no more than a rule must have."""

    def layer_updates(self, step):
        return []


class Ours(Mine):
    """A rule of another family, without a settings file."""

    family, locality = "evolution", Locality(label=True)


@pytest.fixture
def few_rules(tmp_path, monkeypatch):
    """A folder of settings files with two of ours and that of a rule without attributes."""
    for name in "scff", "end_to_end_contrastive":
        (tmp_path / f"{name}.yaml").write_text((ROOT / "configs/rules" / f"{name}.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(f"model: {Mine.__module__}.Mine\n")
    found = {**discover(), "Ours": Ours}
    monkeypatch.setattr("experiments.cli.discover", lambda: found)
    monkeypatch.setattr("experiments.rules.SETTINGS", tmp_path)
    return tmp_path


def test_rules_lists_rules_of_a_persons_own_with_no_family_or_another(few_rules, capsys):
    table = table_of_rules(capsys)
    assert table["mine"] == ["Mine", "none"]
    assert [*table].index("evolution") > [*table].index("supervised layerwise")
    assert table["evolution"] == table["no family"] == []
    assert any(cells[:3] == ["Ours", "none", "label"] for name, cells in table.items() if name == NO_FILE)


def test_rules_does_not_break_names_in_a_terminal_of_80_columns(few_rules, capsys, monkeypatch):
    monkeypatch.setattr("experiments.rules.wide_console", lambda: Console(width=80))
    rhm("rules")
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.startswith("configs/rules"))
    assert max(map(len, lines)) <= 80 and header.split()[-1] == "sees"
    words = {word for line in lines for word in re.split(r"[\s,]+", line)}
    assert {"end_to_end_contrastive", "SelfContrastiveForwardForward", "labels", "pair", "other", "layers", "error"} <= words


@pytest.mark.parametrize(
    ("text", "words"),
    [("{}", ["model: got nothing"]), ("model: {class_path: Backprop, init_args: {clips: 1}}", ["model.clips", "'clip'"])],
)
def test_rules_names_a_settings_file_that_builds_no_rule(text, words, few_rules, capsys):
    (few_rules / "bad.yaml").write_text(text + "\n")
    line = refused(capsys, "rules")
    assert all(word in line for word in [f"{few_rules / 'bad.yaml'}: got settings that build no rule", *words]), line


def test_search_tries_settings_of_a_grid_and_writes_the_best(tmp_path, capsys):
    task, grid = tmp_path / "task.yaml", tmp_path / "grid.yaml"
    small = {"v": 4, "n": 4, "m": 2, "L": 2, "train_size": 16, "test_size": 8, "probe_size": 8, "batch_size": 4, "seeds": [0]}
    data = {"class_path": "RHMDataModule", "init_args": small}
    task.write_text(yaml.safe_dump({"data": data, "trainer": {"max_steps": 2, "accelerator": "cpu"}}))
    grid.write_text(
        yaml.safe_dump(
            {
                "model.optimizer.lr": [0.001, 0.01],
                "model.block": [{"head": 2}, {"head": None, "separate_heads": False}, {"head": 0}],
            }
        )
    )
    command = ["search", "--rule=vicreg", f"--task={task}", f"--grid={grid}"]
    command += [f"--run_dir={tmp_path / 'run'}", "--trials=6", "--jobs=1", "--seeds=[5]"]
    rhm(*command)
    rows = json.loads((tmp_path / "run/search.json").read_text())
    assert len(rows) == 6 and len({json.dumps(row["settings"]) for row in rows}) == 6
    assert [row["accuracy"] is None for row in rows] == [False] * 4 + [True] * 2
    assert rows[0]["accuracy"] == max(row["accuracy"] for row in rows[:4])
    best = yaml.safe_load((tmp_path / "run/best.yaml").read_text())
    assert best["model"]["init_args"]["block"]["head"] == rows[0]["settings"]["model.block"]["head"]
    rhm("check", f"-c={tmp_path / 'run/best.yaml'}", "--data.L=3", f"--run_dir={tmp_path / 'x'}")
    capsys.readouterr()
    assert "seeds" in refused(capsys, *command[:-1], "--seeds=[0]")


class MadeUpRuns:
    """Stands for ``launch``: runs of search and compare with made-up results, all but those that fail.

    Attributes:
        made: names of the jobs of all calls.
        fails: ends of names.
    """

    def __init__(self, monkeypatch):
        self.made: list[str] = []
        self.fails: tuple[str, ...] = ()
        monkeypatch.setattr("experiments.search.launch", self)
        monkeypatch.setattr("experiments.compare.launch", self)

    def __call__(self, jobs, folder, launcher, title):
        self.made += [job.name for job in jobs]
        for job in jobs:
            run = folder / job.name if job.folder else folder / job.name / "final"  # of a search, or of compare
            if not job.name.endswith(self.fails):
                run.mkdir(parents=True, exist_ok=True)
                replicas = [{"train_size": size, "test_accuracy": 0.5} for size in (8, 16)]
                known = {"rule": "A", "supervision": {"rule": "labels", "pairs": None}, "steps": 2, "replicas": replicas}
                (run / "results.json").write_text(json.dumps(known))
                (run / "config.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"pairs": None}}, "model": {}}))
                (run.parent / "chosen.json").write_text('{"rate": 0.1, "step_time_ratio": 1.0}')
        return {job.name: "no memory" for job in jobs if job.name.endswith(self.fails)}


def task_file(path: Path, **changes) -> Path:
    small = {"v": 4, "n": 4, "m": 2, "L": 2, "train_size": [8, 16], "test_size": 8, "probe_size": 8, "batch_size": 4}
    data = {"class_path": "RHMDataModule", "init_args": {**small, "seeds": [0, 1], **changes}}
    path.write_text(yaml.safe_dump({"data": data, "trainer": {"max_steps": 2, "accelerator": "cpu"}}))
    return path


def written(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_a_search_goes_on_with_more_trials_and_is_refused_in_the_folder_of_another(tmp_path, capsys, monkeypatch):
    runs = MadeUpRuns(monkeypatch)
    values = {"model.optimizer.lr": [0.1, 0.2], "model.clip": [1.0, 2.0]}
    task, grid = task_file(tmp_path / "task.yaml"), written(tmp_path / "grid.yaml", values)
    command = ["search", "--rule=backprop", f"--task={task}", f"--grid={grid}", f"--run_dir={tmp_path / 'run'}", "--trials=2"]
    rhm(*command)
    task.write_text(f"# the same\n{task.read_text()}")
    rhm(*command, "--trials=3", "--jobs=1", f"--rule={ROOT / 'configs/rules/backprop.yaml'}")
    assert runs.made == [f"trial-{i}" for i in (0, 1, 0, 1, 2)]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other_task, other_grid = (
        task_file(tmp_path / "b.yaml", L=3),
        written(tmp_path / "c.yaml", {**values, "model.clip": [1.0, 3.0]}),
    )
    other_order = written(tmp_path / "d.yaml", dict(reversed(values.items())))  # and so others of the trials are first
    for other, words in (
        ("--rule=dfa", ["rule.model.class_path=DirectFeedbackAlignment", "rule.model.class_path=Backprop"]),
        (f"--task={other_task}", ["task.data.init_args.L=3", "task.data.init_args.L=2"]),
        (f"--grid={other_grid}", ["grid=", "3.0"]),
        (f"--grid={other_order}", ["grid="]),
        ("--seeds=[7]", ["seeds=[7]", "seeds=[100, 101]"]),
    ):
        capsys.readouterr()
        line = refused(capsys, *command, other)
        assert all(word in line for word in ["rhm: run_dir: got ", "which holds a search", "or another folder", *words]), line
    assert len(runs.made) == 5 and all(path.read_bytes() == content for path, content in before.items())
    (tmp_path / "run/asked.yaml").unlink()
    assert "holds this search" in refused(capsys, *command)


def test_a_search_of_which_nothing_can_be_trained_is_refused_and_one_of_which_all_fails_is_a_failure(
    tmp_path, capsys, monkeypatch
):
    runs = MadeUpRuns(monkeypatch)
    task, grid = task_file(tmp_path / "task.yaml"), written(tmp_path / "grid.yaml", {"model.optimizer.lr": [0.1, 0.2]})
    wrong = written(tmp_path / "wrong.yaml", {"model.optimizer.lrr": [0.1, 0.2]})
    command = ["search", "--rule=backprop", f"--task={task}", f"--grid={grid}", f"--run_dir={tmp_path / 'run'}"]
    line = refused(capsys, *command, f"--grid={wrong}")
    assert all(word in line for word in ["rhm: rule, task and grid: got ", "model.optimizer.lrr: unknown key"]), line
    line = refused(capsys, *command, f"--task={task_file(tmp_path / 'b.yaml', mm=3)}")
    assert "data.mm: unknown key" in line, line
    assert not runs.made and not (tmp_path / "run").exists()
    runs.fails = ("trial-0", "trial-1")
    with pytest.raises(SystemExit) as stop:
        rhm(*command)
    out, err = capsys.readouterr()
    assert stop.value.code == 1 and err.startswith("rhm: none of 2 settings has finished") and out.count("no memory") == 2
    assert not (tmp_path / "run/best.yaml").exists()
    runs.fails = ("trial-0",)
    rhm(*command, "--rule=dfa")  # no run was begun that could be taken for one of this rule
    assert (tmp_path / "run/best.yaml").exists() and runs.made[2:] == ["trial-0", "trial-1"]


def test_compare_tunes_trains_and_tabulates_and_goes_on_where_it_stopped(tmp_path):
    task, out = task_file(tmp_path / "small.yaml"), tmp_path / "rules.md"
    out.write_text("before\n<!-- table: begin -->\nold\n<!-- table: end -->\nafter\n")
    command = ["compare", f"--tasks=[{task}]", "--rules=[backprop,frozen]", "--rates=[0.01,0.1]", "--jobs=1", f"--out={out}"]
    command += ["--args=[--model.network.width=8,--checkpoint_every=1]", f"--run_dir={tmp_path / 'run'}"]
    rhm(*command)
    text = out.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text
    rows = json.loads((tmp_path / "run/compare.json").read_text())["small"]
    assert set(rows) == {"backprop", "frozen"} and rows["backprop"]["rate"] in (0.01, 0.1)
    assert {size: len(values) for size, values in rows["frozen"]["accuracy"].items()} == {"8": 2, "16": 2}
    assert "| frozen | none |" in text and "P = 16" in text
    before = (tmp_path / "run/small/frozen/final/results.json").stat().st_mtime_ns
    rhm(*command)
    assert (tmp_path / "run/small/frozen/final/results.json").stat().st_mtime_ns == before


def test_a_comparison_goes_on_with_other_rules_and_tasks_and_never_takes_runs_of_other_settings(tmp_path, capsys, monkeypatch):
    runs, task = MadeUpRuns(monkeypatch), task_file(tmp_path / "a.yaml")
    command = ["compare", f"--tasks=[{task}]", "--rules=[dfa]", "--rates=[0.1]", f"--run_dir={tmp_path / 'run'}"]
    rhm(*command)
    second = task_file(tmp_path / "b.yaml", L=3)
    rhm(*command, "--rules=[frozen,dfa]", f"--tasks=[{second},{task}]", "--jobs=1")
    assert runs.made == ["a/dfa", "b/frozen", "b/dfa", "a/frozen", "a/dfa"]
    (tmp_path / "c").mkdir()
    other_task = task_file(tmp_path / "c/a.yaml", m=3)
    for other, words in (
        ("--rates=[0.2]", ["rates=[0.2]", "rates=[0.1]"]),
        ("--seed=7", ["seed=7", "seed=100"]),
        ("--args=[--model.network.width=8]", ["args=['--model.network.width=8']", "args=[]"]),
        (f"--tasks=[{other_task}]", ["task.data.init_args.m=3", "task.data.init_args.m=2"]),
    ):
        capsys.readouterr()
        line = refused(capsys, *command, "--rules=[gim,dfa]", other)
        where = f"in {tmp_path / 'run/a/dfa'}, which holds a comparison"
        assert all(word in line for word in ["rhm: run_dir: got ", where, "or another folder", *words]), line
    assert "of different names" in refused(capsys, *command, f"--tasks=[{task},{other_task}]")
    kept = tmp_path / "run/a/dfa/asked.yaml"
    content = yaml.safe_load(kept.read_text())
    content["rule"]["model"]["class_path"] = "Backprop"
    written(kept, content)
    assert "rule.model.class_path=Backprop" in refused(capsys, *command)
    assert len(runs.made) == 5 and not (tmp_path / "run/a/gim").exists()


def test_rules_that_fail_are_missing_in_the_table_and_the_exit_code_says_so(tmp_path, capsys, monkeypatch):
    runs, out = MadeUpRuns(monkeypatch), tmp_path / "rules.md"
    command = [
        "compare",
        f"--tasks=[{task_file(tmp_path / 'a.yaml')}]",
        "--rules=[dfa,frozen]",
        f"--run_dir={tmp_path / 'run'}",
    ]
    old = "<!-- table: begin -->\nold\n<!-- table: end -->\n"
    out.write_text(old)
    for fails, closing in (("a/dfa", "a/frozen"), "rhm: 2 of 2 rows are missing"), (("a/dfa",), "rhm: 1 of 2 rows are missing"):
        runs.fails = fails
        with pytest.raises(SystemExit) as stop:
            rhm(*command, f"--out={out}")
        said = capsys.readouterr()
        assert stop.value.code == 1 and said.err.startswith(closing) and "failed: a/dfa: no memory" in said.out
        assert (out.read_text() == old) == (len(fails) == 2)
    assert "| frozen |" in out.read_text() and "| dfa |" not in out.read_text()


@pytest.mark.parametrize("command", ["fit", "check"])
@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line_before_anything_is_written(command, case, capsys, tmp_path):
    arguments, words = REFUSED[case]
    line = refused(capsys, command, QUICK, *arguments, f"--run_dir={tmp_path / 'a'}")
    assert line.startswith("rhm: ") and all(word in line for word in words), line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle: Backprop", ["modle", "unknown key", "'model'"]),
        ("data: {class_path: RHMDataModule, init_args: {mm: 3}}", ["data.mm", "unknown key"]),
        ("model: {class_path: Backprop, init_args: {network: {class_path: Hierarchical}}}", ["model.network", "Hierarchical"]),
        ("data: [", ["config"]),
    ],
)
def test_a_settings_file_that_is_wrong_is_refused_in_one_line(text, words, capsys, tmp_path):
    (tmp_path / "bad.yaml").write_text(text + "\n")
    line = refused(capsys, "fit", QUICK, f"-c={tmp_path / 'bad.yaml'}", f"--run_dir={tmp_path / 'a'}")
    assert all(word in line for word in words), line


LISTED = {
    "trainer": "--help",
    "data": "--data.help",
    "data.pairs": "--data.pairs.help=PAIRS",
    "model": "--model.help=RULE",
    "model.block": "--model.help=RULE",
    "model.network": "--model=RULE --model.network.help=NETWORK",
    "model.optimizer": "--model=RULE --model.optimizer.help=OPTIMIZER",
    "trainer.callbacks": "--trainer.callbacks.help=CALLBACK",
}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("trainer.max_stepz", "max_steps"),
        ("data.trainsize", "train_size"),
        ("data.level", "data.pairs.level"),
        ("model.widht", "model.network.width"),
        ("data.pairs.levl", "level"),
        ("model.lr", "model.optimizer.lr"),
        ("model.L", "data.L"),
        ("model.temprature", "temperature"),
        ("model.netwrk.help", "network"),
        ("model.block.hed", "head"),
        ("model.network.widht", "width"),
        ("model.optimizer.lrr", "lr"),
        ("rundir", "run_dir"),
        ("modle.clip", "model"),
        ("lr", "model.optimizer.lr"),
    ],
)
@pytest.mark.parametrize("where", ["argument", "file"])
def test_an_unknown_key_is_answered_with_what_lists_the_known_ones_and_with_the_nearest(where, key, meant, capsys, tmp_path):
    """In the place of the key, or below it, whatever else has such a name."""
    tree = 3
    for part in reversed(key.split(".")):
        classes = {"block": None, "pairs": "SiblingPairs", "network": "DenseNetwork", "optimizer": "Adam"}
        name = {**classes, "data": "RHMDataModule", "model": "LayerwiseContrastive"}.get(part)
        tree = {part: {"class_path": name, "init_args": tree} if name and isinstance(tree, dict) else tree}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(tree))
    given = [f"--{key}=3"] if where == "argument" else [f"-c={tmp_path / 'a.yaml'}"]
    line = refused(capsys, "check", QUICK, *given, f"--run_dir={tmp_path / 'a'}")
    place = max((place for place in LISTED if key.startswith(f"{place}.")), key=len, default="trainer")
    assert line == f"rhm: {key}: unknown key, allowed: keys that `rhm fit {LISTED[place]}` lists; did you mean '{meant}'?"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["check", "-c=configs/rules/gevb.yaml", "--model.network.activation=tanh"],
            "model.network.activation: unknown key, allowed: keys that `rhm fit --model=RULE --model.network.help=NETWORK` lists; "
            "'activation' is a key of other classes, such as DenseNetwork",
        ),
        (
            ["check", QUICK, "--data.pairs=SiblingPairs", "--data.pairs.level=1"],
            "data.pairs.level: unknown key, allowed: keys that `rhm fit --data.pairs.help=PAIRS` lists; "
            "'level' is a key of other classes, such as SynonymPairs",
        ),
        (
            ["check", QUICK, "--trainer.callbacks=StepLog", "--trainer.callbacks.evry=3"],
            "trainer.callbacks.evry: unknown key, allowed: keys that `rhm fit --trainer.callbacks.help=CALLBACK` lists; "
            "did you mean 'every'?",
        ),
        (
            ["check", QUICK, "--model.network=ConvNet"],
            "model.network: got ConvNet, allowed: one of DenseNetwork, HierarchicalNetwork, LocallyConnectedNetwork, VectorNetwork",
        ),
        (
            ["check", QUICK, "--model.optimizer=Adm"],
            "model.optimizer: got Adm, allowed: the name of a class; did you mean 'Adam'?",
        ),
        (["check", QUICK, "--model=DenseNetwork"], "model: got DenseNetwork, allowed: the name of a class"),
        (["check", QUICK, "--model.optimizer.lr=nan"], "model.optimizer.lr: got nan, allowed: a finite number"),
        (["check", QUICK, "--model.optimizer.lr=fast"], "model.optimizer.lr: got fast, allowed: float"),
        (["check", QUICK, "--model.clip=-inf"], "model.clip: got -inf, allowed: a finite number"),
        (["fit", "--model.help=Foo"], "model.help: got Foo, allowed: the name of a class"),
        (["fit", "--model.help=Backpro"], "model.help: got Backpro, allowed: the name of a class; did you mean 'Backprop'?"),
        (
            ["fit", "--data.pairs.help=Pear"],
            "data.pairs.help: got Pear, allowed: one of ClassPairs, HalfPairs, SiblingPairs, SynonymPairs",
        ),
        (
            ["fit", "--model.network.help=HierarchicalNetwork"],
            "model: got nothing, allowed: --model=NAME or a settings file with -c, before --model.network.help",
        ),
        (
            ["check", "--model=VICReg", "--data.pairs.level=3"],
            "data.pairs: got nothing, allowed: --data.pairs=NAME or a settings file with -c, before --data.pairs.level",
        ),
        (["check", "--model=LocalRule"], "model: got LocalRule, allowed: the name of a class that is not abstract"),
        (["fit", "-c"], "config: got nothing, allowed: --config=VALUE"),
        (["describe", "--depth=9"], "depth: unknown key, allowed: keys that `rhm describe --help` lists"),
        (["describe", "--modle=Backprop"], "modle: unknown key, allowed: keys that `rhm describe --help` lists"),
        (
            ["sweep", STUDY, "--stepz=3"],
            "stepz: unknown key, allowed: keys that `rhm sweep --help` lists; did you mean 'steps'?",
        ),
        (
            ["sweep", STUDY, '--search={"trails": 3}'],
            "search.trails: unknown key, allowed: keys that `rhm sweep --help` lists; did you mean 'trials'?",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(arguments, line, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert refused(capsys, *arguments) == f"rhm: {line}"


@pytest.mark.parametrize(("text", "why"), [("", "with settings"), ("- a", "with settings"), ("data: [", "line 1, column 8")])
def test_a_settings_file_that_cannot_be_read_is_named(text, why, capsys, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    line = refused(capsys, "check", QUICK, "-c", str(tmp_path / "bad.yaml"))
    assert line.startswith(f"rhm: config: got {tmp_path / 'bad.yaml'}, allowed: a YAML file") and why in line


def test_a_name_is_never_suggested_for_itself():
    assert nearest("activation", ["activation"]) == "" and closest("lr", ["lr", "LR"]) == "LR"


@pytest.mark.parametrize("command", [*COMMANDS])
def test_the_help_of_a_command_says_what_the_command_does(command, capsys):
    with pytest.raises(SystemExit) as stop:
        rhm(command, "--help")
    out = " ".join(capsys.readouterr().out.split())
    assert stop.value.code in (0, None) and COMMANDS[command] in out and "Lightning" not in out.split("options:")[0]


def test_a_finished_run_is_never_overwritten_and_an_unfinished_one_not_with_other_settings(capsys, tmp_path):
    run = ["fit", "--model=Backprop", *RUN, f"--run_dir={tmp_path / 'a'}"]
    rhm(*run)
    kept = (tmp_path / "a/results.json").read_text()
    capsys.readouterr()
    assert "finished" in refused(capsys, *run)
    assert (tmp_path / "a/results.json").read_text() == kept
    (tmp_path / "a/results.json").unlink()
    line = refused(capsys, *run, "--data.seeds=[7]")
    assert "data.init_args.seeds=[7]" in line and "data.init_args.seeds=[0]" in line
    (tmp_path / "b").mkdir()
    (tmp_path / "b/thesis.txt").write_text("dear")
    assert "new, empty" in refused(capsys, "fit", "--model=Backprop", *RUN, f"--run_dir={tmp_path / 'b'}")
    assert os.listdir(tmp_path / "b") == ["thesis.txt"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fitt"], ["command", "fitt", "'fit'"]),
        (["fit"], ["model", "nothing"]),
        (["test", "--run_dir=nowhere"], ["run_dir", "nowhere"]),
        (["describe", "--v=2", "--m=9"], ["m", "9", "m <= 2"]),
        (["describe", "--depth=9"], ["depth", "unknown key"]),
        (["demo", "--run_dir=tests"], ["run_dir", "tests", "overwritten"]),
        (["demo", "--run_dir=README.md"], ["run_dir", "README.md"]),
        (["demo", "--max_steps=0"], ["max_steps", "0", "at least 1"]),
        (["describe", "--json=nowhere/g.json"], ["json", "nowhere/g.json", "folder"]),
        (["describe", "--string=-1"], ["string", "-1"]),
        (["curves", "--run_dirs=[]", "--out=a.png"], ["run_dirs", "[]"]),
        (["curves", "--run_dirs=[configs]", "--out=a.png"], ["run_dirs", "configs", "results.json"]),
        (["curves", "--run_dirs=[configs]", "--out=a.txt"], ["out", "a.txt", ".png or .svg"]),
        (["curves"], ["run_dirs", "nothing"]),
        (["compare", "--tasks=[configs/no.yaml]", "--run_dir=runs/x"], ["tasks", "configs/no.yaml"]),
        (["compare", "--tasks=[configs/tasks/compare_L3.yaml]", "--rules=[nope]", "--run_dir=runs/x"], ["rules", "nope"]),
        (["compare", "--tasks=[configs/tasks/compare_L3.yaml]", "--seed=0", "--run_dir=runs/x"], ["seed", "0"]),
        (["compare", "--tasks=[configs/tasks/compare_L3.yaml]", "--rates=[0]", "--run_dir=runs/x"], ["rates", "0"]),
        (["compare", "--tasks=[configs/tasks/compare_L3.yaml]", "--out=README.md", "--run_dir=runs/x"], ["out", "README.md"]),
        (
            ["compare", "--tasks=[configs/tasks/compare_L3.yaml]", "--args=[--model.network.widht=8]", "--run_dir=runs/x"],
            ["args", "widht", "'width'"],
        ),
        (
            ["compare", "--tasks=[configs/tasks/compare_L3.yaml]", "--args=[--model.optimizer.lr=8]", "--run_dir=runs/x"],
            ["args", "lr=8", "rates"],
        ),
        (
            ["compare", "--tasks=[configs/tasks/compare_L3.yaml]", "--args=[--model.network.width]", "--run_dir=runs/x"],
            ["args", "--model.network.width=64"],
        ),
        (["search", "--rule=dfa", "--task=no.yaml", "--grid=b", "--run_dir=runs/x"], ["task", "no.yaml"]),
        (["search", "--rule=bakprop", "--task=no.yaml", "--grid=b", "--run_dir=runs/x"], ["rule", "bakprop", "'backprop'"]),
        (["test", "--run_dir"], ["run_dir", "nothing"]),
        (["test", "--run_dir="], ["run_dir", "nothing"]),
        (["fit", "--model=Backprop", "--run_dir=README.md"], ["run_dir", "README.md", "file"]),
        (["fit", "--model=Backprop", "--run_dir=/dev/null/x"], ["run_dir", "/dev/null/x"]),
        (
            ["fit", "--model=Backprop", "--run_dir=runs/x", "--trainer.devices=3", "--trainer.accelerator=cpu"],
            ["batch_size", "3"],
        ),
    ],
)
def test_other_commands_refuse_in_one_line_too(arguments, words, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    line = refused(capsys, *arguments)
    assert all(word in line for word in words), line


def test_what_is_not_understood_is_passed_on_in_one_line():
    assert explain("something\n  new", {}, ()) == "something new"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("model.network.bottleneck", lambda rule: rule.network_config.bottleneck),
        ("model.network.depth", lambda rule: rule.network_config.depth),
        ("model.block.head", lambda rule: rule.block.head),
        ("model.optimizer.foreach", lambda rule: rule.prepare(rule.data).configure_optimizers().defaults["foreach"]),
    ],
)
def test_null_is_null_also_for_settings_within_a_class(capsys, setting, value):
    before = "--model.block.expansion=random", "--model.block.head=4"
    given = [f"--config={ROOT / 'configs' / 'rules' / 'clapp.yaml'}", *before, f"--{setting}=null"]
    rule = instantiate(given)
    assert value(rule) is None
    assert rule.block == Block(head=None if "head" in setting else 4, expansion="random")  # what is beside it stays
    rhm("check", *given)


def test_a_run_that_diverges_ends_and_says_so(tmp_path, capsys):
    diverges = ["--model=Backprop", "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1e6", "--data.seeds=[0,1]"]
    callbacks = ["--trainer.callbacks+=RepresentationGeometry", "--trainer.callbacks+=GradientAlignment"]
    rhm("fit", *diverges[:1], *RUN, *diverges[1:], *callbacks, "--trainer.max_steps=30", f"--run_dir={tmp_path / 'a'}")
    assert "diverged, with weights that are not finite" in " ".join(capsys.readouterr().out.split())
    results = json.loads((tmp_path / "a/results.json").read_text())
    assert results["status"] == "finished" and [r["diverged"] for r in results["replicas"]] == [True, True]
    assert all(0 <= r["test_accuracy"] <= 0.6 for r in results["replicas"])
    rhm("fit", "--model=Backprop", *RUN, f"--run_dir={tmp_path / 'b'}")
    assert not json.loads((tmp_path / "b/results.json").read_text())["replicas"][0]["diverged"]


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
    probes = [line for line in out.splitlines() if line.startswith("│     3 │")][0].split("│")[2]
    own = [r["probe"]["layer3"]["level0"] for r in results["replicas"] if (r["train_size"], r["label_size"]) == (64, 16)]
    assert probes.split() == [f"{sum(own) / 2:.3f}", "±", f"{abs(own[0] - own[1]) / 2**0.5:.3f}"]
    kept = {}

    def keep(panels, *args):
        kept.update(panels[""])
        return learning_curves(panels, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.curves.learning_curves", keep)
        rhm("curves", f"--run_dirs=[{tmp_path / 'a'}]", f"--out={tmp_path / 'c.png'}")
    assert [name.rsplit(", ", 1)[1] for name in kept] == ["4 labels", "16 labels"]
    own = [r["test_accuracy"] for r in results["replicas"] if (r["train_size"], r["label_size"]) == (32, 16)]
    assert list(kept.values())[1].mean[0] == pytest.approx(sum(own) / 2)


def test_probes_that_are_fitted_on_training_strings_say_so(tmp_path, capsys):
    few = ["--data.L=2", "--data.m=1", "--data.train_size=2", "--data.test_size=1"]
    rhm("fit", "--model=Backprop", *RUN, *few, f"--run_dir={tmp_path / 'a'}")
    assert "2 of the 3 strings that probes are fitted on are training strings too" in capsys.readouterr().err
    results = json.loads((tmp_path / "a/results.json").read_text())
    assert (results["probe_strings"], results["probe_strings_trained_on"]) == (3, 2)
    rhm("fit", "--model=Backprop", *RUN, f"--run_dir={tmp_path}/b")
    assert "probes are fitted on" not in capsys.readouterr().err

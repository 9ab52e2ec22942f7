"""``rhm fit``, ``check``, ``validate`` and ``test``: what runs leave, how they go on, and what is refused in one line."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from command_line import RUN, SMALL, refused, results, rhm, weights
from rule_helpers import every

ROOT = Path(__file__).parents[3]


RULES = sorted((ROOT / "configs" / "rules").glob("*.yaml"))
SMALL_TASK = ["--data.L=2", "--data.m=3", "--data.train_size=32", "--data.test_size=32", "--data.probe_size=32"]


@pytest.mark.parametrize("rule", RULES, ids=lambda p: p.stem)
@pytest.mark.chaos  # slow; each file is trained by other tests, read by its parser
def test_every_rules_settings_run_from_the_command_line(rule, tmp_path, capsys):
    rhm("fit", f"-c={rule}", *RUN, *SMALL_TASK, "--trainer.max_steps=3", f"--run_dir={tmp_path / 'a'}")
    assert "ridge probes" in capsys.readouterr().out
    assert json.loads((tmp_path / "a" / "results.json").read_text())["status"] == "finished"


@pytest.mark.parametrize("rule", RULES[::12], ids=lambda p: p.stem)
def test_every_rules_settings_are_taken_by_the_command_line(rule, tmp_path, capsys):
    rhm("check", f"-c={rule}", *RUN, *SMALL_TASK, "--trainer.max_steps=3", f"--run_dir={tmp_path / 'a'}")
    assert not list(tmp_path.iterdir())


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
    assert content["supervision"] == {
        "rule": "none",
        "pairs": "SiblingPairs",
        "layers": ["rule", "rule", "labels"],
        "readout": "labels",
        "readout_labels": [32, 64, 32, 64],
    }
    assert [(r["seed"], r["train_size"]) for r in content["replicas"]] == [(3, 32), (3, 64), (1, 32), (1, 64)]
    network = {"class": "HierarchicalNetwork", "units": [8, 8, 8], "handed_on": [4, 4, 8]}
    assert content["network"] == {**network, "bottleneck": 4, "activation": "relu", "normalise": False}
    assert content["steps"] == content["max_steps"] == 6 and content["samples_seen"] == 96 and content["seconds"] > 0
    assert content["operations_per_string"] > 8 * 4 * 3  # the top layer's readout, thrice
    assert content["samples_per_second"] == pytest.approx(96 * 4 / content["seconds"], rel=0.01)
    assert set(content["versions"]) == {"rhm-local-learning", "python", "torch", "pytorch-lightning", "torchmetrics"}
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


@pytest.mark.chaos
def test_a_run_killed_at_half_goes_on_to_the_same_weights_and_results(tmp_path):
    steps = ["--trainer.max_steps=240", "--trainer.val_check_interval=70", "--checkpoint_every=20"]
    command = [sys.executable, "-m", "experiments.cli", "fit", "--model=LayerwiseContrastive", "--data.pairs=ClassPairs"]
    command += [*SMALL, *steps, "--data.seeds=[0,1]"]
    rhm(*command[3:], f"--run_dir={tmp_path / 'whole'}")
    folder = tmp_path / "killed"
    process = subprocess.Popen(
        [*command, f"--run_dir={folder}"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not any(int(p.stem.split("=")[1]) >= 100 for p in (folder / "checkpoints").glob("*.ckpt")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "results.json").exists()
    rhm(*command[3:], f"--run_dir={folder}")
    whole, killed = weights(tmp_path / "whole"), weights(folder)
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert results(tmp_path / "whole") == results(folder)


@pytest.mark.chaos
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


@pytest.mark.chaos
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


@pytest.mark.parametrize("seed", ["1", "2", "true", "0"])
def test_a_seed_that_would_change_nothing_is_refused(seed, tmp_path, capsys):
    line = refused(capsys, "fit", "--model=Backprop", *RUN, f"--seed_everything={seed}", f"--run_dir={tmp_path / 'a'}")
    assert line.startswith("rhm: seed_everything: got ") and "data.seeds" in line and not list(tmp_path.iterdir())


def test_check_prints_nothing_when_all_is_well_and_writes_nothing(capsys, tmp_path):
    rhm("check", "--model=Backprop", *RUN, f"--run_dir={tmp_path / 'a'}")
    assert capsys.readouterr() == ("", "") and not list(tmp_path.iterdir())


QUICK = f"-c={ROOT / 'configs/quickstart.yaml'}"


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
    "mistyped link": (["--data.train_size=${data.Ll}"], ["data.train_size", "${data.Ll}", "an integer of at least 1"]),
    "ranks that are forks": (
        ["--trainer.strategy=ddp_spawn", "--trainer.devices=2"],
        ["trainer.strategy", "ddp_spawn", "auto or ddp"],
    ),
    "layers in parts": (["--trainer.strategy=fsdp"], ["trainer.strategy", "fsdp", "auto or ddp"]),
    "a logger that is not installed": (["--trainer.logger=WandbLogger"], ["WandbLogger", "pip install", "packages"]),
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
    "no network": (["--model.network=null"], ["model.network", "null", "the name of a class"]),
    "no batch size": (["--data.batch_size=null"], ["data.batch_size", "null", "int"]),
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


@pytest.mark.parametrize("case", every(2, RULE_REFUSED))
def test_a_rule_is_refused_what_it_cannot_have(case, capsys, tmp_path):
    arguments, words = RULE_REFUSED[case]
    line = refused(capsys, "fit", *arguments, f"--run_dir={tmp_path / 'a'}")
    assert line.startswith("rhm: ") and all(word in line for word in words), line
    assert not list(tmp_path.iterdir())


CHECKED = (
    "m*v > v**s",
    "unknown data key",
    "gradient clipping",
    "siblings in a dense network",
    "learning rate",
    "no such file",
)
"""A case for each place at which something is refused: ``check`` is a fit that ends where it would train."""


@pytest.mark.parametrize(
    ("command", "case"), every(4, [*(("fit", case) for case in REFUSED), *(("check", case) for case in CHECKED)])
)
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
        ("trainer: 3", ["trainer: got 3", "rhm fit --help"]),
    ],
)
def test_a_settings_file_that_is_wrong_is_refused_in_one_line(text, words, capsys, tmp_path):
    (tmp_path / "bad.yaml").write_text(text + "\n")
    line = refused(capsys, "fit", QUICK, f"-c={tmp_path / 'bad.yaml'}", f"--run_dir={tmp_path / 'a'}")
    assert all(word in line for word in words), line


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


def test_callbacks_and_profilers_that_people_bring_do_what_they_are_for(tmp_path, capsys, caplog):
    """Each beside those that every run has; a bar of Lightning's takes the place of ours."""
    run = ["fit", "--model=Backprop", *RUN, "--tables=false"]
    logger = logging.getLogger("pytorch_lightning.profilers.profiler")
    with caplog.at_level("INFO", logger.name):
        logger.addHandler(caplog.handler)  # Lightning 2.5 hands its records on to nobody above
        rhm(*run, "--trainer.profiler=simple", f"--run_dir={tmp_path / 'profiled'}")
        logger.removeHandler(caplog.handler)
    assert "Profiler Report" in caplog.text
    bar, timer = "--trainer.callbacks=RichProgressBar", "--trainer.callbacks+=Timer"
    rhm(*run, bar, timer, "--trainer.callbacks.duration=00:00:01:00", f"--run_dir={tmp_path / 'timed'}")
    out, err = capsys.readouterr()
    assert "6/6" in out and "step 6/6" not in err
    kept = yaml.safe_load((tmp_path / "timed/config.yaml").read_text())["trainer"]["callbacks"]
    assert [callback["class_path"].rpartition(".")[2] for callback in kept] == ["RichProgressBar", "Timer"]
    assert kept[1]["init_args"]["interval"] == "step"


def test_probes_that_are_fitted_on_training_strings_say_so(tmp_path, capsys):
    few = ["--data.L=2", "--data.m=1", "--data.train_size=2", "--data.test_size=1"]
    rhm("fit", "--model=Backprop", *RUN, *few, f"--run_dir={tmp_path / 'a'}")
    assert "2 of the 3 strings that probes are fitted on are training strings too" in capsys.readouterr().err
    results = json.loads((tmp_path / "a/results.json").read_text())
    assert (results["probe_strings"], results["probe_strings_trained_on"]) == (3, 2)
    rhm("fit", "--model=Backprop", *RUN, f"--run_dir={tmp_path}/b")
    assert "probes are fitted on" not in capsys.readouterr().err

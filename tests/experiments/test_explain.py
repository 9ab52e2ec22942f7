"""What a person got wrong, in one line: the key, what it got and what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from command_line import refused

from experiments.explain import explain

ROOT = Path(__file__).parents[2]


QUICK = f"-c={ROOT / 'configs/quickstart.yaml'}"


STUDY = f"-c={ROOT / 'configs/studies/depth.yaml'}"


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
            "model.network: got ConvNet, allowed: one of CodeNetwork, CompetitiveNetwork, DenseNetwork, "
            "HierarchicalNetwork, LocallyConnectedNetwork, SiblingNetwork, VectorNetwork; did you mean 'CodeNetwork'?",
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
            "data.pairs.help: got Pear, allowed: one of ClassPairs, HalfPairs, MaskedPairs, PositionHalfPairs, RandomHalfPairs, "
            "SelfPairs, SiblingPairs, SynonymPairs",
        ),
        (
            ["fit", "--model.network.help=HierarchicalNetwork"],
            "model: got nothing, allowed: --model=NAME or a settings file with -c, before --model.network.help",
        ),
        (
            ["check", "--model=VICReg", "--data.pairs.level=3"],
            "data.pairs: got nothing, allowed: --data.pairs=NAME or a settings file with -c, before --data.pairs.level",
        ),
        (
            ["check", "--model=dfa"],
            "model: got dfa, allowed: the name of a class; did you mean '-c configs/rules/dfa.yaml'?",
        ),
        (
            ["check", QUICK, "--trainer.callbacks=EarlyStoping"],
            "trainer.callbacks: got EarlyStoping, allowed: the name of a class; did you mean 'EarlyStopping'?",
        ),
        (["check", "--model=LocalRule"], "model: got LocalRule, allowed: the name of a class that is not abstract"),
        (["fit", "-c"], "config: got nothing, allowed: --config=VALUE"),
        (["describe", "--depth=9"], "depth: unknown key, allowed: keys that `rhm describe --help` lists"),
        (["describe", "--modle=Backprop"], "modle: unknown key, allowed: keys that `rhm describe --help` lists"),
        (
            ["sweep", STUDY, "--stepz=3"],
            "stepz: unknown key, allowed: keys that `rhm sweep --help` lists; did you mean 'steps'?",
        ),
        (["sweep", STUDY, "--search=3"], "search: got 3, allowed: settings that `rhm sweep --help` lists"),
        (
            ["sweep", STUDY, "--steps=5"],
            "steps: got 5, allowed: settings that `rhm sweep --help` lists, such as --steps.epochs, --steps.least, --steps.most",
        ),
        (
            ["sweep", STUDY, "--model.network.width=128"],
            "model.network.width: unknown key, allowed: keys that `rhm sweep --help` lists; a setting of all runs is given as "
            "'--settings.model.KEY'",
        ),
        (["sweep", STUDY, "--settings.data.L=4"], "settings.data.L: got 4, allowed: in its place, tasks of the study"),
        (
            ["sweep", STUDY, '--search={"trails": 3}'],
            "search.trails: unknown key, allowed: keys that `rhm sweep --help` lists; did you mean 'trials'?",
        ),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(arguments, line, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert refused(capsys, *arguments) == f"rhm: {line}"


def test_what_is_not_understood_is_passed_on_in_one_line():
    assert explain("something\n  new", {}, ()) == "something new"

"""Settings files, and rules that are built from settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from command_line import refused, rhm
from rule_helpers import every, from_settings, small
from run_processes import equal

from experiments.files import read_settings
from experiments.settings import check_given, instantiate, parse
from rhm import InvalidInput
from rules.base.block import Block

ROOT = Path(__file__).parents[2]


QUICK = f"-c={ROOT / 'configs/quickstart.yaml'}"


@pytest.mark.parametrize(("text", "why"), [("", "with settings"), ("- a", "with settings"), ("data: [", "line 1, column 8")])
def test_a_settings_file_that_cannot_be_read_is_named(text, why, capsys, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    line = refused(capsys, "check", QUICK, "-c", str(tmp_path / "bad.yaml"))
    assert line.startswith(f"rhm: config: got {tmp_path / 'bad.yaml'}, allowed: a YAML file") and why in line


NULLS = {
    "model.network.bottleneck": lambda rule: rule.network_config.bottleneck,
    "model.network.depth": lambda rule: rule.network_config.depth,
    "model.block.head": lambda rule: rule.block.head,
    "model.clip": lambda rule: rule.clip,
    "model.optimizer.foreach": lambda rule: rule.prepare(rule.data).configure_optimizers().defaults["foreach"],
    "data.train_size": lambda rule: rule.data.replica_sizes[0],
}
FULL = {
    "model.network.bottleneck": "model.init_args.network.init_args.bottleneck",
    "model.network.depth": "model.network.init_args.depth",
    "model.block.head": "model.init_args.block.head",
    "model.clip": "model.init_args.clip",
    "model.optimizer.foreach": "model.init_args.optimizer.init_args.foreach",
    "data.train_size": "data.init_args.train_size",
}


@pytest.mark.parametrize("setting", NULLS)
def test_null_is_null_also_for_settings_within_a_class(setting):
    """In every form: with a space, by the full path, as Python writes it."""
    before = "--model.block.expansion=random", "--model.block.head=4", "--model.clip=1", "--model.optimizer.foreach=true"
    given = [f"--config={ROOT / 'configs' / 'rules' / 'clapp.yaml'}", *before]
    for form in (
        [f"--{setting}=null"],
        [f"--{setting}", "null"],
        [f"--{FULL[setting]}=null"],
        [f"--{FULL[setting]}", "None"],
        [f"--{setting}=~"],
    ):
        rule = instantiate([*given, *form])
        assert NULLS[setting](rule) is None, form
        assert rule.block == Block(head=None if "head" in setting else 4, expansion="random")  # what is beside it stays


def test_null_is_null_in_a_command_too(capsys, tmp_path):
    given = [
        f"-c={ROOT / 'configs' / 'rules' / 'clapp.yaml'}",
        "--model.network.bottleneck",
        "null",
        "--model.block.head",
        "null",
    ]
    look = ["--trainer.callbacks+=RepresentationGeometry", "--trainer.callbacks.reference", "null"]
    with pytest.raises(SystemExit):
        rhm("fit", *given, *look, f"--run_dir={tmp_path / 'a'}", "--print_config")
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["init_args"]["network"]["init_args"]["bottleneck"] is None
    assert printed["trainer"]["callbacks"][0]["init_args"]["reference"] is None
    rhm("check", *given, *look, f"--run_dir={tmp_path / 'a'}")
    assert capsys.readouterr() == ("", "")


TWICE = {
    "a block": (
        "trainer: {max_steps: 3}\nmodel: {class_path: Backprop}\ntrainer: {devices: 1}",
        "trainer stands twice, in lines 1 and 3",
    ),
    "deep": ("model:\n  init_args:\n    clip: 1\n    clip: 2", "model.clip stands twice, in lines 3 and 4"),
    "in a list": (
        "trainer: {callbacks: [{class_path: StepLog}, {class_path: A, class_path: B}]}",
        "callbacks.1.class_path stands",
    ),
    "a branch and dots": ("data: {init_args: {L: 3}}\ndata.L: 4", "data.L stands twice, in lines 1 and 2"),
    "a part of itself": ("model: &a {init_args: *a}", "model.init_args lies within itself"),
    "too deep": ("[" * 1000, "too many levels"),
    "no date": ("data: 2020-13-45", "month must be in"),
}


@pytest.mark.parametrize("case", TWICE)
def test_a_settings_file_that_says_something_twice_or_within_itself_is_refused(case, capsys, tmp_path):
    text, why = TWICE[case]
    (tmp_path / "bad.yaml").write_text(text)
    file, run_dir = str(tmp_path / "bad.yaml"), f"--run_dir={tmp_path / 'a'}"
    for args in (
        ["fit", f"-c={file}", run_dir],
        ["check", QUICK, "--config", file],
        ["sweep", "-c", file, run_dir],
    ):
        line = refused(capsys, *args)
        assert file in line and "allowed: a YAML file" in line and why in line, line
    assert not (tmp_path / "a").exists()


def test_settings_that_are_typed_or_lie_in_a_file_of_their_own_say_each_key_once(capsys, tmp_path):
    (tmp_path / "model.yaml").write_text("class_path: Backprop\ninit_args: {clip: 1}\ninit_args: {clip: 2}")
    assert "init_args stands twice, in lines 2 and 3" in refused(capsys, "check", f"--model={tmp_path / 'model.yaml'}")
    for args in (
        ["--model={class_path: Backprop, class_path: DirectFeedbackAlignment}"],
        ["--model=Backprop", "--data.pairs={class_path: ClassPairs, class_path: SiblingPairs}"],
        ["--model=Backprop", "--trainer.callbacks=[{class_path: StepLog, class_path: EventFiles}]"],
    ):
        assert "class_path stands twice" in refused(capsys, "check", *args)


def test_settings_that_are_merged_or_repeated_by_name_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("base: &b {v: 4, n: 4}\ndata: {init_args: {<<: *b, n: 2, m: 2}}\nother: *b")
    assert read_settings("config", tmp_path / "a.yaml")["data"] == {"init_args": {"v": 4, "n": 2, "m": 2}}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("data.seeds", "3", [3]),
        ("data.seeds", "[3, 4]", [3, 4]),
        ("data.seeds", "[1e1]", [10]),
        ("data.train_size", "1e3", 1000),
        ("data.train_size", "[1e3, 64]", [1000, 64]),
        ("data.train_size", "[64]", 64),
        ("data.train_size", "null", None),
        ("data.label_size", "[1e1]", 10),
        ("data.batch_size", "1.5E2", 150),
        ("model.network.width", "1e2", 100),
        ("model.clip", "1e1", 10.0),
    ],
)
@pytest.mark.parametrize("form", ["=", " ", "file"])
def test_numbers_are_read_as_they_are_meant_in_every_form(form, key, text, value, tmp_path):
    if form == "file":
        branch, *inside = key.split(".")
        tree = f"{{init_args: {{{inside[-1]}: {text}}}}}"
        tree = tree if len(inside) == 1 else f"{{init_args: {{network: {{class_path: DenseNetwork, {tree[1:]}}}}}"
        classes = {"data": "RHMDataModule", "model": "Backprop"}
        (tmp_path / "a.yaml").write_text(f"{branch}: {{class_path: {classes[branch]}, {tree[1:]}")
        args = [f"--config={tmp_path / 'a.yaml'}"]
    else:
        args = [f"--{key}={text}"] if form == "=" else [f"--{key}", text]
    settings = parse(["--model=Backprop", *args])
    for part in key.split("."):
        settings = settings[part] if part in ("data", "model") else settings["init_args"][part]
    assert settings == value and type(settings) is type(value)


def test_the_trainer_takes_a_power_of_ten_too(capsys, tmp_path):
    args = ["--model=Backprop", "--trainer.max_steps=2e1", "--checkpoint_every", "1e1", f"--run_dir={tmp_path / 'a'}"]
    with pytest.raises(SystemExit):
        rhm("fit", *args, "--print_config")
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["trainer"]["max_steps"] == 20 and printed["checkpoint_every"] == 10


@pytest.mark.parametrize("key", ["seeds", "train_size", "label_size", "batch_size", "v", "test_size"])
@pytest.mark.parametrize("value", every(3, ["1.5", "true", "abc", "[1.5]", "[true]", "{a: 1}", "1e-3"]))
def test_what_is_no_integer_is_refused_by_its_name(key, value, capsys, tmp_path):
    line = refused(capsys, "check", QUICK, f"--data.{key}", value, f"--run_dir={tmp_path / 'a'}")
    assert line.startswith(f"rhm: data.{key}: got ")


@pytest.mark.parametrize("name", ["dfa", "sibling_contrastive", "clapp", "gevb", "exchange_clustering"])
@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["--model.network.width=6", "--model.optimizer.lr=1e-2"],
        ["--model.clip=0.1", "--data.train_size=[32,64,16]", "--data.batch_size=8"],
        ["--model.network=LocallyConnectedNetwork"],
        ["--data.pairs=ClassPairs", "--model.network.bottleneck=6"],
        ["--data.pairs=null"],
    ],
)
def test_rules_that_tests_build_are_those_of_the_command_line(name, changes):
    """What tests change in memory, :func:`rule_helpers.from_settings`, is what the parser would read, also where it refuses."""

    def built(build):
        try:
            rule = build()
        except Exception as error:
            return type(error), re.findall(r"\w[\w.]+: got .*", str(error)) or str(error)
        plain = {key: value for key, value in vars(rule).items() if isinstance(value, bool | int | float | str | tuple)}
        return (
            plain,
            vars(rule.network_config),
            vars(rule.data.pairs or object).keys(),
            rule.optimizer.keywords,
            rule.state_dict(),
        )

    def by_parser():
        rule = instantiate([*small(name), "--data.seeds=[0, 1, 2]", *changes])
        return rule.prepare(rule.data)

    assert equal(built(lambda: from_settings(name, *changes)), built(by_parser))


WRONG = {
    "null": {
        "data.v": "int",
        "data.seeds": "one integer or more",
        "data.pairs": "one of SiblingPairs",
        "model.network": "the name of a class",
        "model.network.width": "int",
        "model.network.activation": "str",
        "model.block": "head, separate_heads, expansion, end_to_end, all_losses, each by its name",
        "model.redundancy": "float",
        "model.optimizer": "the name of a class",
        "model.optimizer.lr": "float",
        "trainer": "settings that",
        "trainer.max_steps": "int",
    },
    "abc": {
        "data": "one of RHMDataModule",
        "data.batch_size": "int",
        "data.pairs": "one of ClassPairs",
        "model.network": "one of CodeNetwork",
        "model.block": "settings that `rhm fit --model.help=RULE` lists",
        "model.block.head": "an integer of at least 1, v, 2v",
        "trainer": "settings that",
        "trainer.accelerator": "auto or cpu",
    },
    "-1": {
        "data": "settings that `rhm fit --data.help` lists",
        "data.test_size": "an integer",
        "model.network": "settings that",
        "model.network.width": "an integer of at least 1",
        "model.block": "settings that",
        "model.optimizer": "settings that",
    },
    "[]": {
        "data.seeds": "different integers",
        "data.train_size": "an integer of at least 1",
        "model.block": "head, separate_heads, expansion, end_to_end, all_losses, each by its name",
        "model.network.bottleneck": "int or str",
        "model.optimizer.lr": "float",
    },
}


@pytest.mark.parametrize(("value", "key"), every(3, [(value, key) for value, keys in WRONG.items() for key in keys]))
def test_what_a_setting_does_not_take_is_refused_by_its_name(value, key, capsys, tmp_path):
    allowed = WRONG[value][key]
    args = f"-c={ROOT / 'configs/rules/barlow_twins.yaml'}", "--trainer.accelerator=cpu", f"--run_dir={tmp_path / 'a'}"
    for form in [f"--{key}={value}"], [f"--{key}", value]:
        line = refused(capsys, "check", *args, *form)
        assert line.startswith(f"rhm: {key}: got ") and f"allowed: {allowed}" in line, line


@pytest.mark.parametrize("key", ["data", "data.L", "model.network", "model.network.width", "model.block", "model.optimizer.lr"])
def test_null_in_a_file_is_refused_by_its_name(key, capsys, tmp_path):
    content = read_settings("config", ROOT / "configs/quickstart.yaml")
    node, path = content, FULL.get(key, key).split(".")
    for part in path[:-1]:
        node = node[part]
        node = node.setdefault("init_args", node) if "class_path" in node else node
    node[path[-1]] = {"separate_heads": None} if key == "model.block" else None
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    line = refused(capsys, "check", f"-c={tmp_path / 'a.yaml'}", f"--run_dir={tmp_path / 'a'}")
    assert line.startswith(f"rhm: {key}"), line


def test_null_is_refused_where_a_rule_is_built_without_a_run():
    with pytest.raises(InvalidInput, match="model.network.width: got null, allowed: int"):
        instantiate([QUICK.replace("-c", "--config"), "--model.network.width=null"])


def test_null_is_taken_where_it_is_the_default_whatever_the_hint_says():
    class Foreign:
        def __init__(self, a: int = None, b: int = 0):
            pass

    check_given({"a": None, "b": 1}, kind=Foreign)
    with pytest.raises(InvalidInput, match="place.b: got null"):
        check_given({"a": None, "b": None}, "place", Foreign)


def test_null_within_a_list_of_classes_is_refused_by_its_name():
    looks = [
        {"class_path": f"callbacks.{name}", "init_args": {"every": every}}
        for name, every in (("StepLog", 5), ("StepLog", None))
    ]
    check_given({"callbacks": looks[:1]}, "trainer")
    with pytest.raises(InvalidInput, match="trainer.callbacks.every: got null, allowed: int"):
        check_given({"callbacks": looks}, "trainer")


@pytest.mark.parametrize(("head", "width"), [("v", 4), ("3v", 12), ("5", 5), ("null", None)])
def test_a_head_is_as_wide_as_it_says_on_the_task(head, width):
    rule = from_settings("sibling_contrastive", f"--model.block.head={head}")
    matrix = rule.network.layers[0].head.head_RCE
    assert rule.data.task.v == 4 and (None if matrix is None else matrix.shape[-1]) == width

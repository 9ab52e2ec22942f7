"""Settings files, and rules that are built from settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import refused, rhm

from experiments.settings import instantiate, parse
from rules.base.block import Block

ROOT = Path(__file__).parents[2]


QUICK = f"-c={ROOT / 'configs/quickstart.yaml'}"


@pytest.mark.parametrize(("text", "why"), [("", "with settings"), ("- a", "with settings"), ("data: [", "line 1, column 8")])
def test_a_settings_file_that_cannot_be_read_is_named(text, why, capsys, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    line = refused(capsys, "check", QUICK, "-c", str(tmp_path / "bad.yaml"))
    assert line.startswith(f"rhm: config: got {tmp_path / 'bad.yaml'}, allowed: a YAML file") and why in line


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


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("--data.seeds=3", "seeds", [3]),
        ("--data.seeds=[3,4]", "seeds", [3, 4]),
        ("--data.train_size=1e3", "train_size", 1000),
        ("--data.train_size=[1e3,64]", "train_size", [1000, 64]),
        ("--data.batch_size=1.5E2", "batch_size", 150),
    ],
)
def test_numbers_of_the_data_are_read_as_they_are_meant(argument, key, value):
    given = parse(["--model=Backprop", argument])["data"]["init_args"][key]
    assert given == value and type(given) is type(value)

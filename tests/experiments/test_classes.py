"""Rules, networks and callbacks of one's own, in the folder where a command is started."""

from __future__ import annotations

import json
import sys

import pytest
import yaml
from command_line import RUN, SMALL, refused, rhm
from sweeps import results, sweep, write

from experiments.run.load import load_run
from rhm.names import LastFolder, look_in

RULES = '''
from pytorch_lightning import Callback

from networks import HierarchicalNetwork
from rules import Locality, LocalRule
from rules.base.direct_feedback import DirectFeedback


class MyRule(DirectFeedback):
    """The sign of the error, times a gain."""

    locality = Locality(error=True)

    def __init__(self, network=HierarchicalNetwork(8), gain: float = 1.0):
        super().__init__(network)
        self.gain = gain

    def teaching_signal(self, step):
        return self.gain * step.readout.error_RBN.sign()


class MyNetwork(HierarchicalNetwork):
    """With a width of its own."""

    def __init__(self, width: int = 6):
        super().__init__(width)


class MyCallback(Callback):
    """Says that it was there."""

    def on_train_end(self, trainer, pl_module):
        print("mine:", type(pl_module).__name__, pl_module.network.layers[0].weight_RGFE.shape[-1])


class NoRule:
    """Of another kind."""


class Abstract(LocalRule):
    """Without updates."""

    knowledge = "none"


class Raises(DirectFeedback):
    """Its constructor does."""

    locality = Locality(error=True)

    def __init__(self):
        super().__init__()
        raise KeyError("depth")

    def teaching_signal(self, step):
        return step.readout.error_RBN


class Untyped(MyRule):
    """Does not say what its network is."""

    def __init__(self, network, gain=1.0):
        super().__init__(network, gain)


class Odd(DirectFeedback):
    """Its locality is not true."""

    locality = Locality()

    def teaching_signal(self, step):
        return step.readout.error_RBN
'''


@pytest.fixture(autouse=True)
def mylab(tmp_path, monkeypatch):
    """A folder to be in with ``mylab``, of which nothing stays imported."""
    monkeypatch.chdir(tmp_path)
    files = {"__init__": "", "rules": RULES, "syntax": "class A(:\n", "missing": "import not_there\n"}
    files |= {"raising": "\nraise RuntimeError('no file x')\n", "leaving": "raise SystemExit(3)\n"}
    (tmp_path / "mylab").mkdir()
    for name, text in files.items():
        (tmp_path / "mylab" / f"{name}.py").write_text(text, encoding="utf-8")
    before = list(sys.meta_path)
    yield tmp_path
    sys.meta_path[:] = before
    for name in [name for name in sys.modules if name.split(".")[0] == "mylab"]:
        del sys.modules[name]


def test_a_rule_a_network_and_a_callback_of_ones_own_are_run_measured_and_loaded(mylab, capsys):
    own = {"class_path": "mylab.rules.MyRule", "init_args": {"gain": 2.0, "network": {"class_path": "mylab.rules.MyNetwork"}}}
    (mylab / "mine.yaml").write_text(yaml.safe_dump({"model": own}), encoding="utf-8")
    small = [argument for argument in RUN if "width" not in argument]
    rhm("fit", "-c=mine.yaml", *small, "--run_dir=a", "--trainer.callbacks+=mylab.rules.MyCallback")
    assert "mine: MyRule 6" in capsys.readouterr().out
    assert json.loads((mylab / "a/results.json").read_text(encoding="utf-8"))["rule"] == "MyRule"
    rhm("test", "--run_dir=a")
    assert "test accuracy" in capsys.readouterr().out
    rule = load_run("a")
    assert type(rule).__name__ == "MyRule" and rule.gain == 2.0 and rule.network_config.width == 6


def test_a_study_takes_a_file_and_a_class_of_ones_own(mylab):
    (mylab / "mine.yaml").write_text(yaml.safe_dump({"model": {"class_path": "mylab.rules.MyRule"}}), encoding="utf-8")
    rules = ["./mine.yaml", {"rule": "mylab.rules.MyRule", "settings": {"model.gain": 2.0}}]
    sweep(write(mylab / "s.yaml", rules=rules, search=None, callbacks=["mylab.rules.MyCallback"]), "--run_dir=s")
    task = "v4_n4_m2_s2_L3/grid"
    assert results(mylab / "s").keys() == {f"mine/{task}", f"MyRule/{task}"}
    config = yaml.safe_load((mylab / f"s/runs/MyRule/{task}/config.yaml").read_text(encoding="utf-8"))
    assert config["model"]["class_path"] == "mylab.rules.MyRule" and config["model"]["init_args"]["gain"] == 2.0
    rhm("report", "s")


LINES = {
    "mylab.syntax.A": "(SyntaxError: invalid syntax, mylab/syntax.py, line 1), allowed: a class whose module can be imported",
    "mylab.missing.A": "(ModuleNotFoundError: No module named 'not_there', mylab/missing.py, line 1), allowed: a class whose "
    "module can be imported",
    "mylab.raising.A": "(RuntimeError: no file x, mylab/raising.py, line 2), allowed: a class whose module can be imported",
    "mylab.leaving.A": "(SystemExit: 3, mylab/leaving.py, line 1), allowed: a class whose module can be imported",
    "mylab.rules.MyRul": "(no MyRul in mylab/rules.py), allowed: a class that is there; did you mean 'MyRule'?",
    "mylab.rulez.MyRule": "(no module mylab.rulez in mylab/__init__.py), allowed: a class that is there",
    "nolab.Pepito": "(no module nolab in {folder} or on Python's path), allowed: a class whose module is there",
    "mylab.rules.NoRule": "(no LocalRule), allowed: a subclass of LocalRule",
    "mylab.rules.MyNetwork": "(no LocalRule), allowed: a subclass of LocalRule",
    "mylab.rules": "(a module), allowed: the path of a class: MODULE.CLASS",
    "mylab.rules.Untyped": "(network has no type), allowed: a class that says network: NetworkConfig",
    "mylab.rules.Abstract": "(abstract, without layer_updates), allowed: a class that defines layer_updates",
}


@pytest.mark.parametrize("where", ["argument", "file", "study"])
@pytest.mark.parametrize("path", LINES)
def test_what_is_wrong_with_a_class_is_said_as_it_is_and_nothing_is_written(path, where, mylab, capsys):
    (mylab / "mine.yaml").write_text(yaml.safe_dump({"model": {"class_path": path}}), encoding="utf-8")
    given = {"argument": ["check", f"--model={path}"], "file": ["check", "-c=mine.yaml"]}
    given["study"] = ["sweep", write(mylab / "s.yaml", rules=["dfa", path], search=None), "--launcher=debug"]
    line = refused(capsys, *given[where], "--run_dir=a")
    key = "rules" if where == "study" else "model"
    assert line == f"rhm: {key}: got {path} {LINES[path].format(folder=mylab)}"
    assert not (mylab / "a").exists() and not (mylab / "runs").exists()


@pytest.mark.parametrize(
    ("key", "argument"),
    [
        ("model.network", "--model.network=mylab.missing.A"),
        ("model.network", "--model.init_args.network.class_path=mylab.missing.A"),
        ("model.network", '--model.network={"class_path": "mylab.missing.A"}'),
        ("data.pairs", "--data.pairs=mylab.missing.A"),
        ("trainer.callbacks", "--trainer.callbacks+=mylab.missing.A"),
        ("trainer.callbacks", '--trainer.callbacks=[{"class_path": "mylab.missing.A"}]'),
        ("trainer.logger", '--trainer.logger={"class_path": "mylab.missing.A"}'),
        ("model", "--model.help=mylab.missing.A"),
    ],
)
def test_the_key_is_that_of_the_class(key, argument, capsys):
    line = refused(capsys, "check", "--model=Backprop", *SMALL, argument)
    assert line.startswith(
        f"rhm: {key}: got mylab.missing.A (ModuleNotFoundError: No module named 'not_there', mylab/missing.py"
    )


def test_a_constructor_that_raises_is_named_with_its_line(mylab, capsys):
    line = refused(capsys, "fit", "--model=mylab.rules.Raises", "--data.L=3", "--run_dir=a")
    place = RULES.splitlines().index('        raise KeyError("depth")') + 1
    assert line == (
        f"rhm: model: got mylab.rules.Raises (KeyError: 'depth', mylab/rules.py, line {place}), allowed: a class that can be built"
    )
    assert not (mylab / "a").exists()


def test_a_folder_with_a_name_of_ours_is_told_to_take_another(mylab, capsys):
    (mylab / "rules").mkdir()
    line = refused(capsys, "check", "--model=rules.mine.MyRule")
    assert "(no module rules.mine in " in line and line.endswith(
        "rules is a package of rhm: a folder of your own needs another name"
    )


def test_check_tries_the_contract_if_asked(capsys):
    rhm("check", "--model=mylab.rules.MyRule", *SMALL, "--contract")
    out = capsys.readouterr().out
    assert "MyRule" in out and out.count(" ok") == 14
    with pytest.raises(SystemExit) as stop:
        rhm("check", "--model=mylab.rules.Odd", *SMALL, "--contract")
    out = capsys.readouterr().out
    assert stop.value.code == 1 and "locality.error" in out and "False, but updates of layers 1, 2, 3 depend on it" in out


def test_the_folder_that_is_looked_into_is_that_of_the_command(mylab):
    rhm("describe")
    (last,) = [finder for finder in sys.meta_path if isinstance(finder, LastFolder)]
    assert last.folder == str(mylab)
    look_in("/")

"""``rhm describe``."""

from __future__ import annotations

import json

import pytest
from command_line import refused, rhm


def test_describe_prints_the_tasks_size_and_a_tree(capsys, tmp_path):
    rhm("describe", "--v=8", "--n=8", "--m=4", "--s=2", "--L=4", f"--json={tmp_path / 'g.json'}")
    out = capsys.readouterr().out
    for text in (f"{8 * 4**15:,}", "2,048", "512", "0.1250", "yes", "16"):
        assert text in out
    assert out.count("├── ") + out.count("└── ") == 30
    assert json.loads((tmp_path / "g.json").read_text())["v"] == 8
    rhm("describe", "--m=8", "--L=10", "--s=2")
    assert "no" in capsys.readouterr().out


def test_describe_draws_a_string_among_silent_positions(capsys):
    rhm("describe", "--L=2", "--string=3")
    plain = capsys.readouterr().out
    rhm("describe", "--L=2", "--string=3", "--silent=2")
    out = capsys.readouterr().out
    for text in ("S0=2", "d = (s (S0 + 1))^L", "36", "1 in (S0 + 1)^L = 9", f"{8 * 4**2 * 9:,}"):
        assert text in out
    assert out.count("·") == 3 * 4  # two of the three positions of each of six symbols below the class

    def informative(printed):
        return [line.split()[-1] for line in printed.splitlines() if "── " in line and "·" not in line]

    assert informative(out) == informative(plain) and len(informative(plain)) == 6
    rhm("describe", "--L=2", "--silent=40")
    assert "3 hidden symbols among silent ones: too many to draw" in capsys.readouterr().out


@pytest.mark.parametrize("silent", [-1, 30000])
def test_describe_refuses_what_cannot_be_silent(silent, capsys):
    assert f"silent: got {silent}, allowed: " in refused(capsys, "describe", "--L=2", f"--silent={silent}")


def test_describe_takes_a_grammar_from_a_file_and_writes_it_again(capsys, tmp_path):
    first, second = (str(tmp_path / name) for name in ("a.json", "b.json"))
    rhm("describe", "--v=4", "--n=3", "--m=2", "--L=3", "--seed=5", f"--json={first}")
    drawn = capsys.readouterr().out
    rhm("describe", f"--grammar={first}", "--seed=5", f"--json={second}")
    assert capsys.readouterr().out == drawn.replace(first, second)
    assert json.loads((tmp_path / "b.json").read_text()) == json.loads((tmp_path / "a.json").read_text())
    content = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "c.json").write_text(json.dumps(content | {"frequencies": {"level 1": [0.625, 0.375]}}))
    rhm("describe", f"--grammar={tmp_path / 'c.json'}", "--seed=5")
    assert "0.625 0.375" in capsys.readouterr().out
    assert "m: got 3, allowed: 2, as in" in refused(capsys, "describe", f"--grammar={first}", "--m=3")
    (tmp_path / "a.json").write_text("{")
    assert f"grammar: got {first} (JSONDecodeError" in refused(capsys, "describe", f"--grammar={first}")

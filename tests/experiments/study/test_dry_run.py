"""What a sweep would run."""

from __future__ import annotations

from sweeps import sweep, write


def test_a_dry_run_says_what_it_would_cost_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = write(tmp_path / "s.yaml", rules=["backprop", "dfa"], refine=1, search={"trials": 3})
    sweep(study, "--dry-run", f"--run_dir={tmp_path / 'a'}")
    out = " ".join(capsys.readouterr().out.split())
    assert "10 runs at the most" in out and "min with" in out and "MB of disk" in out
    assert [p.name for p in tmp_path.iterdir()] == ["s.yaml"]


def test_a_dry_run_says_that_the_search_chooses_how_long_runs_are(tmp_path, capsys):
    search = {"trials": 3, "rungs": 2, "steps": 90, "finalists": 1, "more_seeds": [102]}
    sweep(write(tmp_path / "s.yaml", rules=["backprop"], search=search), "--dry-run", f"--run_dir={tmp_path / 'a'}")
    assert "30 or 90" in capsys.readouterr().out

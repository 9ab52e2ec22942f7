"""``rhm curves``."""

from __future__ import annotations

from command_line import RUN, refused, rhm


def test_curves_draws_the_results_of_runs_and_refuses_what_does_not_fit(tmp_path, capsys):
    rhm("fit", "--model=Backprop", *RUN, "--data.train_size=[32,64]", f"--run_dir={tmp_path / 'a'}", "--tables=false")
    rhm("curves", f"--run_dirs=['{tmp_path / 'a'}']", f"--out={tmp_path / 'curves.png'}")
    assert "Backprop" in capsys.readouterr().out
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "overwritten" in refused(capsys, "curves", f"--run_dirs=['{tmp_path / 'a'}']", f"--out={tmp_path / 'curves.png'}")
    assert "nowhere" in refused(capsys, "curves", "--run_dirs=[nowhere]", f"--out={tmp_path / 'b.png'}")

"""Who takes a job."""

from __future__ import annotations

from experiments.study.job import take


def test_a_requeued_slurm_job_goes_on_with_what_it_had_taken_and_no_other_takes_it(tmp_path):
    assert take(tmp_path / "run", "7") and not take(tmp_path / "run", "8") and take(tmp_path / "run", "7")
    (tmp_path / "run.done").touch()
    assert not take(tmp_path / "run", "7")

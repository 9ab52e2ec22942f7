"""Who takes a job."""

from __future__ import annotations

from dataclasses import asdict

from experiments.study.job import FAILED, NOTHING_CHOSEN, Failure, take


def test_a_requeued_slurm_job_goes_on_with_what_it_had_taken_and_no_other_takes_it(tmp_path):
    for end in "done", "failed":
        run = tmp_path / f"run-{end}"
        assert take(run, "7") and not take(run, "8") and take(run, "7")
        run.with_name(f"{run.name}.{end}").touch()
        assert not take(run, "7")


def test_a_failure_is_read_as_it_was_written_and_a_text_is_an_error():
    for failure in Failure("no memory"), Failure("none", NOTHING_CHOSEN):
        assert Failure.of(asdict(failure)) == failure
    assert Failure.of("stopped early: so an error may begin") == Failure("stopped early: so an error may begin", FAILED)

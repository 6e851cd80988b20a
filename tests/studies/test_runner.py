"""One way to run a study: several processes make what one makes, and every study has jobs."""

from __future__ import annotations

from dataclasses import asdict

import pandas
import pytest

from explainlib import studies
from explainlib.studies.record import PartialResults
from explainlib.studies.representers import study as representers
from explainlib.studies.runner import compute

TOY = representers.Config("digits", 60, (representers.Part("main", representers.Recipe("cnn2", 2, 10, 0.2), 2, 1),))


def test_two_processes_make_what_one_makes(tmp_path):
    kept, missing = "axioms-0", lambda: pytest.fail("a result was not made")
    alone, _ = compute(representers, TOY, tmp_path / "alone")
    theirs = PartialResults(tmp_path / "alone", asdict(TOY))
    marked = theirs.table(kept, missing).assign(violation=0.25)
    PartialResults(tmp_path / "together", asdict(TOY)).table(kept, lambda: marked)
    together, seconds = compute(representers, TOY, tmp_path / "together", processes=2)
    assert set(seconds) == set(representers.jobs(TOY, tmp_path)) == set(theirs.seconds())
    assert (together["axioms"]["violation"] == 0.25).all(), "what is on disk is not made again"
    ours = PartialResults(tmp_path / "together", asdict(TOY))
    for name in set(seconds) - {kept}:
        one, other = ours.table(name, missing), theirs.table(name, missing)
        told = [column for column in other if column != "seconds"]  # the clock differs
        pandas.testing.assert_frame_equal(one[told], other[told])


def test_a_failing_job_is_told_and_leaves_nothing_half_written(tmp_path):
    bad = representers.Config("digits", 60, (representers.Part("main", representers.Recipe("none", 1, 10, 0.1), 1, 1),))
    for processes in (1, 2):
        with pytest.raises(Exception, match="none"):
            compute(representers, bad, tmp_path, processes=processes)
        assert not list(tmp_path.glob("*.csv"))


@pytest.mark.parametrize("name", studies.names())
def test_every_study_is_run_the_same_way(tmp_path, name):
    study = studies.STUDIES[name]
    for scale in studies.SCALES:
        jobs = study.jobs(study.config(scale, None), tmp_path)
        assert jobs and all(callable(job) for job in jobs.values())
    assert not list(tmp_path.iterdir()), "nothing is computed before it is asked for"


def test_jobs_are_at_least_one(tmp_path):
    with pytest.raises((ValueError, TypeError), match="jobs"):
        studies.run("influence", out=tmp_path, jobs=0)

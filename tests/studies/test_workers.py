"""Pieces made by several processes are the pieces that one process makes."""

from __future__ import annotations

from dataclasses import asdict

import pandas
import pytest

from explainlib import studies
from explainlib.studies.record import PartialResults
from explainlib.studies.representers import study as representers
from explainlib.studies.workers import compute_parts

TOY = representers.Config("digits", 60, (representers.Part("main", representers.Recipe("cnn2", 2, 10, 0.2), 2, 1),))


def test_two_processes_make_what_one_makes(tmp_path):
    jobs = representers.jobs(TOY)
    alone = PartialResults(tmp_path / "alone", asdict(TOY))
    kept = "main-0-0"
    PartialResults(tmp_path / "together", asdict(TOY)).table(kept, lambda: pandas.DataFrame({"kept": [1]}))
    compute_parts(representers.__name__, TOY, tmp_path / "together", 2)
    together = PartialResults(tmp_path / "together", asdict(TOY))
    assert set(together.seconds()) == set(jobs)
    missing = lambda: pytest.fail("a piece was not made")  # noqa: E731
    assert together.table(kept, missing)["kept"].tolist() == [1]  # what is on disk is not made again
    for name, job in jobs.items():
        if name != kept:
            ours, theirs = together.table(name, missing), alone.table(name, job)
            told = [column for column in theirs if column != "seconds"]  # the clock differs
            pandas.testing.assert_frame_equal(ours[told], theirs[told])


def test_a_failing_piece_is_told_and_leaves_nothing_half_written(tmp_path):
    bad = representers.Config("digits", 60, (representers.Part("main", representers.Recipe("none", 1, 10, 0.1), 1, 1),))
    with pytest.raises(Exception, match="none"):
        compute_parts(representers.__name__, bad, tmp_path, 1)
    assert not list(tmp_path.glob("*.csv"))


def test_studies_whose_pieces_wait_refuse_more_than_one_process(tmp_path):
    with pytest.raises(
        ValueError, match="study 'influence' runs in one process; fragility, representers, bilevel can use more"
    ):
        studies.run("influence", out=tmp_path, jobs=2)
    with pytest.raises((ValueError, TypeError), match="jobs"):
        studies.run("influence", out=tmp_path, jobs=0)

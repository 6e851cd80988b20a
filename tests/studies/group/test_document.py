"""The group study's own words of a mark."""

from __future__ import annotations

import pandas
import pytest

from explainlib.studies.group import MAKERS
from tests.studies.documents.filling import filled as filled_mark


@pytest.fixture
def runs():
    table = pandas.DataFrame({"seed": [0, 1, 2], "n": 40, "per_test": [0.1, 0.2, 0.3], "kind": "random", "ridge": 0.1})
    return {"mnist": {"images": table}}


def filled(words, runs):
    return filled_mark(words, runs, MAKERS)


def test_marks_read_what_they_name(runs):
    assert filled("mean mnist images per_test .2f kind=random; ridge=0.1", runs) == "0.20 [-0.05, 0.45]"
    assert filled("one mnist images n", runs) == "40"
    assert filled("count mnist images", runs) == "3"
    assert filled("range mnist images per_test .1f", runs) == "0.1 to 0.3"
    with pytest.raises(ValueError, match="per_test of images has 3 values"):
        filled("one mnist images per_test", runs)


def test_an_unknown_mark_is_refused(runs):
    with pytest.raises(ValueError, match="begins with 'sum'; choose one of"):
        filled("sum mnist images", runs)

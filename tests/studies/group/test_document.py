"""The group study's document: every number in it is in a mark, and every mark is what the committed tables say."""

from __future__ import annotations

import re

import pandas
import pytest

from explainlib.studies.group import filled
from explainlib.studies.kept import FINISHED, kept_tables
from explainlib.studies.marks import unmarked
from explainlib.studies.record import parse_table

SETTINGS = {  # what the run was asked, and the paper's own words: no results
    "2020", "7", "7.3.2", "1e-2", "1e-3", "1e-4", "0.01", "28", "14", "784", "196", "5", "8", "20", "10", "12", "2,000",
    "9,000", "750", "500", "10,000", "5,000", "60,000", "1.6%", "60%", "45%", "36%", "40%", "55%", "15%", "30%", "50%",
    "3e-3", "46", "100", "300", "95%", ".01", "1", "2", "0", "-1", "1.1",
}  # fmt: skip
NUMBER = re.compile(r"(?<![\w.])-?\d*\.?\d[\d,]*(?:\.\d+)?(?:e-\d+)?%?")


@pytest.fixture(scope="module")
def runs():
    return {data: kept_tables(f"group-{data}-cpu") for data in ("mnist", "digits")}


@pytest.fixture(scope="module")
def board():
    path = FINISHED / "scoreboard.csv"
    return parse_table(path.read_bytes(), path, "run `python -m explainlib study all`")


@pytest.fixture(scope="module")
def text(repository):
    return (repository / "docs" / "group_study.md").read_text()


def test_every_mark_is_what_the_tables_say(text, runs, board):
    assert filled(text, runs, board) == text
    assert text.count("<!--/-->") > 20


def test_a_number_that_is_typed_in_a_mark_is_put_right(text, runs, board):
    first = re.search(r"<!--gain [^>]*-->([^<]*)<!--/-->", text)
    wrong = text[: first.start(1)] + "+99%" + text[first.end(1) :]
    assert filled(wrong, runs, board) == text


def test_no_number_stands_outside_a_mark_but_sizes_and_the_paper_s_words(text):
    plain = re.sub(
        r"```.*?```|`[^`]*`|\]\([^)]*\)|^    .*$|\b[BE]\d\b|\bB\d to B\d\b", "", unmarked(text), flags=re.S | re.M
    )
    loose = {number.rstrip(".,") for number in NUMBER.findall(plain)} - SETTINGS
    assert not loose, f"{sorted(loose)} stand in docs/group_study.md outside a mark"


@pytest.mark.parametrize("words", ["nothing mnist", "sum mnist images"])
def test_an_unknown_mark_is_refused(runs, board, words):
    with pytest.raises(ValueError, match=f"begins with '{words.split()[0]}'; choose one of"):
        filled(f"<!--{words}-->x<!--/-->", runs, board)


def test_marks_read_what_they_name(board):
    table = pandas.DataFrame({"seed": [0, 1, 2], "n": 40, "per_test": [0.1, 0.2, 0.3], "kind": "random", "ridge": 0.1})
    tables = {"mnist": {"images": table}}
    mean = "mean mnist images per_test .2f kind=random; ridge=0.1"
    assert filled(f"<!--{mean}-->x<!--/-->", tables, board) == f"<!--{mean}-->0.20 [-0.05, 0.45]<!--/-->"
    assert filled("<!--one mnist images n--><!--/-->", tables, board) == "<!--one mnist images n-->40<!--/-->"
    with pytest.raises(ValueError, match="per_test of images has 3 values"):
        filled("<!--one mnist images per_test--><!--/-->", tables, board)
    assert unmarked("a <!--one mnist images n-->40<!--/--> b") == "a  b"

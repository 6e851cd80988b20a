"""The report that is handed in: what was checked, kept in the kernel and, if asked, in one file of plain data."""

from __future__ import annotations

import json

import pytest

import explainlib as xl
from explainlib.course import ledger


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "_tries", [])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_report_counts_the_tries_up_to_the_right_one():
    for answer in (1 / 140, 1 / 1500, 1 / 1360, 0.5):
        xl.check("02.1", answer)
    xl.check("03.2", 0.49)
    said = xl.report()
    assert said.solved == ["02.1"] and len(said.tries) == 5
    frame = said.to_frame()
    assert frame["exercise"].tolist() == ["02.1", "03.2"] and frame["tries"].tolist() == [3, 1]
    assert frame["right"].tolist() == [True, False] and (frame["first"] <= frame["last"]).all()
    assert "02.1 Who takes over the weight: right, tries: 3" in str(said) and "03.2 The ceiling: not yet" in str(said)
    assert "<td>yes</td>" in said._repr_html_() and "<td>not yet</td>" in said._repr_html_()


def test_an_empty_report_is_one():
    assert xl.report().to_frame().empty and "0 of 0" in str(xl.report()) and "<table>" in xl.report()._repr_html_()


def test_a_file_joins_sessions(place, monkeypatch):
    xl.check("03.2", 0.49)
    assert [row["right"] for row in xl.report("mine.json").rows()] == [False]
    monkeypatch.setattr(ledger, "_tries", [])  # another kernel
    xl.check("03.2", 0.7)
    (row,) = xl.report("mine.json").rows()
    assert (row["tries"], row["right"]) == (2, True)
    again = xl.report("mine.json")
    assert len(again.tries) == 2, "written twice, counted once"
    assert json.loads((place / "mine.json").read_text())["tries"][1]["right"] is True
    assert len(xl.report().tries) == 1, "without a name only this kernel"
    assert [path.name for path in place.iterdir()] == ["mine.json"]


@pytest.mark.parametrize("name", ["../mine.json", "/etc/mine.json", "a/b.json", "mine.txt", "", ".json", "mine.json/"])
def test_only_a_plain_name_in_this_folder(name):
    with pytest.raises(ValueError, match="plain name in this folder"):
        xl.report(name)


GOOD = {"at": "2026-01-01T10:00:00", "exercise": "03.2", "right": True}


@pytest.mark.parametrize(
    "content",
    [
        "", "not json", "[]", "{}", "null", '{"report": "explainlib exercises"}', "[" * 100_000,
        json.dumps({"report": "explainlib exercises", "tries": [{**GOOD, "exercise": "<script>"}]}),
        json.dumps({"report": "explainlib exercises", "tries": [{**GOOD, "right": "yes"}]}),
        json.dumps({"report": "explainlib exercises", "tries": [{**GOOD, "at": "<b>now</b>"}]}),
        json.dumps({"report": "explainlib exercises", "tries": [{**GOOD, "at": 7}]}),
        json.dumps({"report": "explainlib exercises", "tries": [{**GOOD, "exercise": ["03.2"]}]}),
        json.dumps({"report": "explainlib exercises", "tries": [{**GOOD, "more": 1}]}),
        json.dumps({"report": "explainlib exercises", "tries": "none"}),
        json.dumps({"report": "other", "tries": []}),
        " " * 1_000_001,
    ],
    ids=range(16),
)  # fmt: skip
def test_what_is_no_report_is_refused_and_left(place, content):
    (place / "mine.json").write_text(content)
    xl.check("03.2", 0.7)
    with pytest.raises(
        ValueError, match=r"^mine\.json is no report of exercises .*name another file or move it away\.$"
    ):
        xl.report("mine.json")
    assert (place / "mine.json").read_text() == content


def test_a_good_file_is_read(place):
    (place / "mine.json").write_text(json.dumps({"report": "explainlib exercises", "tries": [GOOD]}))
    assert xl.report("mine.json").solved == ["03.2"]


def test_what_a_solution_answers_is_not_the_readers(place, monkeypatch):
    xl.check("03.2", 0.7, solution=True)
    xl.check("02.1", 0.5)
    xl.check("02.1", 1 / 1360, solution=True)
    said = xl.report("mine.json")
    assert said.solved == [] and [row["tries"] for row in said.rows()] == [1, 0]
    assert said.to_frame()["right"].tolist() == [False, False] and said.to_frame()["solution"].tolist() == [True, True]
    for text in (str(said), said._repr_html_()):
        assert "0 of 1 tried exercises" in text and "answered by the solution" in text and "make student" in text
    assert ledger.wrong_tries("02.1") == 1
    monkeypatch.setattr(ledger, "_tries", [])  # another kernel, in which the reader answers
    xl.check("03.2", 0.7)
    assert "make student" not in str(xl.report())
    said = xl.report("mine.json")
    assert said.solved == ["03.2"] and [row["tries"] for row in said.rows()] == [1, 1]
    assert "1 of 2 tried" in str(said) and "03.2 The ceiling: right, tries: 1" in str(said)


def test_a_wrong_solution_uses_up_no_hint():
    for _ in range(3):
        xl.check("03.2", 123.4, solution=True)
    assert ledger.wrong_tries("03.2") == 0 and xl.check("03.2", 0.7).right


@pytest.mark.parametrize("solution", ["yes", 1, None])
def test_a_file_says_truthfully_who_answered(place, solution):
    (place / "mine.json").write_text(
        json.dumps({"report": "explainlib exercises", "tries": [{**GOOD, "solution": solution}]})
    )
    with pytest.raises(ValueError, match="is no report of exercises"):
        xl.report("mine.json")

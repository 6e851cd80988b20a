"""The committed scoreboard is what the committed tables say, on the page too, and in each study's document."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas
import pytest

from explainlib.studies.claims import CLAIMS, VERDICTS
from explainlib.studies.kept import FINISHED, kept_tables
from explainlib.studies.record import as_csv, checksum, parse_table
from explainlib.studies.scoreboard import (
    claims_by_run,
    earlier_verdicts,
    evidence_by_run,
    judgements,
    page,
    power_table,
    scoreboard,
    verdicts_by_run,
    write_scoreboard,
)

DOCUMENTS = {"T": "tlxml", "R": "bilevel", "E": "fragility", "P": "representers", "B": "group"}


def committed(name: str) -> pandas.DataFrame:
    path = FINISHED / name
    return parse_table(path.read_bytes(), path, "run `python -m explainlib study all`")


def assert_same(found: pandas.DataFrame, kept: pandas.DataFrame) -> None:
    """Texts and verdicts exactly, numbers to the digits of a table; "" is read back as nothing."""
    again = parse_table(as_csv(found).encode(), Path("again.csv"), "")
    pandas.testing.assert_frame_equal(again, kept, rtol=1e-4, check_dtype=False)


@pytest.fixture(scope="module")
def board():
    return scoreboard(FINISHED)


@pytest.fixture(scope="module")
def text(repository):
    return (repository / "docs" / "scoreboard.md").read_text()


def page_verdicts(text: str) -> dict[str, str]:
    """Return the verdict of each claim in the tables of a document: a first cell "T1 ...", a second that begins so."""
    words = "|".join(sorted(VERDICTS, key=len, reverse=True))
    text = re.sub(r"<!--.*?-->", "", text)  # the marks of numbers from tables
    rows = re.findall(rf"^\| ([TREPB]\d+) [^|]*\| ({words})\b[^|]*\|", text, re.M)
    return dict(rows)


def test_all_46_claims_are_judged_again_from_the_committed_tables(board):
    assert list(board["id"]) == list(CLAIMS) and len(board) == 46
    assert_same(board, committed("scoreboard.csv"))


def test_every_row_says_what_it_rests_on(board):
    needed = ["quantity", "ours", "controls", "rule", "verdict", "reason", "command", "interval"]
    assert not board[needed].isna().any().any() and (board[needed] != "").all().all()
    assert board["verdict"].isin(VERDICTS).all()
    held = board[board["verdict"].isin(["held", "not held"])]
    assert held[["effect", "low", "high"]].notna().all().all() and (held["clusters"] >= 2).all()


def test_the_page_is_made_of_the_committed_tables(board, text):
    kept = committed("scoreboard.csv")
    made = page(kept, earlier_verdicts(FINISHED), verdicts_by_run(FINISHED), committed("judge-simulation.csv"),
                committed("judge-power.csv"))  # fmt: skip
    assert made == text
    assert page_verdicts(text) == dict(zip(board["id"], board["verdict"], strict=True))
    for claim in CLAIMS.values():
        assert f"**{claim.id}** ({claim.place})" in text and claim.rule_text in text


@pytest.mark.parametrize("name", sorted(claims_by_run(FINISHED)))
def test_each_run_s_claims_are_what_its_tables_say(name):
    assert_same(claims_by_run(FINISHED)[name], committed(name))
    kept_tables(name.rpartition("-")[0])  # its checksums too


@pytest.mark.parametrize("letter", list(DOCUMENTS))
def test_each_study_s_document_has_the_verdicts_of_the_scoreboard(board, repository, letter):
    document = (repository / "docs" / f"{DOCUMENTS[letter]}_study.md").read_text()
    own = board[board["id"].str.startswith(letter)]
    assert page_verdicts(document) == dict(zip(own["id"], own["verdict"], strict=True))


def test_every_change_is_told_with_its_reason(text):
    both = earlier_verdicts(FINISHED).merge(verdicts_by_run(FINISHED), on=["id", "study", "data"])
    changed = set(both[both["verdict_x"] != both["verdict_y"]]["id"])
    told = text.split("## What changed")[1].split("## Are the rules right?")[0]
    rows = dict(re.findall(r"^\| ([TREPB]\d+) \|.*\| before: (.*) \|$", told, re.M))
    assert changed <= set(rows) and all("; now: " in why for why in rows.values())
    assert len(earlier_verdicts(FINISHED)) == 87


def test_the_power_is_that_of_the_committed_tables():
    powers = power_table(judgements(evidence_by_run(FINISHED)))
    assert_same(powers, committed("judge-power.csv"))
    assert powers["power"].between(0, 1).all() and set(powers["id"]) > {"R1", "T9", "P1"}


def test_one_command_writes_it_all_again(tmp_path, monkeypatch):
    """In a folder of one's own; a changed table changes the verdict, and the record's checksums follow."""
    monkeypatch.setattr("explainlib.studies.scoreboard.write.simulation", lambda: committed("judge-simulation.csv"))
    for path in FINISHED.iterdir():
        if path.suffix in (".csv", ".json"):
            shutil.copy2(path, tmp_path)
    paths = write_scoreboard(tmp_path)
    for path in paths:
        if path.suffix == ".csv":
            assert path.read_bytes() == (FINISHED / path.name).read_bytes(), path.name
    path, record = (tmp_path / f"representers-mnist-cpu{end}" for end in ("-pairs.csv", ".json"))
    table = pandas.read_csv(path)
    seen = (table["part"] == "main") & table["b"].str.startswith("target, ") & (table["a"] == "surrogate, NTK final")
    table.loc[seen, ["a_minus_b", "low", "high"]] = [0.5, 0.4, 0.6]
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match="another checksum"):
        write_scoreboard(tmp_path)
    known = json.loads(record.read_text())
    known["tables"][path.name] = checksum(path.read_bytes())
    record.write_text(json.dumps(known))
    write_scoreboard(tmp_path)
    again = pandas.read_csv(tmp_path / "representers-mnist-cpu-claims.csv").set_index("id")
    assert again.loc["P1", "verdict"] == "not held"
    assert "tlxml-omniglot-cpu-claims.csv" in {path.name for path in paths} and kept_tables(
        "tlxml-omniglot-cpu", tmp_path
    )


def test_a_folder_without_a_study_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="claim T1 has no tables; run `python -m explainlib study tlxml"):
        write_scoreboard(tmp_path)
    assert not list(tmp_path.iterdir())

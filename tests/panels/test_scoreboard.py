"""The panel on the scoreboard: its rows are those of the written table, and its button judges again."""

from __future__ import annotations

import shutil

import pandas
import pytest

import explainlib as xl
from explainlib.panels.scoreboard import SIGNS
from explainlib.studies.claims import CLAIMS, VERDICTS
from explainlib.studies.kept import FINISHED
from explainlib.studies.scoreboard import LETTERS, PAPERS, kept_scoreboard, scoreboard


@pytest.fixture
def panel():
    return xl.panels.Scoreboard()


@pytest.fixture(scope="module")
def board():
    return pandas.read_csv(FINISHED / "scoreboard.csv")


def rows(text):
    """Return id and verdict of each listed claim."""
    lines = text.split(" in full (")[0].splitlines()[1:-1]
    return {
        line[:4].strip(): next(v for v in sorted(VERDICTS, key=len)[::-1] if line[4:].startswith(v)) for line in lines
    }


def test_all_claims_are_listed_with_their_verdicts(panel, board):
    assert rows(panel.text) == dict(zip(board["id"], board["verdict"], strict=True)) and len(board) == len(CLAIMS)
    assert set(SIGNS) == set(VERDICTS) and set(LETTERS.values()) == set(PAPERS)


@pytest.mark.parametrize("paper", LETTERS)
@pytest.mark.parametrize("verdict", VERDICTS)
def test_both_filters_hold_at_once(panel, board, paper, verdict):
    own = board[board["id"].str.startswith(LETTERS[paper]) & (board["verdict"] == verdict)]
    text = panel.set(paper=paper, verdict=verdict)
    assert rows(text) == dict.fromkeys(own["id"], verdict)
    assert text.startswith(f"{len(own)} of {len(board)} claims")
    assert ("none has that verdict" in text) == own.empty
    if len(own):
        assert f"{own['id'].iloc[0]} in full" in text


def test_a_claim_in_full_has_the_numbers_of_the_table(panel, board):
    row = board.set_index("id").loc["B3"]
    text = panel.set(claim="B3")
    for name in ("reason", "quantity", "rule", "controls", "command"):
        assert row[name] in text
    assert f"effect: {row['effect']:.3g} [{row['low']:.3g}, {row['high']:.3g}] over {row['clusters']} clusters" in text
    assert row["printed"] in panel.controls.full.value.replace("&#x27;", "'").replace("&quot;", '"')


@pytest.mark.parametrize("wrong", [{"paper": "Koh"}, {"verdict": "right"}, {"claim": "X1"}])
def test_a_wrong_choice_changes_nothing(panel, wrong):
    before = panel.set(paper="Tsai")
    with pytest.raises(ValueError, match=next(iter(wrong))):
        panel.set(**wrong)
    assert panel.text == before


def test_widgets_forward_and_follow(panel):
    c = panel.controls
    c.paper.value = "Basu"
    assert set(panel.text.splitlines()[1][:1]) == {"B"} and c.claim.value == "B1"
    c.verdict.value = "held"
    assert set(rows(panel.text).values()) == {"held"}
    c.claim.value = "T1"
    assert "T1 in full (TLXML" in panel.text and "TLXML" in c.full.value
    c.reset.click()
    assert c.paper.value == "all" and panel.text.startswith(f"{len(CLAIMS)} of {len(CLAIMS)} claims")


def test_the_button_judges_again_and_says_what_differs(panel, monkeypatch, board):
    monkeypatch.setattr("explainlib.panels.scoreboard.scoreboard", lambda folder: board)
    panel.controls.again.click()
    assert panel.text.endswith(f"judged again from the tables: all {len(board)} verdicts are the same")
    assert "verdicts are the same" in panel.controls.truth.value and not panel.controls.again.disabled
    other = board.assign(verdict=["undecided", *board["verdict"].iloc[1:]])
    monkeypatch.setattr("explainlib.panels.scoreboard.scoreboard", lambda folder: other)
    assert f"T1: {board['verdict'].iloc[0]} before, undecided now" in panel.verify()
    assert "judged again" not in panel.reset()


def test_the_button_judges_by_the_library():
    import explainlib.panels.scoreboard as module

    assert module.scoreboard is scoreboard


def test_a_folder_without_a_scoreboard_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="study all"):
        xl.panels.Scoreboard(tmp_path)
    shutil.copy(FINISHED / "scoreboard.csv", tmp_path)
    assert kept_scoreboard(tmp_path).equals(kept_scoreboard())

"""Partial results and kept tables: sealed, bound to their run, and told in a sentence when they are damaged."""

import errno
import json
import os
import shutil

import pandas
import pytest

from explainlib import studies
from explainlib.studies.influence import study as influence
from explainlib.studies.kept import kept_tables
from explainlib.studies.record import PartialResults

FRAME = pandas.DataFrame({"name": ["a", "é"], "value": [1.25, 1 / 3], "count": [1, 2]})


def made_again():
    pytest.fail("the result was made again")


@pytest.fixture
def results(tmp_path):
    one = PartialResults(tmp_path / "partial", {"seed": 0})
    one.table("first", lambda: FRAME)
    one.table("second", lambda: FRAME * 2)
    return one


def test_a_result_comes_back_with_its_seconds(results):
    again = PartialResults(results.folder, {"seed": 0})
    table = again.table("first", made_again)
    pandas.testing.assert_frame_equal(table, FRAME.round(7), rtol=1e-6)
    assert list(again.seconds()) == ["first", "second"] and all(value >= 0 for value in again.seconds().values())
    assert sorted(p.name for p in results.folder.iterdir()) == ["first.csv", "second.csv", "settings.json"]


@pytest.mark.parametrize("k", range(0, 140, 7))
def test_no_flipped_or_shortened_file_is_taken(results, k):
    path = results.folder / "first.csv"
    data = path.read_bytes()
    for bad in (data[:k] + bytes([data[k] ^ 1]) + data[k + 1 :], data[:k], data[: -1 - k // 7], data + b"b,2,3\n"):
        path.write_bytes(bad)
        with pytest.raises(ValueError, match=r"first\.csv is damaged.*delete it, and it is computed again"):
            PartialResults(results.folder, {"seed": 0}).table("first", made_again)
        with pytest.raises(ValueError, match=r"first\.csv is damaged"):
            results.seconds()


def test_a_result_of_another_name_run_or_version_is_not_taken(results, tmp_path):
    shutil.copy(results.folder / "second.csv", results.folder / "first.csv")
    with pytest.raises(ValueError, match="of another run or name"):
        results.table("first", made_again)
    other = PartialResults(tmp_path / "other", {"seed": 1})
    shutil.copy(results.folder / "second.csv", other.folder / "second.csv")
    with pytest.raises(ValueError, match="of another run or name"):
        other.table("second", made_again)
    (other.folder / "second.csv").write_text(FRAME.to_csv(index=False))
    with pytest.raises(ValueError, match="does not begin with its seal"):
        other.table("second", made_again)
    (other.folder / "second.csv").unlink()
    assert len(other.table("second", lambda: FRAME)) == 2


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"seed": 0'])
def test_damaged_settings_are_told(results, text):
    (results.folder / "settings.json").write_bytes(text)
    with pytest.raises(ValueError, match=r"settings\.json is damaged and cannot be read .*delete .*--out"):
        PartialResults(results.folder, {"seed": 0})


def test_other_settings_are_refused(results):
    with pytest.raises(ValueError, match=r"another run \(seed was 0, now 1\)"):
        PartialResults(results.folder, {"seed": 1})


def test_a_full_disk_is_told(results, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"third\.csv cannot be written, its disk or quota is full .*the same call resumes"
    ):
        results.table("third", lambda: FRAME)
    monkeypatch.undo()
    assert not results.has("third") and len(results.table("third", lambda: FRAME)) == 2


def test_kept_tables_are_those_of_the_record(tmp_path, monkeypatch):
    small = influence.Config("iris", left_out=10, tests=5, ridges=(1e-2,))
    monkeypatch.setattr(studies.STUDIES["influence"], "config", lambda scale, data: small)
    studies.run("influence", scale="quick", out=tmp_path)
    stem = "influence-iris-quick"
    assert set(kept_tables(stem, tmp_path)) >= {"pairs", "fidelity"}
    path, record = tmp_path / f"{stem}-pairs.csv", tmp_path / f"{stem}.json"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"\n", b"\r\n"))
    assert kept_tables(stem, tmp_path)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"pairs\.csv is not as its run wrote it"):
        kept_tables(stem, tmp_path)
    told = json.loads(record.read_text())
    del told["tables"]  # as records were before
    record.write_text(json.dumps(told))
    assert kept_tables(stem, tmp_path)
    path.write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match=r"pairs\.csv is damaged and cannot be read .*run the study again"):
        kept_tables(stem, tmp_path)
    record.write_text("{")
    with pytest.raises(ValueError, match=r"quick\.json is damaged and cannot be read"):
        kept_tables(stem, tmp_path)

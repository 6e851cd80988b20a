"""The studies end to end at toy sizes: every claim has its row, an interrupted run ends with the same tables."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pandas
import pytest

from explainlib import studies
from explainlib.figures.studies import draw
from explainlib.studies.group import study as group
from explainlib.studies.influence import study as influence
from explainlib.studies.record import PartialResults, job_minutes
from explainlib.studies.runner import compute
from tests.interrupted import Interrupted

TOY = group.Config(
    seeds=1, limit=120, ridges=(1e-2, 1e-3), dampings=(0.0,), both=(0.5,), draws=1, synthetic=200, blobs=120,
    fractions=(0.05, 0.5), groups=6, tests=5, networks=1, network=60, network_groups=3,
)  # fmt: skip


def test_an_interrupted_run_resumes_and_ends_with_the_same_tables(tmp_path, monkeypatch):
    folder, small = tmp_path / "partial", replace(TOY, networks=0)
    whole = compute(group, small, tmp_path / "whole")[0]
    selection = Interrupted(group.selection, 1)
    monkeypatch.setattr(group, "selection", selection)
    with pytest.raises(KeyboardInterrupt):
        compute(group, small, folder)
    assert {path.name for path in folder.glob("*.csv")} == {"synthetic-0.csv"}
    tables, _ = compute(group, small, folder)
    assert selection.calls == 2
    assert set(tables) == set(whole) == {"synthetic", "images", "selection", "cost", "claims"}
    for name, table in tables.items():
        columns = [column for column in table if not column.startswith("seconds")]
        pandas.testing.assert_frame_equal(table[columns], whole[name][columns])


def test_results_of_another_run_are_refused(tmp_path):
    PartialResults(tmp_path / "partial", asdict(TOY))
    with pytest.raises(ValueError, match=r"another run .*tests was 5, now 4.*delete the folder"):
        PartialResults(tmp_path / "partial", asdict(replace(TOY, tests=4)))


def test_a_run_leaves_tables_record_and_figure(tmp_path, monkeypatch):
    small = influence.Config("iris", left_out=10, tests=5, ridges=(1e-2,))
    monkeypatch.setattr(studies.STUDIES["influence"], "config", lambda scale, data: small)
    paths = studies.run("influence", scale="quick", out=tmp_path)
    assert {path.suffix for path in paths} == {".csv", ".json"} and not list(tmp_path.glob("*partial*"))
    record = json.loads((tmp_path / "influence-iris-quick.json").read_text())
    assert record["command"] == "python -m explainlib study influence --scale quick --data iris"
    assert record["settings"]["left_out"] == 10 and record["device"]
    assert set(record["jobs"]) == {"ridge-0.01"}
    assert record["seconds"] == pytest.approx(sum(record["jobs"].values()), abs=0.1)
    assert len(job_minutes(paths)) == 1
    assert draw("influence", paths).read_bytes().startswith(b"\x89PNG")
    table = pandas.read_csv(tmp_path / "influence-iris-quick-fidelity.csv").set_index("method")
    assert table.loc["newton_step", "pearson"] > 0.999
    assert table.loc["newton_step", "slope"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"name": "nothing"}, "nothing"),
        ({"name": "group", "scale": "huge"}, "huge"),
        ({"name": "group", "data": "iris"}, "digits, mnist"),
        ({"name": "bilevel", "data": "iris"}, "glyphs, omniglot"),
    ],
)
def test_unknown_words_are_refused(tmp_path, words, says):
    with pytest.raises(ValueError, match=says):
        studies.run(out=tmp_path, **words)
    assert not list(tmp_path.iterdir())

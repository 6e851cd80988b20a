"""The studies end to end at toy sizes: every claim has its row, an interrupted run ends with the same tables."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pandas
import pytest

from explainlib import studies
from explainlib.figures.studies import draw
from explainlib.studies.claims import VERDICTS
from explainlib.studies.group import study as group
from explainlib.studies.influence import study as influence
from explainlib.studies.record import PartialResults, job_minutes
from explainlib.studies.runner import compute

TOY = group.Config(limit=120, synthetic=200, blobs=120, fractions=(0.05, 0.5), groups=6, tests=5, network=60)


@pytest.fixture(scope="module")
def toy_tables(tmp_path_factory):
    return compute(group, TOY, tmp_path_factory.mktemp("toy") / "partial")[0]


def test_every_claim_has_a_row_and_a_verdict(toy_tables):
    claims = toy_tables["claims"]
    assert claims["id"].tolist() == ["B1", "B2", "B3", "B4", "B5", "B6"]
    assert claims["verdict"].isin(VERDICTS).all() and (claims["reason"].str.len() > 0).all()
    assert not claims[["id", "printed", "quantity", "ours", "controls", "rule"]].isna().any().any()


def test_no_row_is_dropped_and_no_number_is_missing(toy_tables):
    images = toy_tables["images"]
    assert len(images) == 2 * len(TOY.fractions) * len(group.METHODS)
    assert set(images["method"]) == set(group.METHODS)
    assert images[["pearson", "slope", "parameter_error", "ratio"]].notna().all().all()
    assert images["truth"].str.endswith("6 converged").all()
    assert len(toy_tables["selection"]) == 3 * 6


def test_orders_are_in_order_on_random_groups(toy_tables):
    """At 5% removed the error of the parameters falls from first to second order."""
    images = toy_tables["images"]
    small = images[(images["kind"] == "random") & (images["fraction"] == 0.05)].set_index("method")["parameter_error"]
    assert small["first order"] > 1.5 * small["second order"]
    assert small["Koh first order"] > small["second order"]


def test_selection_predicts_what_it_optimises(toy_tables):
    table = toy_tables["selection"].pivot(index="fraction", columns="method", values="predicted")
    assert (table["relaxed"] >= table["greedy"] - 1e-9).all()
    assert (table["random"].abs() < table["greedy"] / 2).all()


def test_an_interrupted_run_resumes_and_ends_with_the_same_tables(tmp_path, monkeypatch, toy_tables):
    folder, small = tmp_path / "partial", replace(TOY, network=0)
    calls, whole = [], group.compare_methods

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(group, "compare_methods", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compute(group, small, folder)
    done = {path.name for path in folder.glob("*.csv")}
    assert len(done) == 3
    tables, _ = compute(group, small, folder)
    assert len(calls) == 4 + 2 * len(TOY.fractions) + len(TOY.fractions) - 3
    del tables["claims"]  # without the network's table they read otherwise
    assert set(tables) == {"synthetic", "images", "selection"}
    for name, table in tables.items():
        columns = [column for column in table if column != "seconds"]
        pandas.testing.assert_frame_equal(table[columns], toy_tables[name][columns])


def test_results_of_another_run_are_refused(tmp_path):
    PartialResults(tmp_path / "partial", asdict(TOY))
    with pytest.raises(ValueError, match=r"another run .*seed was 0, now 1.*delete the folder"):
        PartialResults(tmp_path / "partial", asdict(replace(TOY, seed=1)))


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


def test_the_figure_of_the_group_study_says_what_it_shows(toy_tables):
    from explainlib.figures import alt_text
    from explainlib.figures.studies import STUDY_FIGURES

    assert "largest median error" in alt_text(STUDY_FIGURES["group"](toy_tables))


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


def test_the_three_scales_are_one_code():
    assert isinstance(group.config("quick", None), group.Config)
    assert group.config("paper", "mnist").limit is None
    assert group.config("cpu", None).fractions == group.PAPER_FRACTIONS

"""The notebook's figures on fragility say the numbers they show, and the numbers are the metrics'."""

from __future__ import annotations

import pandas
import pytest
import torch

from explainlib.figures import alt_text, png
from explainlib.figures.fragility.lessons import retraining_variability, same_spearman_different_r2, sweeps, two_by_two
from explainlib.metrics import fidelity, same_spearman_pair
from explainlib.studies.kept import kept_tables


def test_two_pictures_of_one_order():
    picture = same_spearman_different_r2()
    for predicted, true in same_spearman_pair():
        said = fidelity(predicted, true, resamples=1)
        assert f"Spearman {float(said.spearman):.3f}, R2 {float(said.r2):.2f}" in alt_text(picture)
    assert len(png(picture)) > 5000


def test_every_pair_is_drawn_with_its_own_correlation():
    x = torch.linspace(0, 1, 9).double()
    picture = two_by_two({"a": x, "b": x.flip(0)}, {"a": x, "b": x.square().flip(0)})
    for a, b, value in (("a", "a", 1), ("a", "b", -1), ("b", "a", -1), ("b", "b", 1)):
        assert f"{a} against {b}: Spearman {value:.2f}" in alt_text(picture)


def summary(measure, values):
    rows = [
        {"sweep": sweep, "kind": kind, "size": size, measure: v, f"{measure}_low": v / 2, f"{measure}_high": 2 * v}
        | {"repeats": 50, "collapsed": 0}
        for sweep in ("depth", "width")
        for kind in ("plain", "L2")
        for size, v in enumerate(values, start=1)
    ]
    return pandas.DataFrame(rows)


@pytest.mark.parametrize(("measure", "values", "scale"), [("spearman", [0.2, 0.9], "linear"), ("top", [1, 99], "log")])
def test_sweeps_tell_their_range(measure, values, scale):
    picture = sweeps(summary(measure, values), measure, "the measure")
    assert f"the measure by depth: plain {values[0]:.2f} to {values[1]:.2f}; L2" in alt_text(picture)
    assert picture.axes[0].get_yscale() == scale
    if scale == "linear":
        assert picture.axes[0].get_ylim() == (-1.05, 1.05)


def test_a_size_at_which_hardly_a_network_lives_is_not_drawn():
    table = summary("spearman", [0.2, 0.9])
    table.loc[(table["kind"] == "L2") & (table["size"] == 2), "collapsed"] = 46
    lines = {line.get_label(): line.get_ydata().tolist() for line in sweeps(table, "spearman", "s").axes[0].lines}
    assert lines["L2"] == [0.2] and lines["plain"] == [0.2, 0.9]


def test_restless_truths_name_the_shares():
    curves = pandas.DataFrame(
        [
            {"data": d, "removed": j, "epoch": e, "loss": e + j}
            for d in ("iris", "digits")
            for j in (-1, 3)
            for e in (0, 1)
        ]
    )
    ladder = pandas.DataFrame({"step": ["solver", "warm start", None], "share": [0.25, 0.75, None]})
    assert "Shares: solver 25%, warm start 75%." in alt_text(retraining_variability(curves, ladder))


def test_tables_that_are_not_there_say_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="study fragility --scale cpu --data iris --out"):
        kept_tables("fragility-iris-cpu", tmp_path)
    pandas.DataFrame({"a": [1]}).to_csv(tmp_path / "fragility-iris-cpu-two.csv", index=False)
    assert kept_tables("fragility-iris-cpu", tmp_path)["two"]["a"].tolist() == [1]
    (tmp_path / "fragility-iris-cpu-two.csv").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cpu-two.csv is damaged and cannot be read .*; run the study again"):
        kept_tables("fragility-iris-cpu", tmp_path)

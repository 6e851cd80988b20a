"""The panel of distributions, driven as a notebook cell drives it and as a mouse does, on a table that is made up."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

import explainlib as xl
from explainlib.panels.distributions.plots import NetworkPoint, accuracy_plot, tenths_plot
from explainlib.studies.tlxml.mixtures import Mixture, order_of
from explainlib.studies.tlxml.order_table import TENTHS, OrderTable, small_network

MIXTURES = (
    Mixture("maml", 28, 4),
    Mixture("maml", 112, 16),
    Mixture("protonet", 28, 4),
    Mixture("maml", 28, 4, copies=8),
    Mixture("maml", 28, 4, weight_decay=0.001),
)
METHODS = ("buffer", "identity", "cosine", "random projector", "cosine, untrained")


def made_up():
    rows = []
    for k, m in enumerate(MIXTURES):
        for seed in (0, 1):
            for kind in ("unseen", "training"):
                for method in (*METHODS, "with the ridge") if m.weight_decay else METHODS:
                    count = 10 + 8 * k + 2 * seed + (method != "buffer")
                    row = {"learner": m.learner, "normal": m.normal, "noise": m.noise, "copies": m.copies}
                    row |= {"weight_decay": m.weight_decay, "seed": seed, "kind": kind, "method": method, "tests": 64}
                    row |= {"parameters": 1941, "mean_count": count, "mean_p": 0.0004 if k == 0 else 0.25}
                    row |= {"median_count": count + 1, "accuracy_normal": 0.97, "accuracy_noise": 0.9}
                    row |= {"accuracy_unseen": 0.6 + 0.05 * k} | dict(
                        zip(TENTHS, [0.3, 0.1, *[0.075] * 8], strict=True)
                    )
                    rows.append(row)
    return OrderTable(pandas.DataFrame(rows))


@pytest.fixture
def panel():
    return xl.panels.Distributions(made_up())


def test_the_text_is_the_table(panel):
    assert panel.text.splitlines() == [
        "MAML, 28 normal, 4 noise, as it is: 1,941 parameters, seed 0",
        "accuracy 0.97 on normal training tasks, 0.90 on noise tasks, 0.60 on unseen tasks",
        "buffer, unseen tests: 10 of 64 in proper order by the mean (p below 0.001), 11 by the median",
        "over 2 networks: 0.17 of the tests, from 0.16 to 0.19",
        "controls, by the mean: identity 11, cosine 11, random projector 11, cosine, untrained 11",
    ]
    assert "8 turned copies: 1,941 parameters, seed 1" in panel.set(change="8 turned copies", seed=1)
    assert "36 of 64 in proper order by the mean (p = 0.250)" in panel.text


def test_choices_that_are_not_there_change_nothing(panel):
    for wrong in ({"normal": 50}, {"learner": "anil"}, {"change": "9 turned copies"}, {"seed": 7}, {"method": "trak"}):
        before = panel.text
        with pytest.raises(ValueError, match="choose one of"):
            panel.set(**wrong)
        assert panel.text == before
    with pytest.raises(ValueError, match="choose one of 'as it is'"):
        panel.set(normal=112, change="8 turned copies")
    with pytest.raises(TypeError, match=r"read_order\(folder\)|OrderTable \| None"):
        xl.panels.Distributions(pandas.DataFrame())
    with pytest.raises(ValueError, match="lacks accuracy_noise"):
        OrderTable(pandas.DataFrame({"seed": [0]}))


def test_another_learner_or_number_is_taken_as_it_is(panel):
    panel.set(change="weight decay 0.001", method="with the ridge")
    assert "as it is" in panel.set(normal=112) and "buffer, unseen" in panel.text
    assert panel.set(learner="protonet").startswith("Prototypical Network, 28 normal")
    assert panel.reset().startswith("MAML, 28 normal, 4 noise, as it is")


def test_widgets_forward_and_show_mistakes(panel):
    c = panel.controls
    assert c.normal.options == (("28 normal, 4 noise", 28), ("112 normal, 16 noise", 112))
    c.change.value = "weight decay 0.001"
    assert "weight decay 0.001: 1,941" in c.numbers.value and "with the ridge" in c.method.options
    c.kind.value = "training"
    assert "training tests" in c.numbers.value
    c.normal.value = 112
    assert c.change.options == ("as it is",) and "112 normal" in panel.text
    c.learner.value = "protonet"
    assert c.normal.value == 28 and "Prototypical" in panel.text
    c.reset.click()
    assert "MAML, 28 normal" in panel.text


def test_a_small_learner_is_trained_here(panel, monkeypatch):
    """The very numbers of the study's own function, on fewer tasks and batches."""
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from explainlib.studies.tlxml import order_table

    monkeypatch.setattr(order_table, "SMALL", replace(order_table.SMALL, batches=3, buffer=24, compress=4, tests=4))
    monkeypatch.setattr(order_table, "SMALL_NORMAL", 3)
    panel.set(change="8 turned copies")
    text = panel.verify()
    with TemporaryDirectory() as folder:
        want = order_of(small_network(MIXTURES[3], 0, Path(folder)))
    row = want[(want["kind"] == "unseen") & (want["method"] == "buffer")].iloc[0]
    assert row["copies"] == 2, "fewer copies, so that it takes seconds"
    assert f"{int(row['mean_count'])} of 4 in proper order" in text.splitlines()[-1]
    assert "trained here, 3 normal and 2 noise" in panel.controls.truth.value
    assert "Trained here" in panel.controls.ranking.value and panel.controls.ranking.value.count("xl-cross") == 10
    assert "trained here" not in panel.set(seed=1), "of another seed nothing is known"
    assert "trained here" in panel.set(seed=0) and "trained here" not in panel.reset()


def test_plots_say_what_they_show():
    assert "30%, 10%" in tenths_plot([0.3, 0.1, *[0.075] * 8], None)
    points = [NetworkPoint("a", 0.6, 0.2, 0, True), NetworkPoint("b", 0.9, 0.7, 1, False)]
    said = accuracy_plot(points)
    assert "a: accuracy 0.60, 20% in order (chosen); b: accuracy 0.90, 70% in order." in said
    assert said.count("<circle") == 3, "the chosen point, its ring, and the legend"

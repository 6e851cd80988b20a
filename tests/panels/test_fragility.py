"""The panel on fragility, driven as a notebook cell drives it and as a mouse does; its points against the library's."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pandas
import pytest
import torch

import explainlib as xl
from explainlib.datasets import load
from explainlib.figures import alt_text
from explainlib.figures.fragility.panel import fragility_view
from explainlib.metrics import fidelity
from explainlib.studies.fragility.bench import (
    FAMILIES,
    L2,
    Training,
    cell,
    highest_loss_example,
    last_layer,
    predicted_changes,
    train_family,
)
from explainlib.studies.fragility.parts import summary
from explainlib.studies.fragility.truths import TABLES, NetworkResult, Truths, read_truths

HOW = Training(epochs=150, swa=10, finetune=20, removed=8, lr=0.03)
SHAPES = [(1, 5), (2, 5), (1, 6)]
CORRELATIONS = ("spearman_highest_loss", "pearson_highest_loss", "spearman_most_influential")


@pytest.fixture(scope="module")
def iris():
    return load("iris").double()


@pytest.fixture(scope="module")
def truths(iris):
    frames = [cell(HOW, iris, depth, width, name, [0, 1]) for depth, width in SHAPES for name in FAMILIES]
    runs = pandas.concat(frames, ignore_index=True)
    gone = (runs["kind"] == "plain") & (runs["depth"] == 2) & (runs["seed"] == 1)  # one network that collapsed
    points = [name for name in runs if name.split("_")[0] in ("removed", "predicted", "true", "spearman", "pearson")]
    runs.loc[gone, points] = None
    runs.loc[gone, "collapsed"] = True
    runs.loc[gone, "status"] = "collapsed: one class for every example"
    return Truths(summary(runs, CORRELATIONS), runs, runs, HOW, HOW.epochs)


@pytest.fixture
def panel(truths):
    return xl.panels.Fragility(truths)


def test_the_points_are_the_librarys(panel, iris):
    text = panel.set(size=2, seed=1)
    risk = train_family(HOW, iris.train, [4, 5, 5, 3], L2, [0, 1])[L2][1]
    predicted = predicted_changes(last_layer(risk), highest_loss_example(risk, iris.test), damping=0.0)
    shown = panel.truths.network("L2", 2, 5, 1, "highest_loss")
    assert shown.removed.tolist() == risk.losses().topk(8).indices.tolist()
    torch.testing.assert_close(shown.predicted, predicted[shown.removed], rtol=1e-4, atol=1e-12)
    said = fidelity(shown.predicted, shown.true)
    assert f"Spearman {said.spearman:.2f}, Pearson {said.pearson:.2f}, slope {said.slope:.2f}" in text
    assert "L2, depth 2, the 8 examples of highest loss removed one by one" in text
    assert f"in words: {said.verdict}" in text


def test_the_mean_and_its_interval_are_the_summary_s(panel):
    text = panel.set(sweep="width", size=6, kind="Bayesian", protocol="most_influential")
    rows = panel.truths.summary
    row = rows[(rows["sweep"] == "width") & (rows["kind"] == "Bayesian") & (rows["size"] == 6)].iloc[0]
    values = [row[f"spearman_most_influential{end}"] for end in ("", "_low", "_high")]
    assert "mean Spearman {:.2f} [{:.2f}, {:.2f}] over 2 of 2 networks; 0 collapsed".format(*values) in text


def test_retraining_finds_the_stored_points_again(panel):
    kept = panel.truths.network("L2", 1, 5, 0, "highest_loss")
    text = panel.verify()
    again = panel._truths[panel._choice]
    assert again.removed.tolist() == kept.removed.tolist()
    torch.testing.assert_close(again.true, kept.true, rtol=1e-3, atol=1e-9)
    assert "trained again: Spearman" in text and "trained again" in panel.controls.truth.value
    assert "trained again" not in panel.set(seed=1)
    assert "trained again" in panel.set(seed=0)
    assert "trained again" not in panel.reset()


def test_a_collapsed_network_says_so_and_is_not_scattered(panel):
    text = panel.set(kind="plain", size=2, seed=1)
    assert "network of seed 1: collapsed: one class for every example" in text
    assert "over 1 of 2 networks; 1 collapsed" in text
    assert "The network collapsed" in panel.controls.view.value


def test_widgets_forward_and_follow(panel):
    c = panel.controls
    c.kind.value = "SWA"
    assert panel.text.startswith("SWA, depth 1")
    c.grows.value = "width"
    assert panel.text.startswith("SWA, width 5") and tuple(c.size.options) == (5, 6)
    c.size.value = 6
    assert "width 6" in panel.text
    c.protocol.value = "most_influential"
    assert "the 8 most influential examples" in panel.text
    c.seed.value = 1
    assert "network of seed 1" in panel.text
    c.reset.click()
    assert panel.text.startswith("L2, depth 1") and c.grows.value == "depth" and c.size.value == 1


def test_a_click_retrains(panel):
    panel.controls.retrain.click()
    assert "trained again: Spearman" in panel.text and not panel.controls.retrain.disabled


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 7}, r"size=7 was not tried in the sweep over depth; choose from \[1, 2\]"),
        ({"kind": "dropout"}, "no network of kind 'dropout'"),
        ({"seed": 9}, r"seeds are \[0, 1\]"),
        ({"sweep": "length"}, "sweep"),
        ({"protocol": "all"}, "protocol"),
    ],
)
def test_a_wrong_choice_changes_nothing(panel, wrong, said):
    before = panel.text
    with pytest.raises(ValueError, match=said):
        panel.set(**wrong)
    assert panel.text == before


def test_only_truths_are_taken():
    with pytest.raises(TypeError, match="read_truths|truths.Truths"):  # the library, or the type hook before it
        xl.panels.Fragility("data")


def test_the_picture_says_what_it_shows(truths):
    kept = truths.network("L2", 1, 5, 0, "highest_loss")
    words = alt_text(fragility_view(truths, "depth", 1, "L2", "highest_loss", kept, kept))
    assert "Mean Spearman of L2 by depth" in words and "for 8 removals: slope" in words
    assert f"largest eigenvalue of the Hessian is {float(kept.eigenvalues[0]):.3g}" in words


def test_tables_come_back_from_disk(truths, tmp_path):
    stem = tmp_path / "fragility-iris-quick"
    for name, frame in zip(TABLES, (truths.summary, truths.repeats, truths.networks), strict=True):
        frame.to_csv(f"{stem}-{name}.csv", index=False)
    stem.with_suffix(".json").write_text(json.dumps({"settings": {"training": asdict(HOW), "bayesian": [2, 150]}}))
    read = read_truths(tmp_path)
    assert read.training == HOW and read.bayesian_epochs == 150 and read.kinds == truths.kinds
    for protocol in ("highest_loss", "most_influential"):
        ours, theirs = (t.network("SWA", 1, 6, 1, protocol) for t in (read, truths))
        assert torch.equal(ours.predicted, theirs.predicted) and torch.equal(ours.true, theirs.true)
    assert read.network("plain", 2, 5, 1, "highest_loss").collapsed
    pandas.read_csv(f"{stem}-networks.csv").drop(columns="spectrum").to_csv(f"{stem}-networks.csv", index=False)
    with pytest.raises(ValueError, match="lacks spectrum"):
        read_truths(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot be read"), (b"[1, 2]", "it is a list"), (b'{"settings": {}}', "does not say how"),
     (b"[" * 100_000, "cannot be read"), (b'{"settings": {"training": {"a": 1}, "bayesian": [2, 150]}}', "does not say how")],
)  # fmt: skip
def test_a_damaged_record_is_named(truths, tmp_path, content, message):
    stem = tmp_path / "fragility-iris-quick"
    for name, frame in zip(TABLES, (truths.summary, truths.repeats, truths.networks), strict=True):
        frame.to_csv(f"{stem}-{name}.csv", index=False)
    stem.with_suffix(".json").write_bytes(content)
    with pytest.raises(ValueError, match=f"quick.json .*{message}"):
        read_truths(tmp_path)


def test_a_damaged_row_and_a_missing_table_are_named(truths, tmp_path):
    with pytest.raises(ValueError, match="holds no lists of numbers"):
        NetworkResult.of({"removed_highest_loss": "[1, 2", "spectrum": "[1]", "status": "x"}, "highest_loss")
    stem = tmp_path / "fragility-iris-quick"
    truths.summary.to_csv(f"{stem}-iris.csv", index=False)
    stem.with_suffix(".json").write_text("{}")
    with pytest.raises(ValueError, match="has no fragility-iris-quick-repeats.csv"):
        read_truths(tmp_path)


def test_missing_tables_say_how_to_make_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="study fragility --scale cpu"):
        read_truths(tmp_path)


def test_the_correlation_is_of_the_points_and_not_stored(truths):
    """Were the points shuffled, the number beside them would change."""
    kept = truths.network("L2", 1, 5, 0, "highest_loss")
    mixed = replace(kept, true=kept.true.flip(0))
    assert isinstance(mixed, NetworkResult) and float(mixed.agreement.spearman) < float(kept.agreement.spearman)

"""Known facts about the embedded data, and the promises that ``load`` makes for all of them."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from explainlib.datasets import catalogue, load
from explainlib.datasets.sources.blobs import blobs
from explainlib.datasets.sources.digits import all_digits
from explainlib.datasets.sources.gaussians import gaussians


@pytest.mark.parametrize(
    ("name", "train", "test", "features", "classes"),
    [
        ("iris", 120, 30, 4, 3),
        ("digits", 1500, 297, 64, 10),
        ("gaussians", 1000, 200, 5, 2),
        ("blobs", 20000, 1000, 5, 4),
    ],
)
def test_sizes_types_and_names(name, train, test, features, classes):
    split = load(name)
    assert split.train.x.shape == (train, features) and split.test.x.shape == (test, features)
    for part in split:
        assert part.x.dtype == torch.float32 and part.y.dtype == torch.int64
        assert len(part.classes) == classes and part.y.unique().tolist() == list(range(classes))


@pytest.mark.parametrize("name", ["iris", "digits", "gaussians", "blobs"])
def test_parts_are_disjoint_and_only_the_seed_changes_them(name):
    first, again, other = load(name), load(name), load(name, split_seed=1)
    assert torch.equal(first.train.x, again.train.x) and torch.equal(first.test.y, again.test.y)
    assert not torch.equal(first.test.x, other.test.x)
    whole = load(name, limit=50)
    assert len(whole.train) == 50 and torch.equal(whole.test.x, first.test.x)


def test_iris_is_standardised_by_its_training_part_alone():
    train, test = load("iris", split_seed=2)
    assert train.x.mean(0).abs().max() < 1e-5
    assert (train.x.std(0, correction=0) - 1).abs().max() < 1e-5
    assert test.x.mean(0).abs().max() > 1e-3
    assert test.y.bincount().tolist() == [10, 10, 10] and train.classes == ("setosa", "versicolor", "virginica")


def test_iris_is_the_published_one_up_to_shift_scale_and_order():
    measured = torch.tensor(load_iris().data, dtype=torch.float32)
    split = load("iris")
    ours = torch.cat([split.train.x, split.test.x])
    assert torch.allclose(
        ((measured - measured.mean(0)) / measured.std(0)).sort(0).values,
        ((ours - ours.mean(0)) / ours.std(0)).sort(0).values,
        atol=1e-5,
    )


def test_digits_are_the_published_ones():
    everything = all_digits()
    assert len(everything) == 1797 and everything.y[:10].tolist() == list(range(10))
    assert everything.x.min() == 0 and everything.x.max() == 1
    assert (everything.x[0, :8] * 16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_changing_loaded_digits_does_not_change_the_next_load():
    before = load("digits").train.x.clone()
    load("digits").train.x.zero_()
    load("digits").train.y.zero_()
    assert torch.equal(load("digits").train.x, before) and load("digits").train.y.max() == 9


def test_gaussian_classes_lie_where_the_docstring_says():
    examples = gaussians(40_000, seed=1, separation=2.0)
    a, b = (examples.x[examples.y == label] for label in (0, 1))
    assert abs((a.mean(0) - b.mean(0)).norm() - 2.0) < 0.05
    assert (a.std(0) - 1).abs().max() < 0.03 and examples.y.bincount().tolist() == [20_000, 20_000]
    best = (examples.x[:, 1] > examples.x[:, 0]).long()  # the plane halfway between the centres
    assert abs((best == examples.y).float().mean() - 0.841) < 0.01


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_blobs_overlap_moderately(seed):
    examples = blobs(4_000, seed=seed)
    model = LogisticRegression().fit(examples.x[:3000].numpy(), examples.y[:3000].numpy())
    assert 0.85 < model.score(examples.x[3000:].numpy(), examples.y[3000:].numpy()) < 0.95


@pytest.mark.parametrize(
    "options", [{"n": 1}, {"seed": -1}, {"features": 1}, {"separation": 0.0}, {"separation": float("nan")}]
)
def test_impossible_gaussians_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        gaussians(**{"n": 10, **options})


def test_unknown_names():
    with pytest.raises(ValueError, match="'mnits' is unknown; choose one of 'iris', 'digits'"):
        load("mnits")


@pytest.mark.parametrize(("limit", "message"), [(121, "more than the 120"), (0, "at least 1"), (-3, "at least 1")])
def test_bad_limits_are_refused(limit, message):
    with pytest.raises(ValueError, match=message):
        load("iris", limit=limit)


def test_the_catalogue_loads_what_it_says_is_there(cache):
    rows = {row.name: row for row in catalogue()}
    files = ["mnist", "fashion_mnist", "cifar10", "ag_news", "toxicity"]
    assert list(rows) == ["iris", "digits", "gaussians", "blobs", *files]
    for row in rows.values():
        assert row.origin and row.licence
        if row.kind == "embedded":
            assert row.found == "embedded" and row.how == ""
        else:
            assert row.found is None and str(cache / row.name) in row.how

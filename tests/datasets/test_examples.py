"""Examples: what is let in, what a part of them is, and that parts keep the classes in proportion."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explainlib.datasets import Examples, load, stratified_split
from explainlib.datasets.examples import Split, stratified_limit

LABELS = st.lists(st.integers(0, 4), min_size=2, max_size=60)


def numbered(labels):
    """Return examples whose x is their own position, so that a test sees which ones it got."""
    x = torch.arange(len(labels), dtype=torch.float32)[:, None]
    return Examples(x, torch.tensor(labels), raw=[f"text {i}" for i in range(len(labels))])


def positions(examples):
    """Return the positions that ``numbered`` wrote into x."""
    return examples.x[:, 0].long().tolist()


@given(LABELS, st.data())
def test_every_way_to_index_agrees_with_lists(labels, data):
    examples = numbered(labels)
    chosen = data.draw(st.lists(st.integers(0, len(labels) - 1), min_size=1))
    part = examples[chosen]
    assert positions(part) == chosen
    assert part.y.tolist() == [labels[i] for i in chosen]
    assert part.raw == tuple(f"text {i}" for i in chosen)
    assert positions(examples[torch.tensor(chosen)]) == chosen
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[chosen] = True
    assert positions(examples[mask]) == sorted(set(chosen))


@given(LABELS, st.sampled_from([slice(1, None), slice(None, None, -1), slice(-2, None), slice(0, 2), slice(None)]))
def test_slices_follow_python(labels, part):
    expected = list(range(len(labels)))[part]
    assert positions(numbered(labels)[part]) == expected


@given(LABELS, st.data())
def test_a_permutation_and_its_inverse_give_the_examples_back(labels, data):
    order = torch.tensor(data.draw(st.permutations(range(len(labels)))))
    back = numbered(labels)[order][order.argsort()]
    assert positions(back) == list(range(len(labels))) and back.y.tolist() == labels


def test_single_positions_and_iteration():
    examples = numbered([0, 1, 2])
    assert len(examples[1]) == 1 and positions(examples[-1]) == [2]
    assert [positions(one) for one in examples] == [[0], [1], [2]]
    with pytest.raises(IndexError, match="index 3 is outside the 3 examples"):
        examples[3]


@pytest.mark.parametrize(
    ("index", "kind", "message"),
    [
        ([0, 3], ValueError, "index 3 is outside the 3 examples"),
        ([-1], ValueError, "index -1 is outside"),
        ([], ValueError, "selection is empty"),
        (slice(3, 3), ValueError, "selection is empty"),
        (torch.tensor([True, False]), ValueError, "mask has length 2"),
        (torch.tensor([0.0]), TypeError, "whole numbers"),
        (torch.zeros(1, 1, dtype=torch.long), ValueError, "one dimension"),
    ],
)
def test_bad_indices_are_refused(index, kind, message):
    with pytest.raises(kind, match=message):
        numbered([0, 1, 2])[index]


@given(LABELS, st.integers(0, 5), st.data())
def test_both_parts_of_a_split_keep_the_classes_within_one(labels, seed, data):
    count = data.draw(st.integers(1, len(labels) - 1))
    train, test = stratified_split(numbered(labels), count, seed)
    assert len(test) == count and sorted(positions(train) + positions(test)) == list(range(len(labels)))
    for part in (train, test):
        for kind in set(labels):
            assert abs(part.y.tolist().count(kind) - labels.count(kind) * len(part) / len(labels)) < 1


@given(LABELS, st.integers(0, 5), st.data())
def test_a_limit_keeps_the_order_and_the_classes_within_one(labels, seed, data):
    limit = data.draw(st.integers(1, len(labels)))
    part = stratified_limit(numbered(labels), limit, seed)
    assert len(part) == limit and positions(part) == sorted(set(positions(part)))
    for kind in set(labels):
        assert abs(part.y.tolist().count(kind) - labels.count(kind) * limit / len(labels)) < 1


def test_the_seed_alone_decides_the_split():
    examples = numbered([0, 1] * 50)
    first, again, other = (stratified_split(examples, 20, seed) for seed in (3, 3, 4))
    assert positions(first.test) == positions(again.test) != positions(other.test)


@pytest.mark.parametrize(("count", "seed"), [(0, 0), (3, 0), (1, -1)])
def test_impossible_splits_are_refused(count, seed):
    with pytest.raises(ValueError, match="test_count|seed"):
        stratified_split(numbered([0, 1, 2]), count, seed)


def test_a_limit_beyond_the_examples_is_refused():
    with pytest.raises(ValueError, match="limit=4 is more than the 3 examples"):
        stratified_limit(numbered([0, 1, 2]), 4, 0)


def test_regression_targets_have_no_classes_to_keep():
    with pytest.raises(TypeError, match="random permutation"):
        stratified_split(Examples(torch.zeros(4, 2), torch.zeros(4, 1)), 1, 0)


X = torch.zeros(3, 2)
Y = torch.tensor([0, 1, 1])


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ((X.to(torch.uint8), Y), TypeError, r"x.float\(\) / 255"),
        ((X[:0], Y[:0]), ValueError, "at least one example"),
        ((torch.tensor([[0.0], [float("nan")], [float("inf")]]), Y), ValueError, r"2 NaN or infinite.*\[1, 0\]"),
        ((X, Y[:2]), ValueError, "x has 3 examples, y has 2"),
        ((X, Y.int()), TypeError, r"pass y.long\(\)"),
        ((X, Y.bool()), TypeError, r"pass y.long\(\)"),
        ((X, Y.float()), TypeError, r"y\[:, None\] for regression or y.long\(\) for classes"),
        ((X, Y[:, None]), ValueError, r"pass y.flatten\(\)"),
        ((X, torch.zeros(3, 1, 1)), ValueError, r"pass y.flatten\(1\)"),
        ((X, torch.zeros(3, 1).double()), TypeError, r"pass y.to\(x.dtype\)"),
        ((X, torch.full((3, 1), float("nan"))), ValueError, "y holds 3 NaN"),
        ((X, Y.to("meta")), ValueError, r"pass y.to\(x.device\)"),
        ((X, Y - 1), ValueError, "label -1"),
        ((X, Y, ("only",)), ValueError, "label 1, but classes names 1"),
        ((X, Y, ("same", "same")), ValueError, "'same' twice"),
        ((X, Y, "ab"), TypeError, "one string for each class"),
        ((X, torch.zeros(3, 1), ("a", "b")), ValueError, "classes=None"),
        ((X, Y, None, ["a"]), ValueError, "3 examples, raw has 1"),
        ((X, Y, None, "abc"), TypeError, "one string for each example"),
    ],
)
def test_bad_fields_are_refused_with_a_remedy(fields, kind, message):
    with pytest.raises(kind, match=message):
        Examples(*fields)


@pytest.mark.parametrize(("fields", "name"), [((np.zeros((3, 2)), Y), "x"), ((X, np.zeros(3)), "y")])
def test_arrays_are_refused_with_the_conversion(monkeypatch, fields, name):
    """Shape checking, on while tests run, would speak first; a reader does not have it."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(TypeError, match=rf"{name} is a ndarray, not a tensor; pass torch.as_tensor\({name}\)"):
        Examples(*fields)


def test_conversion_touches_floating_point_only():
    tokens = Examples(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[0.5], [1.5]]))
    assert tokens.double().x.dtype == torch.int64 and tokens.double().y.dtype == torch.float64
    split = Split(Examples(X, Y, ["a", "b"]), Examples(X, Y)).double()
    assert split.train.x.dtype == split.test.x.dtype == torch.float64
    assert split.train.y.dtype == torch.int64 and split.train.classes == ("a", "b")
    assert split.to("cpu").train.x.device.type == "cpu"
    with pytest.raises(TypeError, match="floating-point"):
        split.to(torch.int64)


def test_the_printed_line():
    assert repr(Examples(X, Y, ("a", "b"))) == "3 examples, x float32 [2], 2 classes"
    assert repr(Examples(X, Y)[0]) == "1 example, x float32 [2], labels 0 to 0"
    assert repr(Examples(X, torch.zeros(3, 4))) == "3 examples, x float32 [2], y float32 [4]"


def test_a_seed_is_refused_by_the_name_that_the_caller_gave_it():
    with pytest.raises(ValueError, match="split_seed=-1 has to be"):
        load("gaussians", split_seed=-1)


def test_names_are_quoted_in_few_letters():
    names = [str(c) for c in range(50_000)] + ["a" * 10**6] * 2  # a search of all for each would take minutes
    with pytest.raises(ValueError, match="classes names 'aaa.* twice; give each") as caught:
        Examples(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), names)
    assert len(str(caught.value)) < 300

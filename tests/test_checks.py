"""The ``require_*`` functions: what passes, passes unchanged; what does not says why."""

import warnings

import pytest
import torch

from explainlib import checks


def test_what_is_fine_comes_back_as_it_was():
    table = torch.ones(2, 3)
    assert checks.require_tensor("a", table) is table and checks.require_finite("a", table) is table
    assert checks.require_table("a", table) is table and checks.require_shape("a", table, [None, 3]) is table
    assert checks.require_same_kind("a", table, "b", torch.zeros(1)) is table
    assert checks.require_positive("a", 0.5) == 0.5 and checks.require_nonnegative("a", 0.0) == 0.0
    assert checks.require_count("a", 1) == 1 and checks.require_count("a", 0, least=0) == 0
    labels = torch.tensor([0, 2])
    assert checks.require_labels("y", labels, 3) is labels
    assert checks.require_choice("a", 2, (1, 2, "newton")) == 2


def test_finite_counts_and_places():
    bad = torch.ones(3, 2)
    bad[1, 1], bad[2, 0] = float("nan"), float("inf")
    with pytest.raises(ValueError, match=r"holds 2 NaN or infinite values, the first at \[1, 1\]"):
        checks.require_finite("x", bad)
    assert checks.require_finite("tokens", torch.tensor([1, 2])).sum() == 3


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_positive(value):
    with pytest.raises(ValueError, match="above zero"):
        checks.require_positive("lr", value)


@pytest.mark.parametrize("value", [-1e-9, float("nan")])
def test_nonnegative(value):
    with pytest.raises(ValueError, match="zero or more"):
        checks.require_nonnegative("l2", value)


@pytest.mark.parametrize("value", [0, -3, True])
def test_count(value):
    with pytest.raises(ValueError, match="whole number of at least 1"):
        checks.require_count("k", value)


def test_indices_keep_the_callers_order():
    for given in ([4, 0, 2], torch.tensor([4, 0, 2]), torch.tensor([4, 0, 2], dtype=torch.int32)):
        got = checks.require_indices(given, 5)
        assert got.dtype == torch.int64 and got.tolist() == [4, 0, 2]


@pytest.mark.parametrize(
    ("given", "match"), [([5], "index 5.*0 to 4"), ([-1], "index -1"), ([1, 1], "twice"), ([], "empty")]
)
def test_indices_refused(given, match):
    with pytest.raises(ValueError, match=match):
        checks.require_indices(given, 5)


def test_groups():
    got = checks.require_groups([[0], torch.tensor([1, 2])], 4)
    assert [g.tolist() for g in got] == [[0], [1, 2]]


def test_labels_of_a_cross_table():
    with pytest.raises(TypeError, match="expected int64"):
        checks.require_labels("y", torch.tensor([0.0, 1.0]), 2)
    with pytest.raises(ValueError, match="0 to 2, but the model has 2 outputs"):
        checks.require_labels("y", torch.tensor([0, 2]), 2)


def test_choices_that_come_later_are_announced():
    assert issubclass(checks.NotAvailableYet, ValueError)
    with pytest.raises(checks.NotAvailableYet, match="'b' is not available yet; use one of 'a'"):
        checks.require_choice("option", "b", ("a",), later=("b",))


def test_a_warning_stands_at_the_callers_line():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checks.warn_caller("look here", UserWarning)
    assert caught[0].filename == __file__ and str(caught[0].message) == "look here"

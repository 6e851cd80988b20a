"""Influence in a folder: the same numbers, resumed after an interruption, refused for other data."""

import warnings

import pytest
import torch

import explainlib as xl
from explainlib.datasets import streamed
from explainlib.influence import stored
from tests.datasets.streams.test_streamed import DATA, TEST, N, Source, failing, mlp

HOW = {"curvature": "gauss_newton", "solver": "cg"}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(stored, "ROWS", 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", xl.NotAtMinimumWarning)
        yield


def risk(source=DATA, l2=0.1):
    return xl.Risk(mlp(), streamed(source), l2=l2)


@pytest.mark.parametrize("how", [HOW, {"curvature": "ekfac"}, {"curvature": "hessian"}, {**HOW, "measure": "margin"}])
def test_the_numbers_are_those_without_a_store(tmp_path, how):
    want = xl.influence.loss_influence(risk(), TEST, **how)
    first = xl.influence.loss_influence(risk(), TEST, **how, store=tmp_path / "a")
    again = xl.influence.loss_influence(risk(), TEST, **how, store=tmp_path / "a")
    torch.testing.assert_close(first, want, rtol=1e-9, atol=1e-12)
    assert torch.equal(again, first)


def test_a_source_that_fails_in_the_middle_loses_only_its_part(tmp_path, monkeypatch):
    source = Source(at=20)
    problem = risk(source)
    want = xl.influence.loss_influence(problem, TEST, **HOW)
    fitted = xl.curvature.Ekfac(problem)
    want = xl.influence.loss_influence(problem, TEST, curvature=fitted)
    source.change = failing
    with pytest.raises(RuntimeError, match="failed at example 20"):
        xl.influence.loss_influence(problem, TEST, curvature=fitted, store=tmp_path / "a")
    done = stored.influence_store(tmp_path / "a", *arguments(problem, fitted)).names()
    assert done == ["scores-00000", "scores-00001", "solved"]
    source.change = None
    computed, right = [], stored.training_products
    monkeypatch.setattr(
        stored, "training_products", lambda some, *a, **k: computed.append(some.n) or right(some, *a, **k)
    )
    got = xl.influence.loss_influence(problem, TEST, curvature=fitted, store=tmp_path / "a")
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)
    assert computed == [8, N - 24]


def arguments(problem, fitted):
    return problem, TEST, problem.loss, {"curvature": fitted, "solver": "dense", "damping": 0.0, "keep": None}


def test_another_computation_is_refused(tmp_path):
    xl.influence.loss_influence(risk(), TEST, **HOW, store=tmp_path / "a")
    moved = torch.utils.data.TensorDataset(DATA.tensors[0] + 1e-9, DATA.tensors[1])
    others = {
        "train.x": lambda: xl.influence.loss_influence(risk(moved), TEST, **HOW, store=tmp_path / "a"),
        "l2": lambda: xl.influence.loss_influence(risk(l2=0.2), TEST, **HOW, store=tmp_path / "a"),
        "damping": lambda: xl.influence.loss_influence(risk(), TEST, **HOW, damping=0.1, store=tmp_path / "a"),
        "test.x": lambda: xl.influence.loss_influence(risk(), TEST[[0]], **HOW, store=tmp_path / "a"),
        "measure": lambda: xl.influence.loss_influence(risk(), TEST, **HOW, measure="margin", store=tmp_path / "a"),
        "curvature": lambda: xl.influence.loss_influence(risk(), TEST, curvature="hessian", store=tmp_path / "a"),
    }
    for said, call in others.items():
        with pytest.raises(ValueError, match=said):
            call()

"""Hessian, Gauss-Newton and empirical Fisher against double backward and loops over examples."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import explainlib as xl
from explainlib.curvature.empirical_fisher import empirical_fisher_factor, empirical_fisher_operator
from explainlib.curvature.gauss_newton import gauss_newton_blocks, gauss_newton_factor
from tests.problems import (
    convolution,
    dense_gauss_newton,
    dense_hessian,
    general,
    images,
    logistic_risk,
    network_risk,
    normal,
    relative_error,
    ridge_risk,
    targets,
)

curvature = xl.curvature


def somewhere(risk, seed=3):
    return risk.at(risk.theta + 0.3 * normal(risk.p, seed=seed))


def soft_square(outputs, y):
    return (1 + (outputs - torch.eye(3, dtype=outputs.dtype)[y]).square().sum(-1)).sqrt()


def smoothed(outputs, y):
    return cross_entropy(outputs, y, reduction="none", label_smoothing=0.2)


RISKS = {
    "logistic": lambda: somewhere(logistic_risk(20)),
    "logistic, general": lambda: somewhere(general(logistic_risk(20))),
    "two outputs": lambda: somewhere(ridge_risk(12, o=2)),
    "no bias": lambda: xl.Risk(
        torch.nn.Linear(4, 2, bias=False).double(), targets(12, o=2), loss="squared_error", l2=0.2
    ),
    "tanh": lambda: network_risk("tanh", n=12),
    "relu": lambda: network_risk("relu", n=12),
    "last layer": lambda: network_risk("tanh", n=12, parameters="last"),
    "first layer": lambda: network_risk("tanh", n=12, parameters=["linear1.weight", "linear1.bias"]),
    "convolution": lambda: xl.Risk(convolution(), images(5), l2=0.1, parameters=["0.weight", "1.weight", "4.bias"]),
    "convolution, last": lambda: xl.Risk(convolution(), images(8), l2=0.1, parameters="last"),
    "callable": lambda: xl.Risk(network_risk("tanh", n=12).model, network_risk(n=12).train, loss=soft_square, l2=0.1),
    "callable, head": lambda: xl.Risk(logistic_risk(12).model, logistic_risk(12).train, loss=smoothed, l2=0.1),
}


@pytest.fixture(params=RISKS, scope="module")
def risk(request):
    return RISKS[request.param]()


@pytest.fixture(params=[False, True], ids=["equal", "weighted"])
def weighted(request, risk):
    return (
        risk.reweighted(2 * torch.rand(risk.n, generator=torch.Generator().manual_seed(1)).double())
        if request.param
        else risk
    )


def test_hessian_is_double_backward(weighted):
    got = curvature.hessian(weighted)
    assert relative_error(got, dense_hessian(weighted)) < 1e-10
    assert torch.equal(got, got.T)


def test_gauss_newton_is_its_definition(weighted):
    got = curvature.gauss_newton(weighted)
    assert relative_error(got, dense_gauss_newton(weighted)) < 1e-10
    assert torch.linalg.eigvalsh(got).min() > weighted.l2 - 1e-10 or weighted.loss.name == "soft_square"


def test_empirical_fisher_is_its_definition(weighted):
    g, w = weighted.loss_gradients(), weighted.weights_or_ones()
    want = sum(w[i] * torch.outer(g[i], g[i]) for i in range(weighted.n)) / weighted.n
    assert relative_error(curvature.empirical_fisher(weighted), want) < 1e-12
    v = normal(2, weighted.p)
    assert torch.allclose(empirical_fisher_operator(weighted)(v), v @ want)
    factor = empirical_fisher_factor(weighted)
    assert torch.allclose(factor.T @ factor, want)


def test_products_are_the_matrices_times_rows(weighted, monkeypatch):
    for room in ("hessian", "gauss_newton"):  # by sys.modules: the package's names are the functions
        monkeypatch.setattr(sys.modules[f"explainlib.curvature.{room}"], "ROWS", 2)
    v = normal(5, weighted.p)
    for product, matrix in [
        (curvature.hessian_product, curvature.hessian), (curvature.gauss_newton_product, curvature.gauss_newton),
    ]:  # fmt: skip
        dense = matrix(weighted)
        assert torch.allclose(product(weighted, v), v @ dense, atol=1e-10)
        assert torch.allclose(product(weighted, v[0]), dense @ v[0], atol=1e-10)


def test_factor_squares_to_gauss_newton_without_its_ridge(weighted):
    if weighted.loss.name == "soft_square":
        pytest.skip("not convex in the outputs everywhere; refused, see below")
    a = gauss_newton_factor(weighted)
    ridge = weighted.l2 * torch.eye(weighted.p, dtype=torch.float64)
    assert torch.allclose(a.T @ a, curvature.gauss_newton(weighted) - ridge, atol=1e-10)
    if weighted.loss.name == "cross_entropy":
        assert len(a) == weighted.n * (weighted.n_outputs - 1)


def test_parts_change_nothing(risk, monkeypatch):
    whole = [curvature.hessian(risk), curvature.gauss_newton(risk), curvature.hessian_product(risk, normal(2, risk.p))]
    monkeypatch.setattr("explainlib.risk.PART", 5)
    parts = [curvature.hessian(risk), curvature.gauss_newton(risk), curvature.hessian_product(risk, normal(2, risk.p))]
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(whole, parts, strict=True))


def test_gauss_newton_equals_hessian_exactly_where_outputs_are_linear():
    for linear in ("logistic", "logistic, general", "two outputs", "last layer"):
        risk = RISKS[linear]()
        assert relative_error(curvature.gauss_newton(risk), curvature.hessian(risk)) < 1e-10
    for curved in ("tanh", "relu"):
        risk = RISKS[curved]()
        assert relative_error(curvature.gauss_newton(risk), curvature.hessian(risk)) > 1e-2


@pytest.mark.parametrize("k", [1, 3])
def test_top_eigenvalues(risk, k, monkeypatch):
    want = torch.linalg.eigvalsh(curvature.hessian(risk)).flip(0)[:k]
    assert torch.allclose(curvature.top_eigenvalues(risk, k), want, rtol=1e-8)
    monkeypatch.setattr("explainlib.curvature.spectrum.DENSE_BELOW", 1)  # now by Lanczos
    assert torch.allclose(curvature.top_eigenvalues(risk, k), want, rtol=1e-8)


def test_top_eigenvalues_at_the_edges():
    risk = somewhere(ridge_risk(12, d=2))
    everything = torch.linalg.eigvalsh(curvature.hessian(risk)).flip(0)
    assert torch.allclose(curvature.top_eigenvalues(risk, risk.p), everything)
    for k in (0, -1, risk.p + 1):
        with pytest.raises(ValueError, match="k="):
            curvature.top_eigenvalues(risk, k)


def test_top_eigenvalues_are_the_largest_not_the_largest_in_size():
    """A saddle: the most negative eigenvalue is larger in absolute value than the top one."""
    risk = network_risk("tanh", n=12, l2=0.0)
    wide = risk.at(3 * normal(risk.p, seed=8))
    values = torch.linalg.eigvalsh(dense_hessian(wide))
    assert values[0] < 0
    assert torch.allclose(curvature.top_eigenvalues(wide, 2), values.flip(0)[:2], rtol=1e-7)


def test_no_real_factor_is_refused():
    base = network_risk("tanh", n=12)
    concave = xl.Risk(base.model, base.train, loss=lambda f, y: -f.square().sum(-1))
    with pytest.raises(ValueError, match="convex.*dense"):
        gauss_newton_factor(concave)
    weights = torch.ones(12, dtype=torch.float64)
    weights[0] = -1
    for factor in (gauss_newton_factor, empirical_fisher_factor):
        with pytest.raises(ValueError, match="negative weight.*dense"):
            factor(base.reweighted(weights))


@profile(max_examples=8)
@given(seed=st.integers(0, 1000))
def test_matrices_do_not_see_the_order_of_examples(seed):
    risk = network_risk("tanh", n=9)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    for matrix in (curvature.hessian, curvature.gauss_newton, curvature.empirical_fisher):
        assert torch.allclose(matrix(risk), matrix(risk.subset(order)), atol=1e-12)


@pytest.mark.parametrize("matrix", [curvature.hessian, curvature.gauss_newton, curvature.empirical_fisher])
@pytest.mark.parametrize("name", ["logistic", "tanh"])
def test_float32_gives_float32(matrix, name):
    risk = RISKS[name]()
    coarse = xl.Risk(risk.model.float(), risk.train.to(torch.float32), l2=risk.l2)
    got = matrix(coarse)
    assert got.dtype == torch.float32 and relative_error(got.double(), matrix(risk)) < 1e-5
    assert curvature.top_eigenvalues(coarse, 1).dtype == torch.float32


@pytest.mark.parametrize("weighted", [False, True])
def test_blocks_are_the_diagonal_blocks_of_the_matrix(weighted):
    risk = somewhere(logistic_risk(20))
    risk = risk.reweighted(torch.linspace(0.5, 2, risk.n).double()) if weighted else risk
    places = risk.head.matrix(torch.arange(float(risk.p)).double()).long()  # [C, d]: where output c's parameters stand
    matrix = curvature.gauss_newton(risk)
    blocks = torch.stack([matrix[place][:, place] for place in places])
    assert torch.allclose(gauss_newton_blocks(risk), blocks, rtol=1e-12)

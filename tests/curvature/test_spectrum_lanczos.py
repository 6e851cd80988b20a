"""Lanczos against a dense spectrum at about 2,000 parameters: the top eigenvalues to 1e-6, by products alone."""

import pytest
import torch

import explainlib as xl
from explainlib.curvature.spectrum import lanczos
from tests.problems import normal

K = 8


@pytest.fixture(scope="module")
def digits():
    """A tanh network of 2,036 parameters on 120 digits, trained a little: its Hessian has both signs."""
    train = xl.datasets.load("digits", limit=120).train.double()
    model = xl.models.mlp([64, 27, 10], "tanh", seed=0, dtype=torch.float64)
    theta = xl.training.fit_ensemble(model, train, epochs=60, seeds=[0], lr=0.01).theta[0]
    return xl.Risk(model, train, l2=1e-3).at(theta)


def test_top_eigenvalues_are_the_dense_ones(digits, monkeypatch):
    assert 1900 < digits.p < 2100
    dense = torch.linalg.eigvalsh(xl.curvature.hessian(digits))
    assert dense[0] < 0
    products = []
    operator = xl.curvature.spectrum.hessian_operator

    def counted(risk):
        product = operator(risk)
        return lambda v: products.append(len(v)) or product(v)

    monkeypatch.setattr("explainlib.curvature.spectrum.hessian_operator", counted)
    top = xl.curvature.top_eigenvalues(digits, K)
    assert ((top - dense.flip(0)[:K]).abs() / dense[-1]).max() < 1e-6
    assert ((top - dense.flip(0)[:K]) / dense.flip(0)[:K]).abs().max() < 1e-6
    assert sum(products) < digits.p // 4  # never the matrix, row by row
    print(f"\n{digits.p} parameters, {sum(products)} products, worst {(top / dense.flip(0)[:K] - 1).abs().max():.1e}")


def test_clustered_and_repeated_eigenvalues():
    """A multiple eigenvalue is found as often as it stands, and a close pair is told apart."""
    p = 2000
    values = torch.linspace(-3, 1, p, dtype=torch.float64)
    values[-6:] = torch.tensor([5.0, 5.0, 5.0, 7.0, 7.0 + 1e-4, 9.0], dtype=torch.float64)
    turn = torch.linalg.qr(normal(p, 40, seed=2))[0]
    reflect = lambda v: v - 2 * (v @ turn) @ turn.T  # noqa: E731 - orthogonal and symmetric: no matrix p x p is made
    top = lanczos(lambda v: reflect(reflect(v) * values), values, 6)
    assert torch.allclose(top, values.sort(descending=True).values[:6], rtol=1e-9)

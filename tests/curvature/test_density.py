"""The density of the Hessian's eigenvalues: a Gauss quadrature of each probe's measure, and the dense spectrum."""

import pytest
import torch

import explainlib as xl
from explainlib.curvature.density import quadrature
from tests.problems import classes, normal

D = torch.float64


@pytest.fixture(scope="module")
def risk():
    """A tanh network of 31 parameters away from a minimum: eigenvalues of both signs, and zeros with no ridge."""
    model = xl.models.mlp([3, 4, 3], "tanh", seed=2, dtype=D)
    risk = xl.Risk(model, classes(20))
    return risk.at(risk.theta + 0.5 * normal(risk.p, seed=4))


def probes_of(risk, count, seed=0):
    start = torch.randn(count, risk.p, generator=torch.Generator().manual_seed(seed), dtype=D)
    return start / start.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_moments_are_exact_below_twice_the_steps(risk, steps):
    found = xl.curvature.spectral_density(risk, steps=steps, probes=3, seed=5)
    matrix, v = xl.curvature.hessian(risk), probes_of(risk, 3, 5)
    for power in range(2 * steps):
        want = torch.einsum("ri,ij,rj->r", v, torch.linalg.matrix_power(matrix, power), v)
        assert torch.allclose(found.moment(power), want, rtol=1e-9, atol=1e-12)
    assert torch.allclose(found.weights.sum(1), torch.ones(3, dtype=D)) and (found.weights >= 0).all()
    beyond = torch.einsum("ri,ij,rj->r", v, torch.linalg.matrix_power(matrix, 2 * steps), v)
    assert not torch.allclose(found.moment(2 * steps), beyond, rtol=1e-6)


@pytest.mark.parametrize("steps", [31, 500])
def test_all_steps_give_the_eigenvalues(risk, steps):
    found = xl.curvature.spectral_density(risk, steps=steps, probes=200)
    dense = torch.linalg.eigvalsh(xl.curvature.hessian(risk))
    assert found.nodes.shape == (200, 31) and dense[0] < -0.01
    assert torch.allclose(found.nodes.amax(1), dense[-1].expand(200)) and torch.allclose(found.nodes[:, 0], dense[0])
    for threshold in (-0.005, 0.005, 0.1):
        shares = found.share_below(threshold)
        want = float((dense < threshold).double().mean())
        assert abs(float(shares.mean()) - want) < 4 * float(shares.std()) / 200**0.5
    grid = torch.linspace(-2, float(dense[-1]) + 2, 4000, dtype=D)
    heights = found.density(grid, width=0.05)
    assert float(torch.trapezoid(heights, grid)) == pytest.approx(1, abs=1e-6)
    assert float(torch.trapezoid(heights * grid, grid)) == pytest.approx(float(found.moment(1).mean()), abs=1e-6)


def test_a_ridge_shifts_it_and_float32_follows(risk):
    shifted = xl.Risk(risk.model, risk.train, l2=0.3)
    a, b = (xl.curvature.spectral_density(r, steps=8) for r in (risk, shifted))
    assert torch.allclose(b.nodes, a.nodes + 0.3) and torch.allclose(b.weights, a.weights)
    model = xl.models.mlp([3, 4, 3], "tanh", dtype=torch.float32)
    data = classes(20)
    single = xl.Risk(model, xl.datasets.Examples(data.x.float(), data.y)).at(risk.theta.float())
    nodes = xl.curvature.spectral_density(single, steps=8).nodes
    assert nodes.dtype == torch.float32 and torch.allclose(nodes.double(), a.nodes, atol=1e-4)


def test_an_invariant_space_ends_the_steps():
    """The identity has one eigenvalue: after one step nothing is left, and the rest has no weight."""
    nodes, weights = quadrature(lambda v: 2 * v, normal(3, 10), 4)
    assert torch.allclose((weights * nodes).sum(1), torch.full((3,), 2.0, dtype=D))
    assert torch.allclose((weights * nodes**2).sum(1), torch.full((3,), 4.0, dtype=D))


@pytest.mark.parametrize("options", [{"steps": 0}, {"probes": 0}, {"steps": 2.5}])
def test_bad_counts_are_refused(risk, options):
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        xl.curvature.spectral_density(risk, **options)


def test_a_width_has_to_be_positive(risk):
    found = xl.curvature.spectral_density(risk, steps=3, probes=1)
    with pytest.raises(ValueError, match="width"):
        found.density(torch.zeros(1, dtype=D), width=0.0)

"""The spectrum of a curvature against the dense matrix that it stands for."""

import pytest
import torch

from explainlib.influence.tasks.spectrum import Spectrum
from tests.problems import normal, relative_error

Q, R = 7, 4


def spectrum(rest):
    """Return four eigenvalues with their vectors; the other three directions have the eigenvalue ``rest``."""
    vectors = torch.linalg.qr(normal(Q, R, seed=1).double())[0]
    return Spectrum(torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64), vectors, rest)


def dense_inverse(made, keep):
    """Return the inverse of the whole matrix on its ``keep`` largest eigenvalues."""
    rest = torch.eye(Q, dtype=torch.float64) - made.vectors @ made.vectors.T
    matrix = made.vectors @ torch.diag(made.values) @ made.vectors.T + made.rest * rest
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > values.sort(descending=True).values[keep] if keep < Q else values > 1e-12
    return vectors[:, kept] @ torch.diag(1 / values[kept]) @ vectors[:, kept].T


@pytest.mark.parametrize(("rest", "keep"), [(0.1, 7), (0.1, 4), (0.1, 2), (0.0, 4), (0.0, 3)])
def test_solutions_and_products_are_those_of_the_dense_matrix(rest, keep):
    made = spectrum(rest)
    left, right = normal(3, Q, seed=2).double(), normal(5, Q, seed=3).double()
    solved = left @ dense_inverse(made, keep)
    here, there = made.coordinates(left), made.coordinates(right)
    assert relative_error(made.solve(left, here, keep), solved) < 1e-12
    assert relative_error(made.products(left, here, right, there, keep), solved @ right.T) < 1e-12
    assert made.rank(keep) == keep


def test_with_damping_everything_can_be_inverted():
    made = spectrum(0.1)
    left = normal(3, Q, seed=2).double()
    assert relative_error(made.solve(left, made.coordinates(left), None), left @ dense_inverse(made, Q)) < 1e-12
    with pytest.raises(ValueError, match="the curvature is singular"):
        spectrum(0.0).solve(left, made.coordinates(left), None)

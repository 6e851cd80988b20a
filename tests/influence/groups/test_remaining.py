"""The exact inverse of what remains without each group: against a dense solve, and where it is not taken."""

import pytest
import torch

from explainlib import Risk
from explainlib.datasets import Examples
from explainlib.influence.groups import effect, remaining, removal_effect, removal_weights
from explainlib.influence.groups.remaining import remaining_inverse
from explainlib.models import logistic, mlp
from explainlib.training import minimise
from tests.problems import normal

GROUPS = [[0], [1, 5, 7], list(range(20, 40))]


def softmax(weights=None, l2=0.01, bias=True):
    x = normal(120, 3, seed=1)
    model = logistic(3, 3).double() if bias else torch.nn.Linear(3, 3, bias=False, dtype=torch.float64)
    risk = Risk(model, Examples(x, x.argmax(1)), l2=l2)
    return minimise(risk if weights is None else risk.reweighted(weights))


@pytest.mark.parametrize("weighting", ["plain", "preserve", "own weights"])
@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_inverse_of_the_dense_hessian(weighting, damping, bias):
    own = normal(120, seed=2).square() * (torch.arange(120) % 7 > 0) if weighting == "own weights" else None
    risk, weighting = softmax(own, bias=bias), "preserve" if weighting == "preserve" else "plain"
    rest = removal_weights(risk, [torch.tensor(group) for group in GROUPS], weighting)
    sizes = torch.tensor([[len(group)] for group in GROUPS], dtype=torch.float64) / risk.n
    scale = 1 / (1 - sizes) if weighting == "preserve" else torch.ones_like(sizes)
    v = normal(3, risk.p, seed=3)
    got = remaining_inverse(risk, rest, scale, damping)(v)
    for row, weights, vector in zip(got, rest, v, strict=True):
        H = torch.func.hessian(lambda theta: risk.weighted_value(theta, weights))(risk.theta)  # noqa: B023
        want = torch.linalg.solve(H + damping * torch.eye(risk.p, dtype=H.dtype), vector)
        assert torch.allclose(row, want, rtol=1e-9, atol=1e-12)


def test_newton_steps_are_the_same_and_take_one_iteration(monkeypatch):
    risk, steps, solve = softmax(), [], effect.cg
    monkeypatch.setattr(effect, "cg", lambda *given, **more: steps.append(solve(*given, **more)) or steps[-1])
    exact = removal_effect(risk, GROUPS, order="newton")
    monkeypatch.setattr(remaining, "PRODUCTS", 0)
    shared = removal_effect(risk, GROUPS, order="newton")
    assert steps[0].steps == 1 < steps[1].steps and exact.status == shared.status
    assert torch.allclose(exact.theta, shared.theta, rtol=0, atol=1e-9) and (exact.change.norm(dim=1) > 1e-4).all()


def test_where_it_is_not_taken():
    rest, one = torch.ones(1, 120, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    rest[0, 0] = 0
    assert remaining_inverse(softmax(), rest, one, 0.0) is not None
    assert remaining_inverse(softmax(), rest, one, -1.0) is None, "an indefinite matrix has no Cholesky factor"
    x = normal(120, 3, seed=1)
    network = Risk(mlp([3, 4, 3], "tanh").double(), Examples(x, x.argmax(1)), l2=0.01)
    assert remaining_inverse(network, rest, one, 0.0) is None
    squared = Risk(torch.nn.Linear(3, 3, dtype=torch.float64), Examples(x, x), loss="squared_error", l2=0.01)
    assert remaining_inverse(squared, rest, one, 0.0) is None
    wide = normal(120, 60, seed=1)
    large = Risk(logistic(60, 3).double(), Examples(wide, wide[:, :3].argmax(1)), l2=0.01)
    assert remaining_inverse(large, rest, one, 0.0) is None


@pytest.mark.parametrize(
    ("n", "features", "members", "taken"), [(48, 7, 1, True), (47, 7, 1, False), (12, 3, 6, True), (12, 3, 7, False)]
)
def test_it_is_taken_up_to_its_bounds(n, features, members, taken):
    """In numbers the outputs of all groups four times, p^2 <= 4 n C; in flops p^2/3 + 2 m p <= 16 n of a group of m."""
    x = normal(n, features, seed=1)
    risk = Risk(logistic(features, 3).double(), Examples(x, x[:, :3].argmax(1)), l2=0.1)
    rest = torch.ones(2, n, dtype=torch.float64)
    rest[:, :members] = 0
    found = remaining_inverse(risk, rest, torch.ones(2, 1, dtype=torch.float64), 0.0)
    assert (found is not None) == taken

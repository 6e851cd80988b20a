"""Small bilevel problems that the tests of meta-learning and of influence share, and their difference quotients."""

import torch

from explainlib.datasets import Tasks
from explainlib.meta.bilevel.learner import Bilevel
from explainlib.meta.bilevel.solve import solve
from explainlib.models import logistic, mlp
from tests.meta.few_shot import DOUBLE, random_tasks

STRENGTH, L2 = 0.7, 0.9  # never equal: the paper has one delta for both (slip 8)


def problem(name):
    """Return (learner, six tasks): every route through the library once."""
    if name == "softmax":  # fewer outputs than parameters: the small matrix
        return Bilevel(logistic(4, 3, dtype=DOUBLE), strength=STRENGTH, l2=L2), random_tasks(6, features=4, shots=1)
    if name == "softmax, dense":
        return Bilevel(logistic(2, 3, dtype=DOUBLE), strength=STRENGTH, l2=L2), random_tasks(6, features=2)
    if name == "head":
        model = mlp([3, 2, 3], "tanh", dtype=DOUBLE)
        return Bilevel(model, inner="head", strength=STRENGTH, l2=L2), random_tasks(6)
    if name == "outer proximity":
        learner = Bilevel(logistic(2, 3, dtype=DOUBLE), strength=STRENGTH, l2=L2, outer_proximity=True)
        return learner, random_tasks(6, features=2)
    if name == "regression":
        return Bilevel(linear(4, 2), strength=STRENGTH, l2=L2, loss="squared_error"), regression_tasks(6, 4, shots=3)
    if name == "regression, head":
        model = mlp([3, 2, 2], "tanh", dtype=DOUBLE)
        learner = Bilevel(model, inner="head", strength=STRENGTH, l2=L2, loss="squared_error")
        return learner, regression_tasks(6, 3, shots=5)
    if name == "callable":
        model = mlp([3, 2, 2], "tanh", dtype=DOUBLE)
        return Bilevel(model, inner="head", strength=2.0, l2=L2, loss=log_cosh), regression_tasks(6, 3, shots=4)
    return Bilevel(mlp([2, 2, 2], "tanh", dtype=DOUBLE), strength=20.0, l2=L2), random_tasks(6, features=2, ways=2)


PROBLEMS = (
    "softmax",
    "softmax, dense",
    "head",
    "network",
    "regression",
    "regression, head",
    "callable",
    "outer proximity",
)


def log_cosh(outputs, y):
    """A loss of the user's own, between absolute and squared error."""
    return (outputs - y).cosh().log().sum(-1)


def linear(features, outputs):
    """Return a linear regression of two outputs."""
    torch.manual_seed(0)
    return torch.nn.Linear(features, outputs, dtype=DOUBLE)


def regression_tasks(count, features, *, shots, seed=0):
    """Return tasks of two targets: a linear map of each task's own, and noise."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(count, features, 2, generator=generator, dtype=DOUBLE)

    def part(n):
        x = torch.randn(count, n, features, generator=generator, dtype=DOUBLE)
        return x, (x @ (0.5 + 0.3 * maps)).sin() + 0.1 * torch.randn(count, n, 2, generator=generator, dtype=DOUBLE)

    return Tasks(*part(shots), *part(4))


def slope(curve, step):
    """Return d curve/dt at 0: central differences of three steps, Richardson-extrapolated twice."""
    coarse, middle, fine = ((curve(h) - curve(-h)) / (2 * h) for h in (step, step / 2, step / 4))
    first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    return (16 * second - first) / 15


def jacobian(function, at, step=4e-3):
    """Return the derivative of function by every coordinate of ``at``, in the last dimension."""
    unit = torch.eye(at.numel(), dtype=DOUBLE)
    return torch.stack([slope(lambda t, row=row: function(at + t * row), step) for row in unit], dim=-1)


def solved(learner, tasks, **weights):
    """Return lam at a stationary point, to rounding."""
    return solve(learner, tasks, tolerance=2e-11, **weights).w

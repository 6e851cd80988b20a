"""Small problems that every test room shares: plain functions, float64, seeded, solved to the last digit on demand."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

import explainlib as xl
from explainlib.datasets import Examples


def generator(seed: int) -> torch.Generator:
    """Return a fresh generator, so that no test leans on the global one."""
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Return float64 standard normal numbers of a shape."""
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def classes(n: int = 40, d: int = 3, C: int = 3, *, seed: int = 0) -> Examples:
    """Return n overlapping clouds in d dimensions, with C classes."""
    y = torch.arange(n) % C
    centres = 1.5 * normal(C, d, seed=seed + 1)
    return Examples(centres[y] + normal(n, d, seed=seed + 2), y)


def targets(n: int = 30, d: int = 4, o: int = 1, *, seed: int = 0) -> Examples:
    """Return a noisy linear regression problem with o outputs."""
    x = normal(n, d, seed=seed)
    return Examples(x, x @ normal(d, o, seed=seed + 1) + 0.5 * normal(n, o, seed=seed + 2))


def logistic_risk(n: int = 40, d: int = 3, C: int = 3, *, l2: float = 0.05, seed: int = 0) -> xl.Risk:
    """Return a softmax regression at its minimum; its final layer is recognised (the closed-form route)."""
    model = xl.models.logistic(d, C, seed=seed, dtype=torch.float64)
    return xl.training.minimise(xl.Risk(model, classes(n, d, C, seed=seed), l2=l2), tolerance=1e-13)


class Renamed(nn.Module):
    """The same function with a new tensor at its end, which hides the final layer: the general route."""

    def __init__(self, inner: nn.Module) -> None:
        """Keep the model whose function this is."""
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return the inner outputs plus zero, a tensor of its own."""
        return self.inner(x) + 0.0


def general(risk: xl.Risk, *, like: nn.Module | None = None) -> xl.Risk:
    """Return the same problem on the general route (no recognised final layer)."""
    names = [f"inner.{name}" for name in risk.parameters.names]
    hidden = Renamed(risk.model if like is None else like)
    other = xl.Risk(hidden, risk.train, loss=risk.loss, l2=risk.l2, parameters=names)
    assert other.head is None
    return other if risk.weights is None else other.reweighted(risk.weights)


def ridge_risk(n: int = 30, d: int = 4, o: int = 1, *, l2: float = 0.1, seed: int = 0) -> xl.Risk:
    """Return least squares with a ridge, at its minimum."""
    model = nn.Linear(d, o, dtype=torch.float64)
    return xl.training.minimise(
        xl.Risk(model, targets(n, d, o, seed=seed), loss="squared_error", l2=l2), tolerance=1e-13
    )


def network_risk(
    activation: str = "tanh", *, n: int = 24, l2: float = 0.01, parameters="all", seed: int = 0
) -> xl.Risk:
    """Return a small network somewhere, not at a minimum: derivatives exist everywhere."""
    model = xl.models.mlp([3, 4, 3], activation, seed=seed, dtype=torch.float64)
    return xl.Risk(model, classes(n, seed=seed), l2=l2, parameters=parameters)


def convolution() -> nn.Module:
    """Return a convolutional net with BatchNorm whose running statistics are not trivial, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).double()
        net[1].running_mean.normal_()
        net[1].running_var.uniform_(0.5, 2.0)
    return net.eval()


def images(n: int = 10, *, seed: int = 0) -> Examples:
    """Return n random 4 x 4 pictures in three classes."""
    return Examples(normal(n, 1, 4, 4, seed=seed), torch.arange(n) % 3)


def plain_objective(risk: xl.Risk, theta: Tensor) -> Tensor:
    """Return R(theta) in ten lines of autograd and a loop over examples: the oracle of the whole room."""
    model, start = risk.model, 0
    named = {}
    for name in risk.parameters.names:
        shape = model.get_parameter(name).shape
        named[name] = theta[start : start + shape.numel()].reshape(shape)
        start += shape.numel()
    total = theta.new_zeros(())
    for i in range(risk.n):
        output = torch.func.functional_call(model, named, (risk.train.x[i : i + 1],))
        weight = 1.0 if risk.weights is None else risk.weights[i]
        total = total + weight * risk.loss.function(output, risk.train.y[i : i + 1])[0]
    return total / risk.n + risk.l2 / 2 * (theta * theta).sum()


def dense_hessian(risk: xl.Risk) -> Tensor:
    """Return the Hessian of ``plain_objective`` by double backward."""
    return torch.autograd.functional.hessian(lambda theta: plain_objective(risk, theta), risk.theta)


def dense_gauss_newton(risk: xl.Risk) -> Tensor:
    """Return 1/n sum w J^T S J + l2 I, one example at a time."""
    total = risk.l2 * torch.eye(risk.p, dtype=torch.float64)
    for i in range(risk.n):
        x, y = risk.train.x[i : i + 1], risk.train.y[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(lambda t, x=x: risk.parameters.outputs(t, x)[0], risk.theta)
        output = risk.parameters.outputs(risk.theta, x)[0].detach()
        s = torch.autograd.functional.hessian(lambda f, y=y: risk.loss.function(f[None], y)[0], output)
        weight = 1.0 if risk.weights is None else risk.weights[i]
        total = total + weight * jacobian.T @ s @ jacobian / risk.n
    return total


def loop_gradients(risk: xl.Risk, examples: Examples) -> Tensor:
    """Return the gradient of each example's own loss, one backward pass at a time."""
    rows = []
    for i in range(len(examples)):
        theta = risk.theta.clone().requires_grad_()
        output = risk.parameters.outputs(theta, examples.x[i : i + 1])
        loss = risk.loss.function(output, examples.y[i : i + 1])[0]
        rows.append(torch.autograd.grad(loss, theta)[0])
    return torch.stack(rows)


def relative_error(got: Tensor, want: Tensor) -> float:
    """Return |got - want| / |want|."""
    return float((got - want).norm() / want.norm())


def derivatives(curve, step: float = 1e-2) -> tuple[Tensor, Tensor]:
    """Return the first derivative and half the second of eps -> curve(eps) at 0.

    Central differences at two steps and Richardson's combination, so the error is O(step^4).
    """
    middle, first, second = curve(0.0), [], []
    for h in (step, step / 2):
        plus, minus = curve(h), curve(-h)
        first.append((plus - minus) / (2 * h))
        second.append((plus + minus - 2 * middle) / (2 * h * h))
    return tuple((4 * fine - coarse) / 3 for coarse, fine in (first, second))


def resolved(risk: xl.Risk, weights: Tensor) -> Tensor:
    """Return the minimum of the same problem under other weights, solved again to rounding."""
    return xl.training.minimise(risk, weights=weights, tolerance=1e-13).theta


def group_weights(risk: xl.Risk, group: list[int], eps: float, weighting: str) -> Tensor:
    """Return the weights of the eps-problem: 1 + eps on the group, and the rest as the weighting says."""
    f = len(group) / risk.n
    rest = 1.0 if weighting == "plain" else 1 - f / (1 - f) * eps
    weights = torch.full((risk.n,), rest, dtype=torch.float64)
    weights[group] = 1 + eps
    return weights


def digits_risk():
    """Return a softmax regression on 200 digits at its minimum: what the panels are driven on."""
    train = xl.datasets.load("digits", limit=200).train.double()
    return xl.training.minimise(xl.Risk(xl.models.logistic(64, 10).double(), train, l2=1e-2))


def digits_test():
    return xl.datasets.load("digits").test.double()[:30]


def numbers(text):
    """Return the signed changes that a panel's text shows in brackets."""
    return [float(n) for n in re.findall(r"\(([+-]\d+\.\d+)\)", text)]

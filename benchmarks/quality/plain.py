"""The oracle: first derivatives by plain ``torch.autograd`` on a model of its own, all higher ones by differences.

Nothing of explainlib's own derivatives is used. The first derivatives are themselves compared with differences of the
forward before anything is judged by them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from benchmarks.quality.families import Family

# central differences of fourth order: sum_k c_k f(k h) / h
FIRST = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
SECOND = {-2: -1 / 12, -1: 16 / 12, 0: -30 / 12, 1: 16 / 12, 2: -1 / 12}
STEP = 5e-4  # of a direction of length 1


class OracleError(AssertionError):
    """Plain autograd itself disagrees with differences: such a model needs a twin."""


class Plain:
    """A model for plain autograd, as a function of the flat vector of what it trains.

    Args:
        family: knows the twin.
        model: whose numbers.
        at: where constants are held, None where the model stands.
        batch_statistics: BatchNorm by the batch, as in few-shot learning.
    """

    def __init__(
        self, family: Family, model: nn.Module, *, at: Tensor | None = None, batch_statistics: bool = False
    ) -> None:
        self.family, self.given = family, model
        self.batch_statistics = batch_statistics
        net = family.model().double()  # made anew: some models cannot be copied
        net.load_state_dict(model.state_dict())
        names = [name for name, p in net.named_parameters() if p.requires_grad]
        if at is not None:
            _write([net.get_parameter(name) for name in names], at)
        self.net = family.twin(net)
        for layer in self.net.modules():
            if batch_statistics and isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.train().track_running_stats = False
                layer.running_mean = layer.running_var = layer.num_batches_tracked = None
        self.parameters = [self.net.get_parameter(name) for name in names]
        self.theta = torch.cat([p.detach().reshape(-1) for p in self.parameters]).clone()

    def held(self, at: Tensor) -> Plain:
        """Return the same with its constants held at another vector."""
        return Plain(self.family, self.given, at=at, batch_statistics=self.batch_statistics)

    def outputs(self, v: Tensor, x: Tensor) -> Tensor:
        """Return f(x) at v, differentiable in ``parameters``."""
        _write(self.parameters, v)
        with sdpa_kernel(SDPBackend.MATH):
            return self.net(x.clone().double() if x.is_floating_point() else x.clone())

    def slope(self, v: Tensor, value: Callable[[Callable[[Tensor], Tensor]], Tensor]) -> Tensor:
        """Return the gradient of value(outputs of x) at v."""
        made = value(lambda x: self.outputs(v, x))
        parts = torch.autograd.grad(made, self.parameters, materialize_grads=True, allow_unused=True)
        return torch.cat([part.reshape(-1) for part in parts])

    def gradient(self, v: Tensor, x: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Return the gradient of the cross-entropy of a batch."""
        return self.slope(v, lambda f: cross_entropy(f(x), y, reduction=reduction))

    def rows(self, v: Tensor, x: Tensor, value: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Return the gradient of value(outputs, i) for each example by itself [n, p]."""
        return torch.stack([self.slope(v, lambda f, i=i: value(f(x[i : i + 1]), i)) for i in range(len(x))])

    def loss_rows(self, v: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient of each example's cross-entropy [n, p]."""
        return self.rows(v, x, lambda f, i: cross_entropy(f, y[i : i + 1]))

    def require_sound(self, x: Tensor) -> None:
        """Raise unless plain autograd's first derivative is that of the forward."""
        generator = torch.Generator().manual_seed(3)
        c = torch.randn(self.outputs(self.theta, x).shape, generator=generator, dtype=torch.float64)
        value = lambda f: (f(x) * c).sum()  # noqa: E731
        u = torch.randn(self.theta.shape, generator=generator, dtype=torch.float64)
        got = self.slope(self.theta, value) @ u
        want = along(lambda v: value(lambda x: self.outputs(v, x)).detach(), self.theta, u)
        if not (got - want).abs() <= 1e-7 * (1 + want.abs()):
            raise OracleError(f"plain autograd gives {float(got):.6g}, differences {float(want):.6g}")


def _write(parameters: list[nn.Parameter], v: Tensor) -> None:
    with torch.no_grad():
        for parameter, part in zip(parameters, v.split([p.numel() for p in parameters]), strict=True):
            parameter.copy_(part.view_as(parameter))


def along(function: Callable[[Tensor], Tensor], at: Tensor, u: Tensor) -> Tensor:
    """Return the derivative of a function along u."""
    size = float(u.norm())
    if size == 0:
        return torch.zeros_like(function(at))
    h = STEP / size
    return sum(c * function(at + k * h * u) for k, c in FIRST.items()) / h


def twice_along(function: Callable[[Tensor], Tensor], at: Tensor, u: Tensor) -> Tensor:
    """Return the second derivative of a function along u."""
    h = 4 * STEP / float(u.norm())
    return sum(c * function(at + k * h * u) for k, c in SECOND.items()) / h**2


def matrix(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Return the derivative of a gradient by every coordinate, symmetric up to differences."""
    return torch.stack([along(function, at, e) for e in torch.eye(len(at), dtype=at.dtype)])

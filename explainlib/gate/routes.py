r"""Derivatives against finite differences, along random directions, in float64 where the function runs in it.

    gradient         grad F . u           against  [F(v + h u) - F(v - h u)] / 2h
    forward          jvp of F along u     against the same
    hessian          vjp of grad F at u   against  [grad F(v + h u) - grad F(v - h u)] / 2h, and  w . H u = u . H w
    forward hessian  jvp of grad F at u   against the same, and jvp of jvp of F at u, w
    third            D(H u)[w], by reverse mode and by nested forward mode, against differences of H u along w

F = sum c . f with random c, so that no derivative vanishes at a minimum. The best of several steps h counts:
a large one crosses kinks, a small one is dominated by rounding; a wrong derivative agrees with none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp

from explainlib.derivatives import Constants

GRADIENT, FORWARD, HESSIAN, FORWARD_HESSIAN, THIRD = "gradient", "forward", "hessian", "forward_hessian", "third"
ROUTES = (GRADIENT, FORWARD, HESSIAN, FORWARD_HESSIAN, THIRD)
STEPS = {torch.float64: (1e-6, 1e-8, 1e-4), torch.float32: (3e-3, 1e-2, 3e-4)}
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-2}
DIRECTIONS = 2
FLOAT32_INSIDE = ((1e-3, 3e-3, 3e-4, 1e-4), 3e-3)  # steps and tolerance where a part is in float32, the rest in float64

T = TypeVar("T")
Scalar = Callable[[Tensor, Constants | None], Tensor]


class UnsupportedError(Exception):
    """torch has no such derivative of this function; the message is the first line of torch's."""


@dataclass(frozen=True)
class Comparison:
    """The relative difference of a route from finite differences; ``frozen``: only with constants held fixed."""

    error: float
    allowed: float
    frozen: bool = False

    @property
    def agrees(self) -> bool:
        """Whether the route agrees."""
        return self.error <= self.allowed


class Derivatives:
    """The derivatives of a scalar function at one point.

    Args:
        function: (v, tape of constants or None) -> F, differentiable in v.
        at: v, float64 or float32.
        sizes: lengths of the parameter tensors in v, which scale the directions.
        rounded: whether the function rounds to float32 or less inside.
    """

    def __init__(self, function: Scalar, at: Tensor, sizes: tuple[int, ...], *, rounded: bool = False) -> None:
        self.function, self.at, self.sizes = function, at, sizes
        self.steps, self.allowed, self.eps = STEPS[at.dtype], TOLERANCE[at.dtype], torch.finfo(at.dtype).eps
        if rounded:
            self.steps, self.eps = FLOAT32_INSIDE[0], torch.finfo(torch.float32).eps
            self.allowed = max(FLOAT32_INSIDE[1], self.allowed)
        self._constants = Constants()
        with torch.no_grad():
            self.value = float(_run(lambda: function(at.clone().requires_grad_(), None)))
        with torch.enable_grad():
            function(at, self._constants)
        self._directions: tuple[Tensor, ...] | None = None

    def compare(self, route: str) -> Comparison:
        """Return the comparison of a route with finite differences.

        Raises:
            UnsupportedError: torch has no such derivative.
        """
        return {
            GRADIENT: self._gradient, FORWARD: self._forward, HESSIAN: self._hessian,
            FORWARD_HESSIAN: self._forward_hessian, THIRD: self._third,
        }[route]()  # fmt: skip

    @property
    def directions(self) -> tuple[Tensor, ...]:
        """Return random directions in which every parameter tensor changes the function about equally."""
        if self._directions is None:
            g = _run(lambda: grad(self._frozen(None))(self.at))
            scales = []
            for part, v in zip(g.split(self.sizes), self.at.split(self.sizes), strict=True):
                scales.append(float(part.norm() / (1e-3 + v.norm())))
            top = max(scales, default=0.0) or 1.0
            shares = [max(float(v.square().mean().sqrt()), 1e-3) * min(top / s if s else 1.0, 30.0)
                      for s, v in zip(scales, self.at.split(self.sizes), strict=True)]  # fmt: skip
            numbers = torch.Generator().manual_seed(0)
            self._directions = tuple(
                torch.cat([
                    share * torch.randn(size, generator=numbers, dtype=torch.float64)
                    for share, size in zip(shares, self.sizes, strict=True)
                ]).to(self.at)
                for _ in range(DIRECTIONS)
            )  # fmt: skip
        return self._directions

    def _frozen(self, constants: Constants | None) -> Callable[[Tensor], Tensor]:
        return lambda v: self.function(v, None if constants is None else constants.rewind())

    def _best(self, found: Callable[[Tensor], Tensor], differenced: Callable, floor: Callable, u: Tensor) -> Comparison:
        """Return the best agreement over the steps, first without, then with constants held fixed."""
        got, best = found(u), Comparison(float("inf"), self.allowed)
        for frozen in (False, True):
            function = self._frozen(self._constants if frozen else None)
            for h in self.steps:
                want = differenced(function, u, h)
                scale = max(float(got.norm()), float(want.norm()), floor(u, h))
                error = float((got - want).norm()) / scale if scale else 0.0
                if error < best.error:  # false for NaN
                    best = Comparison(error, self.allowed, frozen and self._constants.surprising)
                if best.agrees:
                    return best
            if not self._constants.values:
                break
        return best

    def _slope(self, found: Callable[[Tensor], Tensor]) -> Comparison:
        g = _run(lambda: grad(self._frozen(None))(self.at))

        def difference(function: Callable, u: Tensor, h: float) -> Tensor:
            return (_plain(function, self.at + h * u) - _plain(function, self.at - h * u)) / (2 * h)

        typical = lambda u, h: max(float((g * u).norm()), self.eps * abs(self.value) / h / self.allowed)  # noqa: E731
        return _worst([self._best(found, difference, typical, u) for u in self.directions])

    def _gradient(self) -> Comparison:
        g = _run(lambda: grad(self._frozen(None))(self.at))
        return self._slope(lambda u: (g * u).sum())

    def _forward(self) -> Comparison:
        return self._slope(lambda u: _run(lambda: jvp(self._frozen(None), (self.at,), (u,))[1]))

    def _curvature(self, product: Callable[[Tensor], Tensor]) -> Comparison:
        g = _run(lambda: grad(self._frozen(None))(self.at)).norm()

        def difference(function: Callable, u: Tensor, h: float) -> Tensor:
            slope = grad(function)
            return (_run(lambda: slope(self.at + h * u)) - _run(lambda: slope(self.at - h * u))) / (2 * h)

        floor = lambda u, h: float(10 * self.eps * g / h / self.allowed)  # noqa: E731
        return _worst([self._best(product, difference, floor, u) for u in self.directions])

    def _hessian(self) -> Comparison:
        product = self._product(None)
        u, w = self.directions
        Hu, Hw = product(u), product(w)
        across = float((w * Hu).norm() + (u * Hw).norm()) / 2
        asymmetry = abs(float(w @ Hu - u @ Hw)) / across if across else 0.0
        seen = self._curvature(product)
        return seen if asymmetry <= self.allowed else Comparison(max(asymmetry, seen.error), self.allowed)

    def _forward_hessian(self) -> Comparison:
        slope, along = grad(self._frozen(None)), lambda v, d: jvp(self._frozen(None), (v,), (d,))[1]
        product = lambda u: _run(lambda: jvp(slope, (self.at,), (u,))[1])  # noqa: E731
        seen = self._curvature(product)
        u, w = self.directions
        want, parts = product(u), float((product(u) * w).norm())
        twice = _run(lambda: jvp(lambda v: along(v, u), (self.at,), (w,))[1])  # forward over forward
        error = abs(float(twice - want @ w)) / parts if parts else 0.0
        return seen if error <= self.allowed else Comparison(max(error, seen.error), self.allowed)

    def _product(self, constants: Constants | None) -> Callable[[Tensor], Tensor]:
        pull = _run(lambda: vjp(grad(self._frozen(constants)), self.at)[1])
        return lambda u: _run(lambda: pull(u)[0])

    def _third(self) -> Comparison:
        u, w = self.directions
        hessian_reverse = lambda v: vjp(grad(self._frozen(None)), v)[1](u)[0]  # noqa: E731
        along = lambda v: jvp(grad(self._frozen(None)), (v,), (u,))[1]  # noqa: E731
        size = float(_run(lambda: hessian_reverse(self.at)).norm())
        floor = lambda _, h: 10 * self.eps * size / h / self.allowed  # noqa: E731

        def difference(function: Callable, direction: Tensor, h: float) -> Tensor:
            hessian_product = lambda v: vjp(grad(function), v)[1](u)[0]  # noqa: E731
            ahead, behind = (_run(lambda s=s: hessian_product(self.at + s * h * direction)) for s in (1, -1))
            return (ahead - behind) / (2 * h)

        routes = (
            lambda d: _run(lambda: vjp(hessian_reverse, self.at)[1](d)[0]),  # D(H u) is symmetric
            lambda d: _run(lambda: jvp(along, (self.at,), (d,))[1]),
        )
        return _worst([self._best(route, difference, floor, w) for route in routes])


def _worst(seen: list[Comparison]) -> Comparison:
    worst = max(seen, key=lambda one: one.error / one.allowed)
    return Comparison(worst.error, worst.allowed, any(one.frozen for one in seen))


def _plain(function: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    with torch.enable_grad():  # as in the recording, so that a block without gradients is detected
        return _run(lambda: function(v)).detach()


def _run(compute: Callable[[], T]) -> T:
    try:
        return compute()
    except (RuntimeError, TypeError) as error:
        raise UnsupportedError(str(error).strip().split("\n")[0]) from error

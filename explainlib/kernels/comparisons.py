"""The kernels beside the fused Gram against float64: Hessians of groups, Gaussian layers, small perceptrons."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from explainlib.kernels.choice import use
from explainlib.kernels.groups import group_hessians
from explainlib.kernels.moments import linear_moments
from explainlib.kernels.perceptrons import trained_perceptrons
from explainlib.kernels.self_check import Comparison, relative_error

TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6}
LAYERS = ((5, 7, 3), (70, 37, 40))  # n, d, o: one tile; several
GROUPS = ((9, 3, 4), (21, 5, 13), (40, 2, 37))  # n, C, d: one tile; rows of a class in two tiles; several


def normal(*shape: int, seed: int) -> Tensor:
    """Return float64 normal numbers, the same on every machine."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def group_comparisons(device: str, route: str = "triton") -> list[Comparison]:
    """Return the comparisons of the kernel for Hessians of groups with plain PyTorch in float64.

    Args:
        device: "cuda", or "cpu" with Triton's interpreter on.
        route: what is compared: "triton", or "torch" to try the comparisons themselves.
    """
    found = []
    for n, C, d in GROUPS:
        wide = [normal(n, C, seed=1).softmax(1), normal(d, n, seed=2).T, normal(n, seed=3).square()]
        members = normal(n, seed=4).argsort().repeat(2)[: n + 7].to(device)
        offsets = torch.tensor([0, 0, 2, 3, len(members)], device=device)  # an empty group, and one of several blocks
        want = group_hessians(*(each.to(device) for each in wide), members, offsets)
        for dtype, tolerance in TOLERANCE.items():
            given = [each.to(device, dtype) for each in wide]
            with use(route):
                got, again = (group_hessians(*given, members, offsets) for _ in range(2))
            name = f"group_hessians {str(dtype).removeprefix('torch.')} {[n, C, d]}"
            found.append(Comparison(name, relative_error(got, want), tolerance))
            error = relative_error(got, got.mT) + relative_error(got, again)
            found.append(Comparison(f"{name}, asymmetry and difference", error, 0.0))
    last = [each.to(device)[:5] for each in wide]
    groups = torch.tensor([0, 3, 4, 1], device=device), torch.tensor([0, 1, 4], device=device)
    return [*found, derivative_comparison("group_hessians", lambda *x: group_hessians(*x, *groups), last, route)]


def moment_comparisons(device: str, route: str = "triton") -> list[Comparison]:
    """Return the comparisons of the kernel for moments of Gaussian layers with plain PyTorch in float64.

    Args:
        device: "cuda", or "cpu" with Triton's interpreter on.
        route: what is compared: "triton", or "torch" to try the comparisons themselves.
    """
    found = []
    for n, d, o in LAYERS:
        wide = [normal(d, n, seed=1).T, normal(n, d, seed=2).square(), normal(o, d, seed=3)]
        wide += [normal(o, d, seed=4).square(), normal(o, seed=5), normal(o, seed=6).square()]
        for dtype, tolerance in TOLERANCE.items():
            for random in (True, False):
                got = _moments([x.to(device, dtype) for x in wide], random, route)
                want = _moments([x.to(device) for x in wide], random, "torch")
                name = f"linear_moments {str(dtype).removeprefix('torch.')} {[n, d, o]}{', variance' * random}"
                found.append(Comparison(name, max(map(relative_error, got, want)), tolerance))
    few = [x.to(device) for x in (wide[0][:3], wide[1][:3], *wide[2:])]
    both = lambda m, v, w, s, b, t: torch.stack(linear_moments(m, v, (w, s), (b, t)))  # noqa: E731
    return [*found, derivative_comparison("linear_moments", both, few, route)]


def _moments(given: list[Tensor], random: bool, route: str) -> tuple[Tensor, Tensor]:
    m, v, w, s, b, t = given
    with use(route):
        return linear_moments(m, v, (w, s), (b, t)) if random else linear_moments(m, None, (w, s), None)


def perceptron_comparisons(device: str, route: str = "triton") -> list[Comparison]:
    """Return the comparisons of the kernel that trains small perceptrons with plain PyTorch in float64.

    Args:
        device: "cuda", or "cpu" with Triton's interpreter on.
        route: what is compared: "triton", or "torch" to try the comparisons themselves.
    """
    found = []
    for widths, dtype in (((4, 5, 3), torch.float32), ((4, 5, 3), torch.float64), ((36, 32, 5), torch.float32)):
        p = sum((a + 1) * b for a, b in pairwise(widths))
        wide = [normal(19, widths[0], seed=1), normal(2, 19, seed=2).square(), normal(2, p, seed=3) / 2]
        y, options = torch.arange(19, device=device) % widths[-1], {"widths": widths, "epochs": 3, "lr": 0.01}
        trained = []
        for kind, chosen in ((dtype, route), (torch.float64, "torch")):
            x, weights, starts = (each.to(device, kind) for each in wide)
            with use(chosen):
                trained.append(trained_perceptrons(x, y, weights, starts, **options))
        name = f"trained_perceptrons {str(dtype).removeprefix('torch.')} {'-'.join(map(str, widths))}"
        found.append(Comparison(name, relative_error(*trained), TOLERANCE[dtype]))
    return found


def derivative_comparison(
    name: str, function: Callable[..., Tensor], given: list[Tensor], route: str = "triton"
) -> Comparison:
    """Return the comparison of grad, jvp and vmap through a kernel with those through plain PyTorch, in float64.

    Args:
        name: of the operation.
        function: of tensors.
        given: the tensors.
        route: what is compared.
    """
    tangents = tuple(torch.cos(each) for each in given)
    ways = (
        grad(lambda *x: uneven_sum(function(*x)), tuple(range(len(given)))),
        lambda *x: jvp(function, x, tangents)[1],
        lambda *x: vmap(function)(*(torch.stack([each, 2 * each]) for each in x)),
    )
    error = 0.0
    for way in ways:
        with use(route):
            got = way(*given)
        with use("torch"):
            want = way(*given)
        pairs = zip(got, want, strict=True) if isinstance(got, tuple) else [(got, want)]
        error = max(error, *(relative_error(*pair) for pair in pairs), 0.0)
    return Comparison(f"{name}: grad, jvp and vmap", error, TOLERANCE[torch.float64])


def uneven_sum(K: Tensor) -> Tensor:
    """Return a nonlinear sum in which entries count differently, because those of a Hessian cancel."""
    weights = torch.cos(torch.arange(K.numel(), dtype=K.dtype, device=K.device))
    return (torch.sin(K).flatten() * weights).sum()

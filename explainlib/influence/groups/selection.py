"""Group selection: the k examples whose removal would raise the mean test loss most.

    maximise q(w) = c1 w^T a + c2 w^T B w over indicators of k examples          (the quadratic of ``quadratic``)

Choosing the k largest a_i is best for the first term alone; the second adds interactions of the members. Relaxed to the
capped simplex {0 <= w <= 1, sum w = k}, whose corners are exactly the groups of k, q is maximised by projected
gradient ascent. Relaxed as published, to the L1 ball without the box, it ends with weights of hundreds on a few
examples. q is a prediction; which of two groups is more influential is decided by retraining.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_count, require_nonnegative
from explainlib.datasets import Examples
from explainlib.influence.groups.quadratic import (
    GroupQuadratic,
    indicators,
    require_curvature,
    require_series,
    require_unweighted,
)
from explainlib.influence.groups.swaps import Swaps
from explainlib.influence.products import mean_gradient, training_products
from explainlib.influence.projections import capped_simplex_projection, l1_ball_projection
from explainlib.memory import alternatives
from explainlib.progress import tqdm
from explainlib.risk import Risk, require_minimum
from explainlib.solvers.configured import Solver
from explainlib.solvers.inverse import Curvature, curvature_name, inverse_curvature
from explainlib.training.minimise import minimise_for

METHODS = ("relaxed", "printed", "greedy", "refit", "swap", "random")
SWAP_LIMIT = 2**25  # n x p up to which "relaxed" also swaps, with two tables of that size
RANDOM_STARTS = 2
STEPS = 300
TENTHS = 10
Projection = Callable[[Tensor, float], Tensor]


@alternatives(
    "pass method='greedy' with curvature='ekfac', make the Risk with parameters='last', or on fewer training examples"
)
@compute.entry
def influential_group(
    risk: Risk,
    test: Examples,
    size: int,
    *,
    method: str = "relaxed",
    seed: int = 0,
    curvature: Curvature = "hessian",
    solver: str | Solver = "dense",
    damping: float = 0.0,
    strict: bool = False,
    on_failure: str = "raise",
) -> Int[Tensor, " size"]:
    """Return the group of ``size`` training examples whose removal is predicted to raise the mean test loss most.

    Args:
        risk: unweighted; for curvature "hessian", and always for "refit", at a minimum (a warning otherwise, or with
            ``strict`` an error).
        test: the examples of the mean loss.
        size: k, at least 1 and below n.
        method: "relaxed": projected gradient ascent of q on the capped simplex from greedy's group, from equal weights
            and from random groups; each end is rounded to its k largest weights, and the best of those and greedy's
            group is returned, after pairwise swaps where n x p is at most 2^25. So its q is never below greedy's.
            "greedy": the k largest a_i, first-order influence. "refit": greedy a tenth of the group at a time, the
            remaining problem solved again before each. "swap": pairwise swaps from greedy's group until none raises q.
            "printed": the published relaxation, rounded; see ``printed_weights``. "random": a random group.
        seed: of "random", and of the random starts of "relaxed".
        curvature: for "greedy" as in ``parameter_influence``; for "refit" the same by name, of each remaining problem;
            for "relaxed", "swap" and "printed" "hessian" or "gauss_newton", of the risk and of each example. "random"
            has none.
        solver: as in ``parameter_influence``.
        damping: absolute, added to the curvature only to solve with it.
        strict: raise where the risk is not at a minimum.
        on_failure: "raise" or "warn" when a solve, or a re-solved problem, does not converge.

    Returns:
        [size] distinct indices, most influential first: by dq/dw at the group for "relaxed" and "swap", by a_i for
        "greedy", by weight for "printed", in the order of choice for "refit"; "random" has no order.

    Raises:
        SolverError: a singular curvature without ridge or damping, or a solve that did not converge.
        MinimiseError: a re-solved problem of "refit" that did not converge.
        ValueError, TypeError: a bad size or option, a curvature that the method does not have, a reweighted risk, or a
            test set that does not fit the risk.

    Cost: two passes over the data and one solve an ascent step. Swaps hold 2 n p numbers and solve n right-hand sides;
    "refit" minimises and factors up to ten times. "greedy" with a curvature other than "hessian" is one solve and one
    pass over the data, without a gradient an example.

    Source: Basu et al. 2020, eq. (18). Deviations: the box 0 <= w <= 1 (not in "printed"), the ridge, the mean over
    several tests; "refit" and "swap" are not in the paper. c1 is not positive from f = 1/2 on, where the printed first
    term prefers the least influential; "greedy" ranks by a_i at every size.
    """
    require_choice("method", method, METHODS)
    _require_size(risk, size)
    risk.require_examples(test, "test")
    require_unweighted(risk)
    require_nonnegative("damping", damping)
    require_choice("on_failure", on_failure, ("raise", "warn"))
    require_curvature(curvature)
    if method == "random":
        return _random_groups(risk, size, 1, seed)[0]
    how = {"curvature": curvature, "solver": solver, "damping": damping}
    if method == "refit":
        _require_of_any_problem(curvature)
        require_minimum(risk, strict=strict, user="group selection")
        return _select_refitted(risk, test, size, how, on_failure)
    if method == "greedy" and curvature != "hessian":
        if curvature_name(curvature) == "hessian":
            require_minimum(risk, strict=strict, user="group selection")
        return _largest(_first_order(risk, test, how, on_failure), size)
    require_series(curvature, f"method={method!r}", "method='greedy'")
    quadratic = GroupQuadratic(risk, test, **how, strict=strict, on_failure=on_failure)
    greedy = _largest(quadratic.a, size)
    if method == "greedy":
        return greedy
    if method == "printed":
        return _largest(_select_printed(quadratic, greedy), size, ties=quadratic.a)
    if method == "swap":
        group = Swaps(quadratic, size).improve(greedy)
    else:
        group = _select_relaxed(quadratic, greedy, seed)
    return group[_largest(quadratic.gradient(indicators(quadratic.risk, [group]), size)[0, group], size)]


@compute.entry
def printed_weights(
    risk: Risk,
    test: Examples,
    size: int,
    *,
    curvature: Curvature = "hessian",
    solver: str | Solver = "dense",
    damping: float = 0.0,
    strict: bool = False,
    on_failure: str = "raise",
) -> Float[Tensor, " n"]:
    """Return the weights to which the relaxation as published converges: few, and as large as hundreds.

    They belong to no group, so q at them is not the influence of a group, and is not reported as one.
    ``influential_group(method="printed")`` rounds them to the k largest, ties by first-order influence.

    Args:
        risk: unweighted; for curvature "hessian" at a minimum (a warning otherwise, or with ``strict`` an error).
        test: the examples of the mean loss.
        size: k, the radius of the ball sum |w| <= k; at least 1 and below n.
        curvature: "hessian" or "gauss_newton", of the risk and of each example.
        solver: as in ``parameter_influence``.
        damping: absolute, added to the curvature only to solve with it.
        strict: raise where the risk is not at a minimum.
        on_failure: "raise" or "warn" when a solve does not converge.

    Returns:
        [n], most of them 0.

    Raises:
        SolverError: a singular curvature without ridge or damping, or a solve that did not converge.
        ValueError, TypeError: a bad size or curvature, a reweighted risk, or a test set that does not fit the risk.

    Source: Basu et al. 2020, eq. (18) with |w|_0 <= k relaxed to |w|_1 <= k, by gradient ascent with the projection of
    Duchi et al. 2008. The paper has no box; with one see ``influential_group(method="relaxed")``.
    """
    _require_size(risk, size)
    require_series(curvature, "the published relaxation", "xl.influence.influential_group(method='greedy')")
    how = {"curvature": curvature, "solver": solver, "damping": damping, "strict": strict, "on_failure": on_failure}
    quadratic = GroupQuadratic(risk, test, **how)
    return _select_printed(quadratic, _largest(quadratic.a, size))


def projected_gradient_ascent(
    quadratic: GroupQuadratic, starts: Float[Tensor, "s n"], size: int, project: Projection
) -> Float[Tensor, "s n"]:
    """Return the result of spectral projected gradient ascent of q from each start, all in one batch.

    Along each projected direction q is a parabola, so the step length is exact and q never falls; the next gradient
    comes from the same product. Convex directions are followed to the boundary, so the result is one of many local
    maxima.

    Args:
        quadratic: gives q.
        starts: projected before use.
        size: k, in the coefficients of q and in the set.
        project: (rows, k) -> the nearest feasible rows; the set has to be convex.

    Returns:
        [s, n] feasible rows, after at most 300 steps.
    """
    c2 = quadratic.coefficients(size)[1]
    w = project(starts, size)
    gradient = quadratic.gradient(w, size)
    first = 1 / gradient.abs().amax(1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny)
    step, scale = first, (w * gradient).sum(1).abs()
    for _ in range(STEPS):
        direction = project(w + step * gradient, size) - w
        predicted_increase = (direction * gradient).sum(1, keepdim=True)
        if (predicted_increase[:, 0] <= 1e-9 * scale).all():
            break
        gradient_change = c2 * quadratic.product(direction)
        curvature = (direction * gradient_change).sum(1, keepdim=True)
        concave = curvature < 0
        length = torch.where(concave, predicted_increase / -curvature.clamp(max=-torch.finfo(w.dtype).tiny), 1.0).clamp(
            0, 1
        )
        w, gradient = w + length * direction, gradient + length * gradient_change
        spectral = direction.square().sum(1, keepdim=True) / -curvature.clamp(max=-torch.finfo(w.dtype).tiny)
        step = torch.where(concave, spectral, 10 * step).clamp(min=1e-3 * first, max=1e6 * first)
        scale = torch.maximum(scale, (w * gradient).sum(1).abs())
    return w


def _select_relaxed(quadratic: GroupQuadratic, greedy: Int[Tensor, " k"], seed: int) -> Int[Tensor, " k"]:
    risk, size = quadratic.risk, len(greedy)
    groups = [greedy, *_random_groups(risk, size, RANDOM_STARTS, seed)]
    equal = quadratic.a.new_full((1, risk.n), size / risk.n)
    starts = torch.cat([equal, indicators(risk, groups)])
    ends = projected_gradient_ascent(quadratic, starts, size, capped_simplex_projection)
    found = [greedy, *(_largest(w, size, ties=quadratic.a) for w in ends)]
    best = found[int(quadratic.value(indicators(risk, found), size).argmax())]
    return Swaps(quadratic, size).improve(best) if risk.n * risk.p <= SWAP_LIMIT else best


def _select_printed(quadratic: GroupQuadratic, greedy: Int[Tensor, " k"]) -> Float[Tensor, " n"]:
    size = len(greedy)
    equal = quadratic.a.new_full((1, quadratic.risk.n), size / quadratic.risk.n)
    ends = projected_gradient_ascent(
        quadratic, torch.cat([indicators(quadratic.risk, [greedy]), equal]), size, l1_ball_projection
    )
    return ends[quadratic.value(ends, size).argmax()]


def _select_refitted(risk: Risk, test: Examples, size: int, how: dict, on_failure: str) -> Int[Tensor, " k"]:
    """Return greedy's choice a tenth at a time, each tenth ranked by the remaining problem ("preserve")."""
    weights, chosen = risk.weights_or_ones(), []
    tenths = [part for part in torch.arange(size).tensor_split(TENTHS) if len(part)]
    remaining = risk
    for part in tqdm(tenths, desc="refit", delay=2.0, leave=False):
        if chosen:
            removed = sum(len(c) for c in chosen)
            weights = torch.where(weights == 0, 0.0, risk.n / (risk.n - removed))
            remaining = minimise_for(risk.at(remaining.theta), weights=weights, on_failure=on_failure, offers=())
        first_order = _first_order(remaining, test, how, on_failure)
        chosen.append(_largest(first_order.masked_fill(weights == 0, -torch.inf), len(part)))
        weights = weights.clone()
        weights[chosen[-1]] = 0
    return torch.cat(chosen)


def _first_order(risk: Risk, test: Examples, how: dict, on_failure: str) -> Float[Tensor, " n"]:
    """Return v . grad l_i with v = C^-1 grad l_t, without a gradient an example.

    grad l_i + l2 theta and grad l_i differ by the same vector for all i, so the order is that of a_i.
    """
    inverse = inverse_curvature(risk, **how, offers=("curvature", "solver", "damping"))
    v = inverse(mean_gradient(risk, test)[None]).require_converged(on_failure).value
    return training_products(risk, v)[0]


def _largest(score: Float[Tensor, " n"], k: int, *, ties: Float[Tensor, " n"] | None = None) -> Int[Tensor, " k"]:
    """Return the positions of the k largest, largest first; equal ones by ``ties``, then by position."""
    if ties is None:
        return score.argsort(descending=True, stable=True)[:k]
    order = ties.argsort(descending=True, stable=True)
    return order[score[order].argsort(descending=True, stable=True)][:k]


def _random_groups(risk: Risk, size: int, count: int, seed: int) -> Int[Tensor, "count size"]:
    generator = torch.Generator().manual_seed(seed)
    groups = [torch.randperm(risk.n, generator=generator)[:size] for _ in range(count)]
    return torch.stack(groups).to(risk.theta.device)


def _require_size(risk: Risk, size: int) -> int:
    if require_count("size", size) >= risk.n:
        raise ValueError(
            f"size={size} of {risk.n} training examples leaves nothing to train on; pass less than {risk.n}."
        )
    return size


def _require_of_any_problem(curvature: Curvature) -> None:
    """Refuse a fitted curvature where the problem changes."""
    if not isinstance(curvature, str):
        raise ValueError(
            f"a fitted {type(curvature).__name__} is of the whole problem, and method='refit' solves each remaining "
            f"one; pass curvature={curvature_name(curvature)!r}, or method='greedy'."
        )

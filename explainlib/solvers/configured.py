"""Configured solvers: each prepares the inverse of a risk's curvature by one method.

``prepare`` does what does not depend on the right-hand side (a matrix and its factor, eigenvectors, a scale); the
inverse that it returns is then called for one set of rows after the other. Those with a fit worth keeping take a store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_count, require_positive
from explainlib.curvature.empirical_fisher import (
    empirical_fisher,
    empirical_fisher_factor,
    empirical_fisher_operator,
)
from explainlib.curvature.gauss_newton import gauss_newton, gauss_newton_factor, gauss_newton_operator
from explainlib.curvature.hessian import hessian, hessian_operator
from explainlib.curvature.spectrum import lanczos
from explainlib.memory import require_memory
from explainlib.risk import Risk
from explainlib.solvers.arnoldi import dominant_eigenpairs
from explainlib.solvers.block_cg import block_cg
from explainlib.solvers.cg import Operator, cg
from explainlib.solvers.dense import Factor, Keep
from explainlib.solvers.low_rank import LowRank, gram_floor
from explainlib.solvers.preconditioner import CACHE_UP_TO, block_preconditioner
from explainlib.solvers.series import MARGIN, SCALE_TOLERANCE, lissa, lissa_batches, neumann
from explainlib.solvers.solution import Solution
from explainlib.storage import Store

MATRICES = {"hessian": hessian, "gauss_newton": gauss_newton, "empirical_fisher": empirical_fisher}
OPERATORS: dict[str, Callable[[Risk], Operator]] = {
    "hessian": hessian_operator,
    "gauss_newton": gauss_newton_operator,
    "empirical_fisher": empirical_fisher_operator,
}
FACTOR_BYTES = 24  # float64 numbers of a matrix, its factor and a work array
ENTRIES = 2**24  # numbers of a factor's rows in one block
Inverse = Callable[[Float[Tensor, "k p"]], Solution]


@dataclass(frozen=True)
class Dense:
    """Materialise the matrix once and factor it; p^2 numbers in memory, p^3 operations."""

    def prepare(self, risk: Risk, curvature: str, damping: float, keep: Keep, store: Store | None = None) -> Inverse:
        """Return the inverse, factored; the factor is cached by the risk, up to 8,000 parameters, the matrix stored."""
        size = risk.p**2 * (3 * risk.theta.element_size() + FACTOR_BYTES)
        what = f"the {curvature.replace('_', ' ')} matrix of p = {risk.p:,} parameters and its factor"
        require_memory(what, size, risk.theta.device)
        matrix = _from_store(store, "matrix", lambda: MATRICES[curvature](risk), risk)
        make = lambda: Factor(matrix(), damping=damping, keep=keep)  # noqa: E731
        if store is not None or risk.p > CACHE_UP_TO:
            return make().solve
        return risk.cached(("factor", curvature, damping, keep), make).solve


@dataclass(frozen=True)
class CG:
    """Conjugate gradients with products alone; needs a positive definite damped curvature.

    Several right-hand sides share their search directions (``solvers.block_cg``), unless a trained final layer alone
    has a preconditioner.
    """

    tolerance: float | None = None
    max_steps: int | None = None

    def prepare(self, risk: Risk, curvature: str, damping: float, keep: Keep) -> Inverse:
        """Return the inverse; each call iterates."""
        _refuse_keep(keep, "cg")
        product = OPERATORS[curvature](risk)
        blocks = None if curvature == "empirical_fisher" else block_preconditioner(risk, damping=damping)
        damped, options = lambda v: product(v) + damping * v, {"tolerance": self.tolerance, "max_steps": self.max_steps}
        if blocks is None:
            return lambda rhs: block_cg(damped, rhs, **options)
        return lambda rhs: cg(damped, rhs, preconditioner=blocks, **options)


@dataclass(frozen=True)
class Lissa:
    """The Neumann series, on all examples or on random batches of ``batch_size``.

    ``scale`` None takes 1.1 times the top eigenvalue of the damped curvature, three times it on batches. ``steps`` None
    reduces the transient to ``tolerance``: log(1/tolerance) scale / (l2 + damping) steps, at most 20,000.
    """

    scale: float | None = None
    batch_size: int | None = None
    steps: int | None = None
    repeats: int = 10
    tolerance: float = 1e-6
    seed: int = 0

    def prepare(self, risk: Risk, curvature: str, damping: float, keep: Keep) -> Inverse:
        """Return the inverse; each call iterates."""
        _refuse_keep(keep, "lissa")
        operator = OPERATORS[curvature]
        whole = operator(risk)
        scale = self.scale
        if scale is None:
            top = float(lanczos(whole, risk.theta, 1, tolerance=SCALE_TOLERANCE))
            scale = (1.1 if self.batch_size is None else 3.0) * (top + damping)
        require_positive("scale", scale)
        if self.batch_size is None:
            most = 20_000 if self.steps is None else self.steps
            return lambda rhs: lissa(whole, rhs, scale=scale, damping=damping, tolerance=self.tolerance, max_steps=most)
        floor = damping + (0.0 if curvature == "empirical_fisher" else risk.l2)
        if self.steps is None and floor == 0:
            raise ValueError(
                "LiSSA on batches cannot tell when to stop without l2 or damping; pass damping > 0, or "
                "xl.solvers.Lissa(steps=..., batch_size=...)."
            )
        size = require_count("batch_size", self.batch_size)
        steps = self.steps or min(20_000, math.ceil(scale / floor * math.log(1 / max(self.tolerance, 1e-4))))
        return lambda rhs: lissa_batches(
            lambda seed: _batches(risk, operator, size, seed),
            rhs, scale=scale, damping=damping, steps=steps, repeats=self.repeats, seed=self.seed,
        )  # fmt: skip


@dataclass(frozen=True)
class LowRankSolver:
    """Woodbury on the smaller side of the per-example factor; exact for Gauss-Newton and empirical Fisher."""

    def prepare(self, risk: Risk, curvature: str, damping: float, keep: Keep, store: Store | None = None) -> Inverse:
        """Return the inverse, with its eigenvectors computed; the factor, or the summed matrix, is stored."""
        if curvature == "empirical_fisher":
            rows, shift = risk.n, damping
        else:
            rows, shift = risk.n * risk.n_outputs, damping + risk.l2
        factor = empirical_fisher_factor if curvature == "empirical_fisher" else gauss_newton_factor
        if rows < risk.p:
            whole = _from_store(store, "factor", lambda: factor(risk), risk)
            return LowRank(whole(), shift=shift, keep=keep).solve
        require_memory(f"{curvature} of p = {risk.p:,} parameters, summed", risk.p**2 * FACTOR_BYTES, risk.theta.device)
        floor = gram_floor(risk.theta.dtype, risk.p)
        gram = _from_store(store, "gram", lambda: _accumulated_gram(risk, factor), risk)
        return LowRank(gram(), shift=shift, keep=keep, square=True, floor=floor).solve


@dataclass(frozen=True)
class Neumann:
    """The Neumann series, to ``tolerance`` or to a depth of ``steps``; see ``solvers.neumann``.

    ``scale`` None takes 1.1 times the top eigenvalue of the damped curvature.
    """

    scale: int | float | None = None
    steps: int | None = None
    tolerance: int | float = 1e-6
    max_steps: int = 20_000

    def prepare(self, risk: Risk, curvature: str, damping: float, keep: Keep) -> Inverse:
        """Return the inverse; each call sums the series."""
        _refuse_keep(keep, "neumann")
        product = OPERATORS[curvature](risk)
        scale = self.scale
        if scale is None:
            top = float(lanczos(product, risk.theta, 1, tolerance=SCALE_TOLERANCE)) + damping
            scale = MARGIN * top if top > 0 else 1.0  # not positive definite: the series diverges
        options = {"scale": scale, "damping": damping, "tolerance": self.tolerance}
        return lambda rhs: neumann(product, rhs, max_steps=self.max_steps, steps=self.steps, **options)


@dataclass(frozen=True)
class Arnoldi:
    """The inverse on the ``k`` dominant eigenvectors, found in ``steps`` iterations; see ``solvers.arnoldi``.

    An int ``keep`` replaces k; with fewer than k parameters all are kept.
    """

    k: int = 50
    steps: int | None = None
    seed: int = 0

    def prepare(self, risk: Risk, curvature: str, damping: float, keep: Keep, store: Store | None = None) -> Inverse:
        """Return the inverse, with its eigenvectors computed; the vectors of the iteration are stored as it goes."""
        if keep is not None and not isinstance(keep, int):
            raise ValueError(
                f"keep={keep!r} needs the whole spectrum, which arnoldi does not look for; pass a count, or "
                "solver='dense'."
            )
        product = OPERATORS[curvature](risk)
        kept = min(self.k, risk.p) if keep is None else keep
        damped = lambda v: product(v) + damping * v  # noqa: E731
        return dominant_eigenpairs(damped, risk.theta, kept, steps=self.steps, seed=self.seed, saved=store).solve


Solver = Dense | CG | Lissa | Neumann | LowRankSolver | Arnoldi
SOLVERS: dict[str, type] = {
    "dense": Dense,
    "cg": CG,
    "lissa": Lissa,
    "neumann": Neumann,
    "low_rank": LowRankSolver,
    "arnoldi": Arnoldi,
}
STORED = (Dense, LowRankSolver, Arnoldi)  # solvers whose fit can be kept in a store


def _from_store(store: Store | None, name: str, make: Callable[[], Tensor], risk: Risk) -> Callable[[], Tensor]:
    """Return ``make``, or a function that reads the tensor of that name from the store once it is there."""
    if store is None:
        return make
    return lambda: store.cached(name, lambda: {name: make()}, risk.theta.device)[name]


def _accumulated_gram(risk: Risk, factor: Callable[[Risk], Float[Tensor, "r p"]]) -> Float[Tensor, "p p"]:
    """Return A^T A in float64, its factor A computed for some examples at a time."""
    total = torch.zeros(risk.p, risk.p, dtype=torch.float64, device=risk.theta.device)
    step = max(1, ENTRIES // (risk.p * risk.n_outputs))
    for part in torch.arange(risk.n).split(step):
        rows = factor(risk.subset(part)).double()  # 1/n is 1 over the number of the subset
        total += rows.T @ rows * (len(part) / risk.n)
    return total


def _refuse_keep(keep: Keep, who: str) -> None:
    if keep is not None:
        raise ValueError(f"keep={keep!r} needs eigenvalues, which {who} does not look for; use solver='dense'.")


def _batches(risk: Risk, operator: Callable[[Risk], Operator], size: int, seed: int) -> Iterator[Operator]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield operator(risk.subset(torch.randint(risk.n, (size,), generator=generator)))

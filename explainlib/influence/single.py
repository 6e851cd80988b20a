"""Influence of single examples on parameters and test losses.

    d theta / d eps_j = -H^+ grad l_j,        d l_t / d eps_j = -grad l_t^T H^+ grad l_j.

In place of the test loss l_t any ``measure`` of the test example: an output, the log-odds of its label, a callable.
eps_j multiplies l_j, not l_j/n: removing example j is eps_j = -1/n. So to predict removal multiply by -1/n, and for
a reweighted risk by -w_j/n: its weights are in H, and influence is per unit of weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_indices, require_nonnegative
from explainlib.datasets import Examples
from explainlib.influence.measures import measure_gradients, require_measure
from explainlib.influence.products import training_gradients, training_products
from explainlib.influence.stored import influence_store, stored_products
from explainlib.layerwise import per_example
from explainlib.losses import Loss, LossFunction
from explainlib.memory import alternatives
from explainlib.risk import Risk, require_minimum
from explainlib.solvers.configured import LowRankSolver, Solver
from explainlib.solvers.dense import Keep
from explainlib.solvers.grams import GramInverse
from explainlib.solvers.inverse import OFFERS, Curvature, curvature_name, inverse_curvature

NEED_A_MINIMUM = (
    "hessian",
)  # damped Gauss-Newton is defined at any parameters: the proximal response (Bae et al. 2022)


@alternatives("pass solver='cg' (no p x p matrix), fewer indices, or a Risk(..., parameters='last')")
@compute.entry
def parameter_influence(
    risk: Risk,
    indices: Sequence[int] | Int[Tensor, " k"] | None = None,
    *,
    curvature: Curvature = "hessian",
    solver: str | Solver = "dense",
    damping: float = 0.0,
    keep: Keep = None,
    strict: bool = False,
    on_failure: str = "raise",
) -> Float[Tensor, "k p"]:
    r"""Return d theta / d eps_j = -H^+ grad l_j for each chosen training example.

    Args:
        risk: at a minimum; otherwise a warning with |gradient|, or with ``strict`` an error.
        indices: distinct training examples; None takes all n.
        curvature: "hessian", "gauss_newton", "empirical_fisher", "identity" (plain gradients), "ekfac", an
            ``xl.curvature.Ekfac`` fitted before, or a fitted inverse (``xl.solvers.inverse_curvature(risk, ...)``),
            which has its own solver, damping and keep.
        solver: "dense", "cg", "lissa", "neumann", "low_rank", "arnoldi", or a configured object such as
            ``xl.solvers.Lissa(batch_size=50)``; EK-FAC needs none.
        damping: absolute, >= 0, added to the curvature's diagonal.
        keep: None inverts and refuses a singular matrix; an int keeps that many largest eigenvalues; a float such as
            1e-9 is a relative threshold (the pseudo-inverse); "positive".
        strict: raise where the risk is not at a minimum.
        on_failure: "raise" or "warn" when the solve does not converge.

    Returns:
        [k, p], in the parameters' unit per unit of weight. Positive: more weight on example j raises that parameter.
        Removal moves theta by -1/n times it.

    Raises:
        SolverError: singular curvature, or a solve that did not converge.
        ValueError: an unknown option, an index outside the training set.

    Source: Koh & Liang 2017, eq. (1); Epifano et al. 2023, eq. (1).

    Example: theta is the mean of y, H = 2, grad l_1 = -2 (3 - 2): more weight on y = 3 raises the mean by 1.

        >>> import torch
        >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
        >>> train = Examples(torch.ones(2, 1).double(), torch.tensor([[1.0], [3.0]]).double())
        >>> risk = Risk(model, train, loss="squared_error").at(torch.tensor([2.0]).double())
        >>> round(parameter_influence(risk, [1]).item(), 9)
        1.0
    """
    chosen = None if indices is None else require_indices(indices, risk.n)
    if curvature_name(curvature) in NEED_A_MINIMUM:
        require_minimum(risk, strict=strict, user="influence")
    rows = risk.loss_gradients(None if chosen is None else risk.train[chosen])
    inverse = inverse_curvature(risk, curvature=curvature, solver=solver, damping=damping, keep=keep)
    return -inverse(rows).require_converged(on_failure).value


@alternatives(
    "pass solver='cg' (no p x p matrix), curvature='ekfac' (no gradients of the training set either), or a "
    "Risk(..., parameters='last')"
)
@compute.entry
def loss_influence(
    risk: Risk,
    test: Examples,
    *,
    measure: str | LossFunction = "loss",
    output: int | None = None,
    curvature: Curvature = "hessian",
    solver: str | Solver = "dense",
    damping: float = 0.0,
    keep: Keep = None,
    strict: bool = False,
    on_failure: str = "raise",
    memory: int | float | None = None,
    store: str | Path | None = None,
) -> Float[Tensor, "t n"]:
    r"""Return d l_t / d eps_j = -grad l_t^T H^+ grad l_j for every test and training example.

    The solve is done on the t test gradients, then one product gives all n columns, layer by layer: the n training
    gradients are not materialised. "low_rank" with fewer rows than
    parameters and everything kept materialises no gradient: see ``GramInverse``.

    Args:
        risk: as in ``parameter_influence``, like the other options.
        test: t examples of the training set's shape, dtype and classes.
        measure: of a test example: "loss" (l_t); "output", the output ``output``; "margin", its label's log-odds f_y -
            log sum_{c != y} exp f_c (of one output with labels 0 and 1: f or -f); or a callable (outputs, y) -> [t].
        output: for "output": which one; None is that of each test's label, or the only one.
        curvature: see ``parameter_influence``.
        solver: see ``parameter_influence``.
        damping: see ``parameter_influence``.
        keep: see ``parameter_influence``.
        strict: see ``parameter_influence``.
        on_failure: see ``parameter_influence``.
        memory: bytes to work with in the products with the gradients, beside the t test gradients and the result; None
            is a quarter of what is free. A curvature fitted before (``xl.curvature.Ekfac(risk, memory=...)``) has its
            own.
        store: a folder for the solves and for the scores, some training examples at a time; an interrupted call goes on
            where it was, another computation is refused.

    Returns:
        [t, n], in units of the measure per unit of weight. Positive: more of example j raises the measure of test t;
        for "loss" it is harmful, for "margin" helpful. Multiply by -1/n for the change on removal (weighting "plain").

    Raises:
        SolverError: singular curvature, or a solve that did not converge.
        ValueError, TypeError: an unknown option, or a test set that does not fit the risk.

    Source: Koh & Liang 2017, eq. (2); Epifano et al. 2023, eq. (2), which that paper calls the change on removal; it is
    -n times the change. Tsai et al. 2023, eq. (16), for "output".
    """
    risk.require_examples(test, "test")
    measured = require_measure(measure, output, loss=risk.loss, parameters=risk.parameters, theta=risk.theta, test=test)
    if curvature_name(curvature) in NEED_A_MINIMUM:
        require_minimum(risk, strict=strict, user="influence")
    if store is None and _through_grams(risk, curvature, solver, damping, keep):
        return -_between_grams(risk, test, measured, curvature, damping, on_failure)

    def solve() -> Float[Tensor, "t p"]:
        inverse = inverse_curvature(risk, curvature=curvature, solver=solver, damping=damping, keep=keep)
        by_layers = curvature_name(curvature) == "ekfac"  # without materialised training gradients
        if by_layers or measured is not risk.loss:
            rows = per_example(measure_gradients(risk.parameters, risk.theta, test, measured, memory=memory))
        else:
            rows = risk.loss_gradients(test)
        return inverse(rows).require_converged(on_failure).value

    if store is None:
        return -training_products(risk, solve(), memory=memory)
    options = {"curvature": curvature, "solver": solver, "damping": damping, "keep": keep}
    return -stored_products(influence_store(store, risk, test, measured, options), risk, solve, memory=memory)


def _through_grams(risk: Risk, curvature: Curvature, solver: str | Solver, damping: float, keep: Keep) -> bool:
    """Return whether Gram matrices suffice: a low-rank curvature of fewer rows than parameters, inverted whole."""
    rows = {"empirical_fisher": risk.n, "gauss_newton": risk.n * risk.n_outputs}
    if not isinstance(curvature, str) or curvature not in rows or keep is not None:
        return False
    if not (solver == "low_rank" or isinstance(solver, LowRankSolver)):
        return False
    shift = require_nonnegative("damping", damping) + (risk.l2 if curvature == "gauss_newton" else 0.0)
    return rows[curvature] < risk.p and shift > 0


def _between_grams(
    risk: Risk, test: Examples, measured: Loss, curvature: Curvature, damping: float, on_failure: str
) -> Float[Tensor, "t n"]:
    """Return grad m_t^T C^-1 grad l_j through Gram matrices."""
    inverse = GramInverse(risk, curvature=curvature, damping=damping, offers=OFFERS)
    rows = measure_gradients(risk.parameters, risk.theta, test, measured)
    if curvature == "empirical_fisher" and (risk.weights_or_ones() > 0).all():  # its rows are sqrt(w_j/n) grad l_j
        return inverse.with_rows(rows, on_failure=on_failure) / (risk.weights_or_ones() / risk.n).sqrt()
    return inverse.between(rows, training_gradients(risk), on_failure=on_failure)

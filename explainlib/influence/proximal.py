"""The proximal Bregman response, whose derivative damped Gauss-Newton influence is.

    F(theta, eps) = 1/n sum_i w_i D_i(theta) + d/2 |theta - theta_s|^2 + eps l_j(theta),        d = l2 + damping,
    D_i = l(f_i, y_i) - l(s_i, y_i) - <l'(s_i, y_i), f_i - s_i>,    f_i = f(theta, x_i), s_i = f(theta_s, x_i).

theta_s are any parameters, minimised or not. D_i is the Bregman divergence of the loss in the outputs (cross-entropy:
KL(softmax s || softmax f); squared error: |f - s|^2), zero with zero gradient at theta_s. So theta_s minimises F(., 0),
with Hessian G + damping I there (G with its ridge), and  d theta / d eps = -(G + damping I)^-1 grad l_j  at eps = 0.

Source: Bae et al. 2022, "If influence functions are the answer, then what is the question?", section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_indices, require_nonnegative, require_positive, warn_caller
from explainlib.curvature.gauss_newton import gauss_newton
from explainlib.risk import Risk
from explainlib.solvers.cg import Operator
from explainlib.training.minima import STATUSES, MinimiseError, MinimiseWarning
from explainlib.training.minimise import newton_batch
from explainlib.training.weighted import Rows, WeightedRisks

FACTORED = 4000  # parameters up to which G is materialised as a preconditioner


class ProximalBregman(WeightedRisks):
    """g responses F, one for each row of weights; a weight of 1 + n eps (0: removed) is eps on that example.

    Args:
        risk: at theta_s; its own weights multiply the divergences.
        weights: [g, n]; their difference from the risk's own, over n, is eps.
        damping: >= 0, added to the ridge.
    """

    def __init__(self, risk: Risk, weights: Float[Tensor, "g n"], damping: float) -> None:
        super().__init__(risk, weights)
        self.damping, self.own, self.centre = damping, risk.weights_or_ones(), risk.theta
        outputs = risk.outputs()
        self.reference = outputs, risk.loss.value(outputs, risk.train.y), risk.loss.gradient(outputs, risk.train.y)

    def __getitem__(self, rows: Tensor) -> ProximalBregman:
        """Return the chosen rows."""
        return type(self)(self.risk, self.weights[rows], self.damping)

    def _one(self, theta: Tensor, weights: Tensor) -> Tensor:
        start, total = 0, 0.0
        for outputs, y, _ in self.risk.parts():
            part = slice(start, start + len(y))
            f, (s, loss, slope) = outputs(theta), (each[part] for each in self.reference)
            losses = self.risk.loss.value(f, y)
            divergence = losses - loss - (slope * (f - s)).sum(-1)
            total = total + (self.own[part] * divergence + (weights[part] - self.own[part]) * losses).sum()
            start += len(y)
        proximity = (self.risk.l2 + self.damping) / 2 * (theta - self.centre).square().sum()
        return total / self.risk.n + proximity


class ProximalRetraining(ProximalBregman):
    """g reweighted risks with proximity to theta_s: R_g(theta) + damping/2 |theta - theta_s|^2, the losses as they are.

    It differs from the response by the gradient of the risk at theta_s alone, which is zero at a minimum.
    """

    def _one(self, theta: Tensor, weights: Tensor) -> Tensor:
        plain = super(ProximalBregman, self)._one(theta, weights)
        return plain + self.damping / 2 * (theta - self.centre).square().sum()


@dataclass(frozen=True)
class Responses:
    """The solutions of g problems.

    Attributes:
        theta: [g, p].
        status: a key of ``explainlib.training.minima.STATUSES`` for each.
        gradient_norm: [g].
    """

    theta: Float[Tensor, "g p"]
    status: tuple[str, ...]
    gradient_norm: Float[Tensor, " g"]


@compute.entry
def responses(problems: ProximalBregman, *, tolerance: float = 1e-11, max_steps: int = 100) -> Responses:
    """Return the minima of all rows, from theta_s by truncated Newton with line search, one factor of G for all.

    Args:
        problems: ``ProximalBregman`` or ``ProximalRetraining``.
        tolerance: on each gradient's norm; in float32 never below 1e-5.
        max_steps: Newton steps.
    """
    risk = problems.risk
    tolerance = tolerance if risk.theta.dtype == torch.float64 else max(tolerance, 1e-5)
    solved = newton_batch(risk, problems, _factor(risk, problems.damping), tolerance, max_steps)
    status = tuple(list(STATUSES)[code] for code in solved["status"].tolist())
    return Responses(solved["theta"], status, solved["gradient_norm"])


def _factor(risk: Risk, damping: float) -> Operator | None:
    """Return r -> (G + damping I)^-1 r, None where G is too large or singular."""
    if risk.p > FACTORED:
        return None
    matrix = gauss_newton(risk)
    matrix.diagonal().add_(damping)
    triangle, failed = torch.linalg.cholesky_ex(matrix)
    return None if int(failed) else lambda rows: torch.cholesky_solve(rows.T, triangle).T


def proximal_response(
    risk: Risk,
    indices: Sequence[int] | Int[Tensor, " k"] | None = None,
    *,
    damping: float,
    eps: float | None = None,
    tolerance: float = 1e-11,
    on_failure: str = "raise",
) -> Rows:
    """Return theta(eps) = argmin F for each chosen training example, solved to the tolerance from theta_s = risk.theta.

    Args:
        risk: at any parameters; they need not be a minimum.
        indices: distinct training examples; None takes all n.
        damping: >= 0; damping plus ridge is the proximity to theta_s and has to be above zero.
        eps: the extra weight of l_j (not of l_j/n); None is -1/n, removal.
        tolerance: on the gradient's norm; in float32 never below 1e-5.
        on_failure: "raise" or "warn" where a problem is not solved.

    Returns:
        [k, p], parameters. Removal as influence predicts it is theta_s - 1/n (its derivative).

    Raises:
        ValueError: neither damping nor ridge, an index outside the training set.
        MinimiseError: a problem was not solved; a large negative eps may leave no minimum.

    Source: Bae et al. 2022, section 4; their eps multiplies l_j too.

    Example: least squares through the origin is its own proximal problem. With x = y = 1 twice, theta_s = 0 and
    damping 2: 2 theta + 2 theta + eps 2 (theta - 1) = 0, so theta = eps/(2 + eps).

        >>> from explainlib.datasets import Examples
        >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
        >>> risk = Risk(model, Examples(*[torch.ones(2, 1).double()] * 2), loss="squared_error")
        >>> risk = risk.at(torch.zeros(1).double())
        >>> round(proximal_response(risk, [0], damping=2.0, eps=0.5).item(), 9)
        0.2
    """
    require_choice("on_failure", on_failure, ("raise", "warn"))
    require_positive("tolerance", tolerance)
    if risk.l2 + require_nonnegative("damping", damping) == 0:
        raise ValueError("damping=0 without a ridge leaves no proximity to theta_s; pass a damping above zero.")
    chosen = require_indices(range(risk.n) if indices is None else indices, risk.n)
    weights = risk.weights_or_ones().repeat(len(chosen), 1)
    weights[torch.arange(len(chosen)), chosen] += risk.n * (-1 / risk.n if eps is None else eps)
    solved = responses(ProximalBregman(risk, weights, damping), tolerance=tolerance)
    failed = [k for k, status in enumerate(solved.status) if status != "converged"]
    if failed:
        first, size = solved.status[failed[0]], float(solved.gradient_norm[failed[0]])
        message = f"{len(failed)} of {len(chosen)} responses are not solved: {first}, |gradient| = {size:.1e}"
        precise = "" if risk.theta.dtype == torch.float64 else ", or use float64"
        message += f"; pass a larger damping, an eps nearer to 0, or a larger tolerance{precise}."
        if on_failure == "raise":
            raise MinimiseError(message, solved)
        warn_caller(message, MinimiseWarning)
    return solved.theta


def proximal_derivative(
    risk: Risk,
    indices: Sequence[int] | Int[Tensor, " k"] | None = None,
    *,
    damping: float,
    step: float = 1e-4,
) -> Rows:
    """Return d theta / d eps of the response at eps = 0, by central differences of solved problems.

    The oracle of every damped Gauss-Newton solver, at a minimum or not. Two steps and Richardson's
    combination leave an error of the order step^4.

    Args:
        risk: at any parameters, in float64.
        indices: distinct training examples; None takes all n.
        damping: as in ``proximal_response``.
        step: the larger of the two eps; it need not be small relative to 1/n.

    Returns:
        [k, p], to compare with ``parameter_influence(risk, indices, curvature="gauss_newton", damping=damping)``.

    Raises:
        TypeError: float32, in which rounding dominates the differences.
        ValueError, MinimiseError: as ``proximal_response``.
    """
    if risk.theta.dtype != torch.float64:
        raise TypeError(f"the risk is in {risk.theta.dtype}; differences need float64: pass model and data .double().")
    require_positive("step", step)
    slopes = []
    for h in (step, step / 2):
        plus, minus = (proximal_response(risk, indices, damping=damping, eps=eps, tolerance=1e-12) for eps in (h, -h))
        slopes.append((plus - minus) / (2 * h))
    return (4 * slopes[1] - slopes[0]) / 3

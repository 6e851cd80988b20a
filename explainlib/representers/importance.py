"""Global importances: the weight of each training example, independent of the test; one number an output.

target      alpha_i = - w_i dl(f(x_i), y_i)/df                         eq. (7), no 1/n; w_i = 1 unless reweighted
surrogate   alpha_i = - 1/(n l2) dL(fhat(x_i), f(x_i))/dfhat           eq. (6), fhat the kernel machine nearest to f
tracking    alpha_i = - sum_t lr_t/|B_t| dl(f_t(x_i), y_i)/df          eq. (10), summed during training

Eq. (9), tracked during kernel gradient descent, is in ``descent``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from explainlib import compute
from explainlib.checks import (
    require_choice,
    require_finite,
    require_nonnegative,
    require_positive,
    require_shape,
    require_tensor,
)
from explainlib.risk import Risk
from explainlib.solvers.solution import steps_between_checks
from explainlib.training import Trajectory

LOSSES = ("cross_entropy", "squared_error")
STEPS = 200
HALVINGS = 40
INNER_STEPS = 2000  # of conjugate gradients in a Newton step
INEXACT = 1e-2  # largest relative residual of a Newton step's linear system


@compute.entry
def target_importance(risk: Risk) -> Float[Tensor, "n C"]:
    """Return -w_i dl_i/df at the model's own outputs, in loss per output.

    A weight counts an example that many times, so that at a weighted minimum of the last layer the representer points
    sum to the output. ``loss_influence`` differs: it is per unit of additional weight.

    Source: Tsai et al. 2023, Definition 10, eq. (7), which has no weights.

    Example: the importance under squared error is twice the residual y - f.

        >>> from explainlib.datasets import Examples
        >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
        >>> train = Examples(torch.ones(1, 1).double(), torch.tensor([[3.0]]).double())
        >>> risk = Risk(model, train, loss="squared_error").at(torch.tensor([1.0]).double())
        >>> target_importance(risk).item()
        4.0
    """
    slope = -risk.loss.gradient(risk.outputs(), risk.train.y)
    return slope if risk.weights is None else risk.weights[:, None] * slope


def tracking_importance(trajectory: Trajectory) -> Float[Tensor, "n C"]:
    """Return the importances recorded by ``training.fit(..., record=True)``, in output per squared feature.

    For a linear model trained without l2, the sum over i of alpha_i K(x_i, x) is exactly f_T(x) - f_0(x), at any batch
    size, K the last-layer kernel.

    Raises:
        ValueError: a trajectory without a record.

    Source: Tsai et al. 2023, Definition 11 and eq. (10).
    """
    if trajectory.importance is None:
        raise ValueError(
            "this trajectory recorded no derivatives; train with xl.training.fit(..., optimizer='sgd', record=True). "
            "Somebody else's checkpoints do not hold them."
        )
    return trajectory.importance


@compute.entry
def null_weights(gram: Float[Tensor, "n n"], *, tolerance: float | None = None) -> Float[Tensor, "n r"]:
    """Return an orthonormal basis of null(K): weights v with sum_i v_i K(x_i, x) = 0 at every x, not only in training.

    Importances alpha and alpha + v give one function and different scores; ``surrogate_importance`` returns those of
    eq. (6). The proof is the Cauchy-Schwarz inequality, f_v(x)^2 <= (v^T K v) K(x, x), so a v with eigenvalue e > 0 up
    to the tolerance gives |f_v(x)| <= (e K(x, x))^1/2.

    Args:
        gram: K over the training examples, symmetric positive semi-definite within rounding.
        tolerance: on eigenvalues, relative to the largest; None is n times the rounding unit.

    Returns:
        [n, r], r = n - rank K, possibly 0.

    Raises:
        ValueError: a gram that is no kernel.

    Source: Tsai et al. 2023, Proposition 9.

    Example: of two equal examples, one can have what the other loses.

        >>> weights = null_weights(torch.ones(2, 2).double())
        >>> (weights / weights[0]).flatten().round(decimals=9).tolist()
        [1.0, -1.0]
    """
    gram = require_gram(gram)
    relative = len(gram) * torch.finfo(gram.dtype).eps if tolerance is None else float(tolerance)
    values, vectors = torch.linalg.eigh(gram)
    return vectors[:, values <= require_nonnegative("tolerance", relative) * values[-1].clamp(min=0)]


@compute.entry
def surrogate_importance(
    gram: Float[Tensor, "n n"], targets: Float[Tensor, "n C"], *, loss: str, l2: float, tolerance: float = 1e-9
) -> Float[Tensor, "n C"]:
    """Return alpha of the kernel machine nearest to the model, -1/(n l2) times the loss's derivative at its outputs.

        fhat = K alpha,    alpha = argmin 1/n sum_i L(fhat_i, f_i) + l2/2 tr(alpha^T K alpha)

    Args:
        gram: K over the training examples, symmetric positive semi-definite within rounding.
        targets: f, the model's outputs there; for "cross_entropy" L is against softmax(f), and of one output, which has
            no softmax, the logistic loss against sigmoid(f).
        loss: "cross_entropy" or "squared_error".
        l2: above 0, otherwise alpha is not defined.
        tolerance: on the residual of eq. (6), relative to alpha.

    Returns:
        alpha [n, C]. Squared error is solved in closed form, cross-entropy by truncated Newton steps (conjugate
        gradients inside, products with K alone) with line search.

    Raises:
        ValueError: a gram that is not symmetric or clearly not positive semi-definite, l2 <= 0, shapes.

    Source: Tsai et al. 2023, eqs (4) to (6), Proposition 8.

    Example: one point, squared error: (K + l2/2) alpha = f.

        >>> k, f = torch.tensor([[2.0]]).double(), torch.tensor([[3.0]]).double()
        >>> surrogate_importance(k, f, loss="squared_error", l2=2.0).item()
        1.0
    """
    require_choice("loss", loss, LOSSES)
    require_positive("l2", float(l2))
    gram, targets = require_gram(gram), require_finite("targets", require_tensor("targets", targets))
    n = len(gram)
    require_shape("targets", targets, [n, None], meaning="(the model's outputs on the training examples)")
    if loss == "squared_error":  # alpha = -2/(n l2) (K alpha - f)
        return torch.linalg.solve(gram + n * l2 / 2 * torch.eye(n).to(gram), targets)
    return _cross_entropy_surrogate(gram, targets, l2, tolerance)


def probabilities(f: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
    """Return the softmax of logits f, of one output the sigmoid: its Hessian is diag(s) - s s^T, or s (1 - s)."""
    return f.softmax(-1) if f.shape[1] > 1 else f.sigmoid()


def _cross_entropies(f: Float[Tensor, "n C"], wanted: Float[Tensor, "n C"]) -> Float[Tensor, "n C"]:
    """Return each output's part of the cross-entropy against probabilities, with derivative s - targets."""
    if f.shape[1] > 1:
        return -wanted * f.log_softmax(-1)
    return -wanted * logsigmoid(f) - (1 - wanted) * logsigmoid(-f)


def mean_loss(f: Float[Tensor, "n C"], wanted: Float[Tensor, "n C"], loss: str) -> Float[Tensor, ""]:
    """Return the mean loss of outputs against targets.

    Args:
        f: the outputs.
        wanted: targets; for "cross_entropy" probabilities.
        loss: one of ``LOSSES``.
    """
    return (_cross_entropies(f, wanted) if loss == "cross_entropy" else (f - wanted).square()).sum() / len(f)


def _cross_entropy_surrogate(gram: Tensor, targets: Tensor, l2: float, tolerance: float) -> Float[Tensor, "n C"]:
    """Solve alpha = -(s(K alpha) - s(f))/(n l2), s the probabilities, by truncated Newton steps on the residual."""
    wanted = probabilities(targets)
    n = len(wanted)
    alpha = torch.zeros_like(wanted)

    def value(a: Tensor, f: Tensor) -> Tensor:
        return _cross_entropies(f, wanted).sum() / n + l2 / 2 * (a * f).sum()

    outputs = gram @ alpha
    for _ in range(STEPS):
        s = probabilities(outputs)
        residual = alpha + (s - wanted) / (n * l2)  # eq. (6)
        relative = float(residual.norm() / alpha.norm().clamp(min=1.0))
        if relative <= tolerance:
            return alpha
        step = _newton_step(gram, s, residual, n * l2, min(INEXACT, relative))
        moved = gram @ step
        now, slope = value(alpha, outputs), (moved * residual).sum() * l2
        t = 1.0
        for _ in range(HALVINGS):
            if value(alpha - t * step, outputs - t * moved) <= now - 1e-4 * t * slope + 1e-14 * now.abs():
                break
            t /= 2
        alpha = alpha - t * step
        outputs = gram @ alpha
    raise ValueError(
        f"the surrogate did not converge in {STEPS} Newton steps (residual {residual.norm():.1e}); raise l2, or pass "
        "gram and targets in float64."
    )


def _newton_step(
    gram: Tensor, s: Float[Tensor, "n C"], residual: Float[Tensor, "n C"], ridge: float, tolerance: float
) -> Float[Tensor, "n C"]:
    """Solve (I + S K/ridge) step = residual to |error of the equation| <= tolerance |residual|, S = diag(s) - s s^T.

    K (I + S K/ridge) is symmetric positive semi-definite, so these are conjugate gradients for it with the
    preconditioner K^-1, which ``solvers.cg`` would have to apply and which cancels here: one product with K a step, and
    nothing of size nC x nC. They do not see
    the null space of K, on which the matrix is the identity: what is left of the residual is added at the end, and the
    error of the equation is then S K left/ridge.
    """

    def curved(v: Tensor) -> Tensor:
        return (s * v - s * (s * v).sum(1, keepdim=True)) / ridge

    step, left, of_left = torch.zeros_like(residual), residual, gram @ residual
    direction, of_direction = left, of_left  # each with K times it
    energy, goal = (left * of_left).sum(), tolerance * residual.norm()
    every = steps_between_checks(residual)
    for number in range(INNER_STEPS):
        moved = direction + curved(of_direction)
        curvature = (of_direction * moved).sum()
        if number % every == 0 and not (curvature > 0 and curved(of_left).norm() > goal):
            break
        t = torch.where(curvature > 0, energy / curvature, 0.0)
        step, left = step + t * direction, left - t * moved
        of_left = gram @ left
        energy, before = (left * of_left).sum(), energy
        ratio = torch.where(before > 0, energy / before, 0.0)
        direction, of_direction = left + ratio * direction, of_left + ratio * of_direction
    return step + left


def require_gram(gram: Tensor) -> Float[Tensor, "n n"]:
    """Return the gram if it is symmetric and positive semi-definite within rounding."""
    require_finite("gram", require_tensor("gram", gram))
    require_shape("gram", gram, [len(gram), len(gram)], meaning="(training against training)")
    rounding = 1e3 * torch.finfo(gram.dtype).eps * gram.abs().max()
    if (gram - gram.T).abs().max() > rounding:
        raise ValueError("gram is not symmetric; pass kernel(model, train.x, train.x).")
    slack = len(gram) * rounding
    # a Cholesky factor costs less than the eigenvalues, which are asked where it does not exist
    shifted = gram + slack * torch.eye(len(gram)).to(gram)
    if int(torch.linalg.cholesky_ex(shifted).info) and (least := torch.linalg.eigvalsh(gram)[0]) < -slack:
        raise ValueError(
            f"gram has the eigenvalue {float(least):.1e}, so it is no kernel: a curvature with negative eigenvalues? "
            "make it by kernel(..., curvature='gauss_newton'), or with more damping there."
        )
    return (gram + gram.T) / 2

"""When the expansion in a group's weight can be trusted, in numbers and in words.

    theta(eps) = theta + eps theta1 + eps^2 theta2 + ...,     removal is eps = -1.

For a quadratic risk every further term is the one before times a fixed matrix:

    preserve:  f/(1-f) H_d^-1 (H - l2 I - H_U)        plain:  -f H_d^-1 H_U        H_d = H + damping I

so the series converges exactly when that matrix has spectral radius below 1. For other risks the third derivative
matters too, and |theta2| / |theta1| is an observed measure of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.curvature import hessian_product
from explainlib.influence.groups.removal import Removal
from explainlib.solvers.inverse import Inverse, Solver, inverse_curvature
from explainlib.training.weighted import WeightedRisks, weighted_risks

POWER_STEPS = 60
TRUSTED, DOUBTFUL = 0.25, 0.5
ROUNDING = 1e3  # in eps: a matrix that shrinks a vector below it counts as zero


@dataclass(frozen=True)
class Trust:
    """The diagnosis of the series of g groups.

    Attributes:
        fraction: f = |U|/n [g].
        ratio: the spectral radius above [g]; a quadratic risk's series converges below 1.
        second_over_first: |theta2| / |theta1| [g], nan where no second order was computed.
        words: one sentence per group.
    """

    fraction: Float[Tensor, " g"]
    ratio: Float[Tensor, " g"]
    second_over_first: Float[Tensor, " g"]
    words: tuple[str, ...]

    @property
    def trusted(self) -> tuple[bool, ...]:
        """Whether each sentence begins with "trusted"."""
        return tuple(sentence.startswith("trusted") for sentence in self.words)


@compute.entry
def series_trust(removal: Removal, *, solver: str | Solver = "dense", damping: float = 0.0) -> Trust:
    """Return how far each group's series can be trusted.

    Args:
        removal: from ``removal_effect`` with order 1 or 2; with 2 the sizes of the terms are compared too.
        solver: as in ``removal_effect``.
        damping: as in ``removal_effect``.

    Returns:
        Trust; the ratio by power iteration, all groups in one batch.

    Raises:
        ValueError: a Newton step, which is not a series.

    Source: Basu et al. 2020, the matrix of eq. (15). Deviations: the paper does not discuss convergence; damping only
    solves (slip 15).
    """
    if removal.theta1 is None:
        raise ValueError(f"a {removal.method} is not a term of a series; pass removal_effect(..., order=1 or 2).")
    risk = removal.risk
    group_weights = torch.zeros(len(removal.groups), risk.n, dtype=risk.theta.dtype, device=risk.theta.device)
    for row, group in zip(group_weights, removal.groups, strict=True):
        row[group.to(row.device)] = 1.0
    group_weights = group_weights * risk.weights_or_ones()
    fraction = risk.theta.new_tensor([len(group) / risk.n for group in removal.groups])
    ratio = _spectral_radius(
        weighted_risks(risk, group_weights),
        fraction,
        removal,
        inverse_curvature(risk, solver=solver, damping=damping, offers=("solver", "damping")),
        damping,
    )
    first = removal.theta1.norm(dim=1)
    second = torch.full_like(first, float("nan")) if removal.theta2 is None else removal.theta2.norm(dim=1)
    sizes = second / first.clamp(min=torch.finfo(first.dtype).tiny)
    words = tuple(_diagnosis(r, s) for r, s in zip(ratio.tolist(), sizes.tolist(), strict=True))
    return Trust(fraction, ratio, sizes, words)


def _spectral_radius(
    group: WeightedRisks, fraction: Tensor, removal: Removal, inverse: Inverse, damping: float
) -> Float[Tensor, " g"]:
    """Return the radius by power iteration; the operator is symmetric in the inner product of H + damping I.

    So the radius is a Rayleigh quotient, with an error that is the square of the vector's. The product with H is
    updated instead of computed: ``c`` is the right-hand side of the next solve.
    """
    risk, f = removal.risk, fraction[:, None]
    product = group.operator(risk.theta.expand(len(fraction), -1))
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(len(fraction), risk.p, generator=generator, dtype=torch.float64).to(risk.theta)
    hv = hessian_product(risk, v) + damping * v
    radius = torch.zeros_like(fraction)
    for _ in range(POWER_STEPS):
        c = product(v) - risk.l2 * v  # f H_U v
        if removal.weighting == "plain":
            image, h_image = inverse(c).require_converged().value, c
        else:
            c = (c + f * (risk.l2 + damping) * v) / (1 - f)
            image, h_image = f / (1 - f) * v - inverse(c).require_converged().value, f / (1 - f) * hv - c
        size = image.norm(dim=1, keepdim=True)
        vanished = size <= ROUNDING * torch.finfo(v.dtype).eps * v.norm(dim=1, keepdim=True)  # equal curvatures
        radius, previous = torch.where(vanished[:, 0], 0.0, ((hv * image).sum(1) / (hv * v).sum(1)).abs()), radius
        v, hv = (torch.where(vanished, old, new / size) for old, new in ((v, image), (hv, h_image)))
        if ((radius - previous).abs() <= 1e-3 * radius).all():
            break
    return radius


def _diagnosis(ratio: float, sizes: float) -> str:
    """Return the diagnosis of one group, by the larger of its two numbers.

    If terms shrink by a factor r, the sum after the second is r^2/(1-r) of the first: 8% at r = 1/4, 50% at r = 1/2.
    """
    seen = f"ratio {ratio:.2f}" + ("" if sizes != sizes else f", second term {sizes:.2f} of the first")
    worst = ratio if sizes != sizes else max(ratio, sizes)
    if not worst < 1:
        return f"not trusted ({seen}): terms do not shrink, so no number of them will do; take a Newton step or retrain"
    if worst > DOUBTFUL:
        return f"doubtful ({seen}): two terms may leave out as much as they find; take a Newton step or retrain"
    if worst > TRUSTED:
        return f"slow ({seen}): two terms may be off by tens of percent; take a Newton step to be sure"
    return f"trusted ({seen}): two terms leave out less than about a tenth"

"""The whole spectrum of the Hessian as a density, matrix-free: stochastic Lanczos quadrature.

For a random unit vector v, sum_i (v . u_i)^2 delta(lambda - lambda_i) has the density of the eigenvalues as its
expectation. k Lanczos steps from v give a k x k tridiagonal matrix T; its eigenvalues are the nodes, and the squared
first entries of its eigenvectors the weights, of the Gauss quadrature of that measure: exact for polynomials of degree
below 2k.

Source: Golub and Meurant 1994; Ghorbani et al. 2019 for networks; Epifano et al., section 2.3, use PyHessian's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_count, require_finite, require_positive
from explainlib.curvature.hessian import hessian_operator
from explainlib.memory import alternatives
from explainlib.risk import Risk

BROKEN_DOWN = 1e-10  # a residual below this share of the largest entry of T: the Krylov space is invariant


@dataclass(frozen=True)
class SpectralDensity:
    """Nodes and weights of r quadratures of the eigenvalues' density.

    Attributes:
        nodes: [r, k], in loss per squared parameter.
        weights: [r, k], >= 0, each row with the sum 1.
        p: eigenvalues in all.
    """

    nodes: Float[Tensor, "r k"]
    weights: Float[Tensor, "r k"]
    p: int

    def share_below(self, threshold: int | float) -> Float[Tensor, " r"]:
        """Return what each probe says of the share of eigenvalues below a threshold, [r]; their mean is the estimate.

        Args:
            threshold: not at an eigenvalue: of 0 itself, rounding decides on which side it falls.
        """
        return (self.weights * (self.nodes < threshold)).sum(1)

    def moment(self, power: int) -> Float[Tensor, " r"]:
        """Return what each probe says of the mean of lambda^power, [r]: v^T H^power v of its unit vector v.

        Args:
            power: below 2k exact up to rounding.
        """
        return (self.weights * self.nodes**power).sum(1)

    def density(self, grid: Float[Tensor, " g"], *, width: int | float) -> Float[Tensor, " g"]:
        """Return the density at the points of a grid, each node smeared to a Gaussian; its integral is 1.

        Args:
            grid: eigenvalues.
            width: standard deviation of the Gaussians, above zero; above the distance of the grid's points.
        """
        require_positive("width", width)
        grid = require_finite("grid", grid).to(self.nodes)
        z = (grid - self.nodes[..., None]) / width
        heights = torch.exp(-z.square() / 2) / (width * (2 * torch.pi) ** 0.5)
        return (self.weights[..., None] * heights).sum(1).mean(0)


@alternatives("take fewer steps or probes, or a Risk(..., parameters='last')")
@compute.entry
def spectral_density(risk: Risk, *, steps: int = 80, probes: int = 4, seed: int = 0) -> SpectralDensity:
    """Return the density of the Hessian's eigenvalues, ridge included, from ``steps`` products with ``probes`` vectors.

    Args:
        risk: at any parameters.
        steps: of Lanczos; more than p are p. The extreme eigenvalues come out first, and clusters share a node.
        probes: random vectors, in one batch; the spread of ``share_below`` over them is its error.
        seed: of the vectors.

    Raises:
        ValueError: fewer than one step or probe.

    Cost: steps x probes Hessian products, and steps x probes x p numbers in memory (every new vector is made orthogonal
    to all before it, twice).
    """
    steps = min(require_count("steps", steps), risk.p)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(require_count("probes", probes), risk.p, generator=generator, dtype=torch.float64)
    nodes, weights = quadrature(hessian_operator(risk), start.to(risk.theta), steps)
    return SpectralDensity(nodes, weights, risk.p)


def quadrature(
    operator: Callable[[Float[Tensor, "r p"]], Float[Tensor, "r p"]], start: Float[Tensor, "r p"], steps: int
) -> tuple[Float[Tensor, "r k"], Float[Tensor, "r k"]]:
    """Return nodes and weights of the Gauss quadratures from each starting vector.

    Args:
        operator: v -> A v on rows, A symmetric.
        start: r vectors; only their directions matter.
        steps: k, at most p.
    """
    v = start / start.norm(dim=1, keepdim=True)
    basis, diagonal, off = [v], [], []
    for _ in range(steps):
        w = operator(basis[-1])
        diagonal.append((w * basis[-1]).sum(1))
        stacked = torch.stack(basis, 1)  # [r, j, p]
        for _ in range(2):
            w = w - (stacked * (stacked @ w[..., None])).sum(1)
        scale = torch.stack(diagonal).abs().amax(0)
        length = w.norm(dim=1)
        length = torch.where(length > BROKEN_DOWN * scale, length, torch.zeros_like(length))
        off.append(length)
        basis.append(torch.where(length > 0, 1 / length, torch.zeros_like(length))[:, None] * w)
    t = torch.diag_embed(torch.stack(diagonal, 1))
    if steps > 1:
        beside = torch.stack(off[:-1], 1)
        t = t + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
    nodes, vectors = torch.linalg.eigh(t.double())
    return nodes.to(start), vectors[:, 0].square().to(start)

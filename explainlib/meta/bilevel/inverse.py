"""The inverse of every task's inner Hessian, factored once for a batch of tasks.

    H_in = sum over training b_z Phi_z^T S_z Phi_z + strength I,     S_z = B_z B_z^T,   Phi_z = I (x) phi_z^T

for a linear head: S_z = diag(s) - s s^T for cross-entropy, 2 I for squared error. With fewer outputs (s C) than
parameters the small matrix is factored (Woodbury):

    H_in^-1 = 1/strength [ I - Phi^T B (strength I + B^T Phi Phi^T B)^-1 B^T Phi ].

For any other network the dense Hessian is factored.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.losses import SQUARED_ERROR, Loss
from explainlib.params import LinearHead
from explainlib.solvers.remedies import Remedies
from explainlib.solvers.solution import Solution, SolverError

Rows = Float[Tensor, "m k p"]
REMEDIES = Remedies(shift="make the Bilevel's strength larger")


@runtime_checkable
class InnerInverse(Protocol):
    """H_in^-1 of m tasks, exact or approximate."""

    def solve(self, rows: Rows) -> Rows:
        """Return H_in^-1 applied to k rows of every task."""


class DenseInverse:
    """H_in [m, p, p] by its Cholesky factors.

    Raises:
        SolverError: not positive definite (theta is not a minimum).
    """

    def __init__(self, matrices: Float[Tensor, "m p p"]) -> None:
        self._triangles, failed = torch.linalg.cholesky_ex(matrices)
        if failed.any() or not torch.isfinite(self._triangles).all():
            k = int(failed.ne(0).nonzero()[0]) if failed.any() else 0
            status = "not_positive_definite" if failed.any() else "nonfinite"
            zeros = matrices.new_zeros(1, matrices.shape[1])
            detail = f"the inner Hessian of task {k} of this batch"
            residual = matrices.new_full((1,), float("inf"))
            solution = Solution(zeros, status, 0, residual, detail, remedies=REMEDIES)
            raise SolverError(solution.sentence, solution)

    def solve(self, rows: Rows) -> Rows:
        """Return H_in^-1 rows."""
        return torch.cholesky_solve(rows.mT, self._triangles).mT


class HeadInverse:
    """H_in^-1 for linear heads with fewer outputs than parameters, by the Woodbury identity.

    Args:
        head: the layout of theta.
        phi: features of the training examples [m, s, d].
        roots: B_z, weights included [m, s, C, C].
        strength: > 0.
    """

    def __init__(
        self, head: LinearHead, phi: Float[Tensor, "m s d"], roots: Float[Tensor, "m s C C"], strength: float
    ) -> None:
        self.head, self.phi, self.roots, self.strength = head, phi, roots, strength
        m, s, c, _ = roots.shape
        stacked_roots = roots.permute(0, 1, 3, 2).reshape(m, s * c, c)  # row (i, k) is column k of B_i
        grams = (phi @ phi.mT)[:, :, None, :, None].expand(m, s, c, s, c).reshape(m, s * c, s * c)
        small = (stacked_roots @ stacked_roots.mT).mul_(grams)
        small.diagonal(dim1=1, dim2=2).add_(strength)
        self._triangles = torch.linalg.cholesky(small)

    def solve(self, rows: Rows) -> Rows:
        """Return H_in^-1 rows."""
        matrix = self.head.matrix(rows)  # [m, k, C, d]
        coordinates = torch.einsum("mkcd,msd->mksc", matrix, self.phi)
        coordinates = torch.einsum("mksc,msce->mkse", coordinates, self.roots).flatten(2)
        coordinates = torch.cholesky_solve(coordinates.mT, self._triangles).mT.unflatten(2, self.roots.shape[1:3])
        coordinates = torch.einsum("mkse,msce->mksc", coordinates, self.roots)
        correction = torch.einsum("mksc,msd->mkcd", coordinates, self.phi)
        return (rows - self.head.flat(correction)) / self.strength

    def feature_products(self, x: Float[Tensor, "m n d"]) -> Float[Tensor, "m n C C d"]:
        """Return strength Phi_x H_in^-1, one row for each example of x and each output."""
        m, s, c, _ = self.roots.shape
        small = torch.cholesky_inverse(self._triangles).view(m, s, c, s, c)
        middle = torch.einsum("miak,mikjl->miajl", self.roots, small)
        middle = torch.einsum("miajl,mjbl->miabj", middle, self.roots).reshape(m, s * c * c, s)
        products = -(x @ self.phi.mT) @ (middle @ self.phi).view(m, s, -1)
        products = products.view(m, x.shape[1], c, c, -1)
        products.diagonal(dim1=2, dim2=3).add_(x[..., None])
        return products


def head_inverse(
    head: LinearHead,
    loss: Loss,
    phi: Float[Tensor, "m s d"],
    outputs: Float[Tensor, "m s C"],
    weights: Float[Tensor, "m s"],
    strength: float,
) -> HeadInverse | DenseInverse:
    """Return the inverse for linear heads, by the smaller of the two matrices.

    Args:
        head: the layout of theta.
        loss: cross-entropy or squared error.
        phi: features of the training examples [m, s, d].
        outputs: their logits [m, s, C].
        weights: of the training examples [m, s].
        strength: > 0.
    """
    c, d = outputs.shape[-1], phi.shape[-1]
    roots, s = _square_curvatures(outputs) if loss is SQUARED_ERROR else _softmax_curvatures(outputs)
    if phi.shape[1] < d:
        return HeadInverse(head, phi, weights.sqrt()[..., None, None] * roots, strength)
    matrices = quadratic_forms(phi, weights[..., None, None] * s)
    positions = matrix_positions(head, phi.new_zeros(c, d))
    matrices = matrices[:, positions[:, None], positions]
    matrices.diagonal(dim1=1, dim2=2).add_(strength)
    return DenseInverse(matrices)


def _softmax_curvatures(outputs: Float[Tensor, "m s C"]) -> tuple[Tensor, Tensor]:
    """Return (B_z, S_z = B_z B_z^T) of cross-entropy."""
    probability = outputs.softmax(-1)
    root = probability.sqrt()
    roots = torch.diag_embed(root) - probability[..., :, None] * root[..., None, :]
    return roots, torch.diag_embed(probability) - probability[..., :, None] * probability[..., None, :]


def _square_curvatures(outputs: Float[Tensor, "m s C"]) -> tuple[Tensor, Tensor]:
    """Return (B_z, S_z = B_z B_z^T) of squared error, which is without 1/2."""
    identity = torch.eye(outputs.shape[-1], dtype=outputs.dtype, device=outputs.device)
    identity = identity.expand(*outputs.shape[:2], -1, -1)
    return 2**0.5 * identity, 2 * identity


def matrix_positions(head: LinearHead, like: Float[Tensor, "C d"]) -> Int[Tensor, " p"]:
    """Return the position of each entry of a flat theta in its matrix [C, d], row-major."""
    return head.flat(torch.arange(like.numel(), dtype=like.dtype, device=like.device).view_as(like)).long()


def quadratic_forms(phi: Float[Tensor, "m s d"], small: Float[Tensor, "m s C C"]) -> Float[Tensor, "m Cd Cd"]:
    """Return sum_z Phi_z^T small_z Phi_z for every task, theta laid out as a matrix [C, d].

    Args:
        phi: features [m, s, d].
        small: symmetric [m, s, C, C].
    """
    m, s, d = phi.shape
    c = small.shape[-1]
    scaled = (small[..., None] * phi[:, :, None, None, :]).reshape(m, s, c * c * d)
    return (scaled.mT @ phi).view(m, c, c, d, d).permute(0, 1, 3, 2, 4).reshape(m, c * d, c * d)

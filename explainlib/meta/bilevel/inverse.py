"""The inverse of every task's inner Hessian, factored once for a batch of tasks: the one door to H_in^-1.

    H_in = sum over training b_z Phi_z^T S_z Phi_z + strength I,     S_z = B_z B_z^T,   Phi_z = I (x) phi_z^T

for a softmax head. With fewer outputs (s C) than parameters the small matrix is factored (Woodbury):

    H_in^-1 = 1/strength [ I - Phi^T B (strength I + B^T Phi Phi^T B)^-1 B^T Phi ].

Any other network gives its dense Hessian.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.params import LinearHead
from explainlib.solvers.remedies import Remedies
from explainlib.solvers.solution import Solution, SolverError

Rows = Float[Tensor, "m k p"]


@runtime_checkable
class InnerInverse(Protocol):
    """What stands for H_in^-1 of m tasks; an approximation needs this one method to take its place."""

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
            nothing = matrices.new_zeros(1, matrices.shape[1])
            detail = f"the inner Hessian of task {k} of this batch"
            lost, remedies = matrices.new_full((1,), float("inf")), Remedies(shift="make the Bilevel's strength larger")
            raise_for = Solution(nothing, status, 0, lost, detail, remedies=remedies)
            raise SolverError(raise_for.sentence, raise_for)

    def solve(self, rows: Rows) -> Rows:
        """Return H_in^-1 rows."""
        return torch.cholesky_solve(rows.mT, self._triangles).mT


class HeadInverse:
    """The same for softmax heads with fewer outputs than parameters, through the small matrix.

    Args:
        head: lays theta out.
        phi: what the head sees of the training examples [m, s, d].
        roots: B_z, weights included [m, s, C, C].
        strength: > 0.
    """

    def __init__(
        self, head: LinearHead, phi: Float[Tensor, "m s d"], roots: Float[Tensor, "m s C C"], strength: float
    ) -> None:
        self.head, self.phi, self.roots, self.strength = head, phi, roots, strength
        m, s, c, _ = roots.shape
        tall = roots.permute(0, 1, 3, 2).reshape(m, s * c, c)  # row (i, k) is column k of B_i
        grams = (phi @ phi.mT)[:, :, None, :, None].expand(m, s, c, s, c).reshape(m, s * c, s * c)
        small = (tall @ tall.mT).mul_(grams)
        small.diagonal(dim1=1, dim2=2).add_(strength)
        self._triangles = torch.linalg.cholesky(small)

    def solve(self, rows: Rows) -> Rows:
        """Return H_in^-1 rows."""
        matrix = self.head.matrix(rows)  # [m, k, C, d]
        inside = torch.einsum("mkcd,msd->mksc", matrix, self.phi)
        inside = torch.einsum("mksc,msce->mkse", inside, self.roots).flatten(2)
        inside = torch.cholesky_solve(inside.mT, self._triangles).mT.unflatten(2, self.roots.shape[1:3])
        inside = torch.einsum("mkse,msce->mksc", inside, self.roots)
        back = torch.einsum("mksc,msd->mkcd", inside, self.phi)
        return (rows - self.head.flat(back)) / self.strength

    def spread(self, x: Float[Tensor, "m n d"]) -> Float[Tensor, "m n C C d"]:
        """Return strength Phi_x H_in^-1, one row for each example of x and each output."""
        m, s, c, _ = self.roots.shape
        small = torch.cholesky_inverse(self._triangles).view(m, s, c, s, c)
        middle = torch.einsum("miak,mikjl->miajl", self.roots, small)
        middle = torch.einsum("miajl,mjbl->miabj", middle, self.roots).reshape(m, s * c * c, s)
        spread = -(x @ self.phi.mT) @ (middle @ self.phi).view(m, s, -1)
        spread = spread.view(m, x.shape[1], c, c, -1)
        spread.diagonal(dim1=2, dim2=3).add_(x[..., None])
        return spread


def head_inverse(
    head: LinearHead,
    phi: Float[Tensor, "m s d"],
    outputs: Float[Tensor, "m s C"],
    weights: Float[Tensor, "m s"],
    strength: float,
) -> HeadInverse | DenseInverse:
    """Return the inverse for softmax heads, by the smaller of the two matrices.

    Args:
        head: lays theta out.
        phi: what the heads see [m, s, d].
        outputs: their logits [m, s, C].
        weights: of the training examples [m, s].
        strength: > 0.
    """
    c, d = outputs.shape[-1], phi.shape[-1]
    probability = outputs.softmax(-1)
    if phi.shape[1] < d:
        root = probability.sqrt()
        roots = torch.diag_embed(root) - probability[..., :, None] * root[..., None, :]
        return HeadInverse(head, phi, weights.sqrt()[..., None, None] * roots, strength)
    s = torch.diag_embed(probability) - probability[..., :, None] * probability[..., None, :]
    matrices = quadratic_forms(phi, weights[..., None, None] * s)
    place = matrix_places(head, phi.new_zeros(c, d))
    matrices = matrices[:, place[:, None], place]
    matrices.diagonal(dim1=1, dim2=2).add_(strength)
    return DenseInverse(matrices)


def matrix_places(head: LinearHead, like: Float[Tensor, "C d"]) -> Int[Tensor, " p"]:
    """Return where each entry of a flat theta stands in its matrix [C, d], row by row."""
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

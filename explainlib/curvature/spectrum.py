"""The largest eigenvalues of a curvature, matrix-free."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_count
from explainlib.curvature.hessian import hessian_operator
from explainlib.risk import Risk

DENSE_BELOW = 64  # ARPACK needs k well below p; a smaller matrix is diagonalised densely


@compute.entry
def top_eigenvalues(risk: Risk, k: int) -> Float[Tensor, " k"]:
    """Return the k algebraically largest eigenvalues of the Hessian, largest first, ridge included.

    Implicitly restarted Lanczos (ARPACK) on Hessian products; the matrix is not materialised.

    Args:
        risk: at any parameters.
        k: 1 <= k <= p.

    Raises:
        ValueError: k outside its range.
    """
    if require_count("k", k) > risk.p:
        raise ValueError(f"k={k} eigenvalues were asked of a {risk.p} x {risk.p} Hessian; ask for at most {risk.p}.")
    return lanczos(hessian_operator(risk), risk.theta, k)


def lanczos(
    operator: Callable[[Float[Tensor, "k p"]], Float[Tensor, "k p"]],
    like: Float[Tensor, " p"],
    k: int,
    seed: int = 0,
    tolerance: float | None = None,
) -> Float[Tensor, " k"]:
    """Return the k algebraically largest eigenvalues of a symmetric operator on vectors like ``like``, largest first.

    Args:
        operator: v -> A v on rows [k, p].
        like: gives p, dtype and device; its values are not used.
        k: 1 <= k <= p; more than half of them, or a small p, by a dense eigendecomposition.
        seed: of the starting vector.
        tolerance: relative, of the eigenvectors' residuals; the error of an eigenvalue is of its square. None is
            rounding in float64 and 1e-6 in float32.
    """

    def matvec(v: np.ndarray) -> np.ndarray:
        return operator(torch.as_tensor(v.ravel()).to(like)[None])[0].double().cpu().numpy()

    p = like.numel()
    if p <= DENSE_BELOW or k > p // 2:
        matrix = operator(torch.eye(p, dtype=like.dtype, device=like.device))
        return torch.linalg.eigvalsh((matrix + matrix.T) / 2).flip(0)[:k]
    from scipy.sparse.linalg import LinearOperator, eigsh  # half a second that importing this package would take

    start = np.random.default_rng(seed).standard_normal(p)  # ARPACK's default start is not reproducible
    if tolerance is None:
        tolerance = 0.0 if like.dtype == torch.float64 else 1e-6
    product = LinearOperator((p, p), matvec=matvec, dtype=np.float64)
    values = eigsh(product, k=k, which="LA", v0=start, tol=tolerance, return_eigenvectors=False)
    return torch.as_tensor(np.sort(values)[::-1].copy()).to(like)

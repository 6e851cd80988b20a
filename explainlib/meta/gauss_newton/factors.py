"""Factors of the Gauss-Newton matrix: the softmax's, and the leading rows of many, by a Gram matrix in float64."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.solvers.low_rank import gram_floor

COLUMNS = 2**12  # of the rows, made float64 at a time


def float64_gram(rows: Float[Tensor, "m q"], other: Float[Tensor, "k q"] | None = None) -> Float[Tensor, "m k"]:
    """Return V U^T in float64, some columns at a time: in float32 it has a rounding of eps of the largest eigenvalue.

    Args:
        rows: V.
        other: U; None is V.
    """
    k = len(rows) if other is None else len(other)
    total = torch.zeros(len(rows), k, dtype=torch.float64, device=rows.device)
    for start in range(0, rows.shape[1], COLUMNS):
        wide = rows[:, start : start + COLUMNS].double()
        total += wide @ (wide if other is None else other[:, start : start + COLUMNS].double()).T
    return total


def softmax_factors(s: Float[Tensor, "n C"]) -> Float[Tensor, "n k C"]:
    """Return F [n, C-1, C] with F^T F = diag(s) - s s^T, exactly of rank C - 1.

    Rows are an orthonormal basis of the complement of sqrt(s) (a Householder reflection), scaled by sqrt(s).
    """
    root = s.sqrt()
    normal = root.clone()
    normal[..., -1] += 1.0  # |root| = 1 and root >= 0, so this reflection sends root to minus the last axis, stably
    normal = normal / normal.norm(dim=-1, keepdim=True)
    eye = torch.eye(s.shape[-1], dtype=s.dtype, device=s.device)
    reflection = eye - 2 * normal[..., :, None] * normal[..., None, :]
    return reflection[..., :-1, :] * root[..., None, :]


def leading_rows(rows: Float[Tensor, "m q"], size: int) -> Float[Tensor, "k q"]:
    """Return at most ``size`` orthogonal rows B, upwards by norm, with B^T B the best approximation of V^T V.

    Args:
        rows: V.
        size: at least 1.
    """
    rotation = leading_rotation(float64_gram(rows), rows.dtype, size)
    return rotate(rotation, rows, out=rows.new_empty(len(rotation), rows.shape[1]))


def leading_rotation(gram: Float[Tensor, "m m"], dtype: torch.dtype, size: int) -> Float[Tensor, "k m"]:
    """Return Q [k, m] for which Q V are the leading rows of V: eigenvectors of V V^T above the rounding of V.

    Args:
        gram: V V^T, float64.
        dtype: of V.
        size: k at most.
    """
    values, vectors = torch.linalg.eigh(gram)
    kept = values[-size:] > values[-1] * gram_floor(dtype, len(values))
    return vectors[:, -size:][:, kept].T


def rotate(rotation: Float[Tensor, "k m"], rows: Float[Tensor, "m q"], out: Float[Tensor, "k q"]) -> Tensor:
    """Return ``out`` with Q V written into it; it may be the first rows of V.

    Args:
        rotation: Q, float64.
        rows: V.
        out: [k, q].
    """
    for start in range(0, rows.shape[1], COLUMNS):
        columns = slice(start, start + COLUMNS)
        out[:, columns] = (rotation @ rows[:, columns].double()).to(out)
    return out

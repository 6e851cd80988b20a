"""The Gauss-Newton matrix of the meta-objective, as the columns it is made of.

    G = 1/(M r) sum_n J_n^T (diag(s_n) - s_n s_n^T) J_n = V^T V,      J_n = d logits_n / dw, through the adaptation

n runs over all M r query examples and s_n is the softmax there. Each example gives the columns
J_n^T (diag(sqrt s) - s sqrt(s)^T) / sqrt(M r), C of them with rank C - 1; in an orthonormal basis of that rank C - 1
are enough. They are stored as rows.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vjp

from explainlib import compute
from explainlib.checks import require_count, warn_caller
from explainlib.datasets import Tasks
from explainlib.derivatives import vmap
from explainlib.memory import alternatives, require_memory
from explainlib.meta.hessian import require_objective
from explainlib.meta.learner import Episode, Learner, require_learned
from explainlib.solvers.low_rank import gram_floor

COLUMNS = 2**14  # of the rows, made float64 at a time


def float64_gram(rows: Float[Tensor, "m q"]) -> Float[Tensor, "m m"]:
    """Return V V^T in float64, some columns at a time: in float32 it has a rounding of eps of the largest eigenvalue.

    Args:
        rows: V.
    """
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for part in rows.split(COLUMNS, dim=1):
        wide = part.double()
        total += wide @ wide.T
    return total


@alternatives("gauss_newton_buffer holds as many rows as it is told")
@compute.entry
def gauss_newton_rows(learner: Learner, w: Float[Tensor, " q"], tasks: Tasks) -> Float[Tensor, "m q"]:
    """Return V [M r (C-1), q] with V^T V = 1/r sum_i (Gauss-Newton matrix of task i): divide by M for the mean.

    Args:
        learner: MAML or ProtoNet; first-order MAML is refused.
        w: where.
        tasks: M tasks, all in memory at once.

    Returns:
        The rows, task by task and example by example; their number is known without looking at w.

    Source: TLXML, eqs (8) and (14). Deviation: C - 1 rows an example instead of C, the exact rank.
    """
    w = require_objective(learner).require_w(w)
    learner.require_tasks(tasks)
    ways = tasks.ways

    rows = len(tasks) * tasks.query_y.shape[1] * (tasks.ways - 1)
    what = f"{rows:,} Gauss-Newton rows of q = {learner.q:,} parameters"
    require_memory(what, 2 * rows * learner.q * w.element_size(), w.device)

    def one(task: Episode) -> Float[Tensor, "k q"]:
        logits, pull = vjp(lambda v: learner._answers(v, task, ways), w)
        factors = softmax_factors(logits.softmax(-1)) / len(logits) ** 0.5  # [r, C-1, C]
        picked = torch.eye(len(logits), dtype=w.dtype, device=w.device)
        cotangents = (picked[:, None, :, None] * factors[:, :, None, :]).flatten(0, 1)  # [r (C-1), r, C]
        return vmap(lambda row: pull(row)[0])(cotangents)

    rows = vmap(one, chunk_size=max(1, learner.chunk(tasks) // (4 * tasks.query_y.shape[1])))(Episode(*tasks.arrays()))
    return require_learned(learner, "Gauss-Newton rows", rows).flatten(0, 1)


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


@compute.entry
def gauss_newton_buffer(
    learner: Learner, w: Float[Tensor, " q"], tasks: Tasks, *, size: int, block: int = 8
) -> Float[Tensor, "k q"]:
    """Return at most ``size`` rows B with B^T B close to M times the mean Gauss-Newton matrix, never holding more.

    The buffer meets ``block`` tasks at a time; of both together the leading directions stay, found from their small
    Gram matrix. Rows are orthogonal and sorted upwards by norm; their squared norms, over M, are eigenvalues of G.

    The Gram matrix is formed in float64 and cut where the rows' own rounding begins (``gram_floor``), which does not
    depend on q; a warning says where fewer directions than ``size`` stand above it though as many rows were met.

    Args:
        learner: MAML or ProtoNet.
        w: where.
        tasks: taken in order; the result depends on it a little.
        size: rows kept, at least 1.
        block: tasks a step, at least 1.

    Source: TLXML, section 4.2. Deviation: the paper orthogonalises the columns and keeps the longest; the leading
    directions of the Gram matrix are the best choice of that size and cost less.
    """
    require_count("size", size)
    require_count("block", block)
    buffer, met = w.new_zeros(0, require_objective(learner).q), 0
    for start in range(0, len(tasks), block):
        fresh = gauss_newton_rows(learner, w, tasks[start : start + block])
        buffer, met = leading_rows(torch.cat([buffer, fresh]), size), met + len(fresh)
    if len(buffer) < min(size, met, learner.q):
        advice = "Pass a smaller size" if w.dtype == torch.float64 else "Use float64, or pass a smaller size"
        warn_caller(
            f"size={size} rows were asked for, and only {len(buffer)} directions of the {met} rows stand above the "
            f"rounding of {w.dtype}: the matrix has that rank. {advice}.",
            UserWarning,
        )
    return buffer


def leading_rows(rows: Float[Tensor, "m q"], size: int) -> Float[Tensor, "k q"]:
    """Return at most ``size`` orthogonal rows B, upwards by norm, with B^T B the best approximation of V^T V.

    Args:
        rows: V.
        size: at least 1.
    """
    values, vectors = torch.linalg.eigh(float64_gram(rows))
    kept = values[-size:] > values[-1] * gram_floor(rows.dtype, len(values))
    turn = vectors[:, -size:][:, kept].T
    return torch.cat([(turn @ part.double()).to(rows) for part in rows.split(COLUMNS, dim=1)], dim=1)

"""The Gauss-Newton matrix of the meta-objective, as the rows of a factor V.

    G = 1/(M r) sum_n J_n^T (diag(s_n) - s_n s_n^T) J_n = V^T V,      J_n = d logits_n / dw, through the adaptation

n runs over all M r query examples and s_n is the softmax there. Each example gives the columns
J_n^T (diag(sqrt s) - s sqrt(s)^T) / sqrt(M r), C of them with rank C - 1; in an orthonormal basis of that rank C - 1
are enough. Columns are stored as rows.
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


@alternatives("gauss_newton_buffer keeps at most size rows")
@compute.entry
def gauss_newton_rows(learner: Learner, w: Float[Tensor, " q"], tasks: Tasks) -> Float[Tensor, "m q"]:
    """Return V [M r (C-1), q] with V^T V = 1/r sum_i (Gauss-Newton matrix of task i): divide by M for the mean.

    Args:
        learner: MAML or ProtoNet; first-order MAML is refused.
        w: meta-parameters [q].
        tasks: M tasks, all in memory at once.

    Returns:
        The rows, task by task and example by example; their number does not depend on w.

    Source: TLXML, eqs (10) and (11). Deviation: C - 1 rows an example instead of C, the exact rank.
    """
    w = require_objective(learner).require_w(w)
    learner.require_tasks(tasks)
    ways = tasks.ways

    rows = len(tasks) * tasks.query_y.shape[1] * (tasks.ways - 1)
    what = f"{rows:,} Gauss-Newton rows of q = {learner.q:,} parameters"
    require_memory(what, 2 * rows * learner.q * w.element_size(), w.device)

    def one(task: Episode) -> Float[Tensor, "k q"]:
        logits, vjp_function = vjp(lambda v: learner._query_outputs(v, task, ways), w)
        factors = softmax_factors(logits.softmax(-1)) / len(logits) ** 0.5  # [r, C-1, C]
        basis = torch.eye(len(logits), dtype=w.dtype, device=w.device)
        cotangents = (basis[:, None, :, None] * factors[:, :, None, :]).flatten(0, 1)  # [r (C-1), r, C]
        return vmap(lambda row: vjp_function(row)[0])(cotangents)

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
    """Return at most ``size`` rows B with B^T B close to M times the mean Gauss-Newton matrix.

    ``block`` tasks are added at a time; of buffer and new rows the leading directions are kept, found from their
    Gram matrix. Rows are orthogonal and sorted upwards by norm; their squared norms, over M, are eigenvalues of G.

    The Gram matrix is computed in float64 and cut at the rounding level of the rows (``gram_floor``), which does not
    depend on q. A warning is given where fewer than ``size`` directions lie above it although as many rows were added.

    Args:
        learner: MAML or ProtoNet.
        w: meta-parameters [q].
        tasks: in order; the result depends slightly on it.
        size: rows kept, at least 1.
        block: tasks a step, at least 1.

    Source: TLXML, section 4.2. Deviation: the paper orthogonalises the columns and keeps the longest; the leading
    directions of the Gram matrix are the best choice of that size and cost less.
    """
    require_count("size", size)
    require_count("block", block)
    buffer, added = w.new_zeros(0, require_objective(learner).q), 0
    for start in range(0, len(tasks), block):
        new_rows = gauss_newton_rows(learner, w, tasks[start : start + block])
        buffer, added = leading_rows(torch.cat([buffer, new_rows]), size), added + len(new_rows)
    if len(buffer) < min(size, added, learner.q):
        advice = "Pass a smaller size" if w.dtype == torch.float64 else "Use float64, or pass a smaller size"
        warn_caller(
            f"size={size} rows were asked for, and only {len(buffer)} directions of the {added} rows lie above the "
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
    rotation = vectors[:, -size:][:, kept].T
    return torch.cat([(rotation @ part.double()).to(rows) for part in rows.split(COLUMNS, dim=1)], dim=1)

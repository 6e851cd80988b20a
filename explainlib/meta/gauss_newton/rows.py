"""The Gauss-Newton matrix of the meta-objective, as the rows of a factor V.

    G = 1/(M r) sum_n J_n^T (diag(s_n) - s_n s_n^T) J_n = V^T V,      J_n = d logits_n / dw, through the adaptation

n runs over all M r query examples and s_n is the softmax there. Each example gives the columns
J_n^T (diag(sqrt s) - s sqrt(s)^T) / sqrt(M r), C of them with rank C - 1; in an orthonormal basis of that rank C - 1
are enough. Columns are stored as rows.

    J_n^T u = (dA/dw)^T (d logits_n / dtheta)^T u

The second factor is one vjp of the query, the first one costs a Hessian product of the support loss for each step. So
a task's rows can be compressed in between: of the rows at theta = A(w) the leading ``compress`` directions are kept,
found from their Gram matrix, and only those go through dA/dw. What is left out is measured: one random combination of
it goes through too, and its squared length is an unbiased estimate of the lost trace.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vjp

from explainlib import compute
from explainlib.datasets import Tasks
from explainlib.derivatives import second_order_norms, vmap
from explainlib.memory import alternatives, require_memory
from explainlib.meta.gauss_newton.factors import float64_gram, softmax_factors
from explainlib.meta.hessian import require_objective
from explainlib.meta.learner import Episode, Learner, require_learned


class TaskRows(NamedTuple):
    """Rows of some tasks, and the trace that compression has lost.

    Attributes:
        rows: V of these tasks [m, q], task by task.
        lost: an unbiased estimate of the trace of what is not in ``rows``; 0 without compression.
    """

    rows: Float[Tensor, "m q"]
    lost: float


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
    rows = len(tasks) * rows_of_a_task(tasks)
    what = f"{rows:,} Gauss-Newton rows of q = {learner.q:,} parameters"
    require_memory(what, 2 * rows * learner.q * w.element_size(), w.device)
    return task_rows(learner, w, tasks).rows


def rows_of_a_task(tasks: Tasks) -> int:
    """Return r (C - 1), the rows of one task."""
    return tasks.query_y.shape[1] * (tasks.ways - 1)


def task_rows(
    learner: Learner, w: Float[Tensor, " q"], tasks: Tasks, compress: int | None = None, *, seed: int = 0
) -> TaskRows:
    """Return the rows of some tasks, ``compress`` of each.

    Args:
        learner: MAML or ProtoNet.
        w: meta-parameters [q].
        tasks: all in memory at once.
        compress: directions kept of each task; None is all.
        seed: of the random combination of what is left out.
    """
    episodes, count = Episode(*tasks.arrays()), rows_of_a_task(tasks)
    compress = None if compress is None or compress >= count else compress
    signs = None
    if compress is not None:
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(2, (len(tasks), count), generator=generator).to(w) * 2 - 1
    if learner.one_by_one(tasks):
        each = [
            _rows_one_by_one(learner, w, Episode(*(part[k] for part in episodes)), tasks.ways, compress, signs, k)
            for k in range(len(tasks))
        ]
        rows = torch.stack(each)
    else:
        rows = _rows_batched(learner, w, episodes, tasks, compress, signs)
    rows = require_learned(learner, "Gauss-Newton rows", rows)
    if compress is None:
        return TaskRows(rows.flatten(0, 1), 0.0)
    return TaskRows(rows[:, :-1].flatten(0, 1), float(rows[:, -1].double().square().sum()))


def _rows_batched(
    learner: Learner, w: Tensor, episodes: Episode, tasks: Tasks, compress: int | None, signs: Tensor | None
) -> Float[Tensor, "t k q"]:
    """Return the rows of tasks that are small enough for one batch of them and of their rows."""
    ways = tasks.ways

    def one(task: Episode, own_signs: Tensor | None) -> Float[Tensor, "k q"]:
        theta, adaptation_vjp = vjp(lambda v: learner.adapted_one(v, task), w)
        logits, query_vjp = vjp(lambda v: learner.outputs_one(v, task, ways), theta)
        factors = softmax_factors(logits.softmax(-1)) / len(logits) ** 0.5  # [r, C-1, C]
        basis = torch.eye(len(logits), dtype=w.dtype, device=w.device)
        cotangents = (basis[:, None, :, None] * factors[:, :, None, :]).flatten(0, 1)  # [r (C-1), r, C]
        rows = vmap(lambda row: query_vjp(row)[0])(cotangents)
        if compress is not None:
            rows = _compressed(rows, compress, own_signs)
        return vmap(lambda row: adaptation_vjp(row)[0])(rows)

    chunk = max(1, learner.chunk(tasks) // (4 * tasks.query_y.shape[1]))
    return vmap(one, (0, None if signs is None else 0), chunk_size=chunk)(episodes, signs)


def _rows_one_by_one(
    learner: Learner, w: Tensor, task: Episode, ways: int, compress: int | None, signs: Tensor | None, k: int
) -> Float[Tensor, "k q"]:
    """Return the rows of one task of a large network: a backward pass each, which costs as much as in a batch of them.

    Nothing beyond second derivatives is taken, so normalisations are fused.
    """
    with second_order_norms():
        start = w.detach().requires_grad_()
        theta = learner.adapted_one(start, task)
        end = theta.detach().requires_grad_()
        logits = learner.outputs_one(end, task, ways)
        factors = softmax_factors(logits.detach().softmax(-1)) / len(logits) ** 0.5
        rows = w.new_empty(factors.shape[0] * factors.shape[1], len(w))
        cotangent = torch.zeros_like(logits)
        for place, factor in enumerate(factors.flatten(0, 1)):
            n = place // factors.shape[1]
            cotangent[n] = factor
            rows[place] = torch.autograd.grad(logits, end, cotangent, retain_graph=True)[0]
            cotangent[n] = 0
        if compress is not None:
            rows = _compressed(rows, compress, signs[k])
        for place, row in enumerate(rows.clone()):
            rows[place] = torch.autograd.grad(theta, start, row, retain_graph=True)[0]
    return rows


def _compressed(rows: Float[Tensor, "m q"], size: int, signs: Float[Tensor, " m"]) -> Float[Tensor, "k q"]:
    """Return the ``size`` leading rows, and one random combination of the others, orthogonal to them.

    With U the leading eigenvectors of V V^T and z random signs: U^T V, and z^T (I - U U^T) V.
    """
    vectors = torch.linalg.eigh(float64_gram(rows)).eigenvectors[:, -size:]
    signs = signs.double()
    rest = signs - vectors @ (vectors.T @ signs)
    return torch.cat([vectors.T, rest[None]]).to(rows) @ rows

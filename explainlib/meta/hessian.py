"""The Hessian of the meta-objective, exactly: third derivatives of the support loss included.

    L(w) = 1/M sum_i L_i(w) + l2/2 |w|^2,      H = 1/M sum_i grad^2 L_i(w) + l2 I

Any learner: one gradient, one backward pass through it, for blocks of basis vectors and tasks together (reverse over
reverse). MAML with one step on a two-layer network: a structured route with small matrices only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vjp

from explainlib import compute
from explainlib.checks import require_choice, require_count, require_nonnegative, symmetrised
from explainlib.datasets import Tasks
from explainlib.derivatives import vmap
from explainlib.gate import GRADIENT, HESSIAN, THIRD
from explainlib.memory import alternatives, require_memory
from explainlib.meta.fingerprints import learner_fingerprint
from explainlib.meta.learner import Episode, Learner, require_learned, require_learner
from explainlib.meta.maml import Maml
from explainlib.meta.task_map import map_blocks
from explainlib.meta.two_layer import as_two_layer, two_layer_hessians
from explainlib.storage import Store

ROWS = 32  # basis vectors in one batched pass; more exceed the processor's cache
TASKS = 8  # tasks in one pass
TASKS_PER_WRITE = 32  # tasks between two writes to a store


@alternatives("learn fewer with parameters=[...] in the learner, or use gauss_newton_buffer")
@compute.entry
def meta_hessian(
    learner: Learner,
    w: Float[Tensor, " q"],
    tasks: Tasks,
    *,
    l2: float = 0.0,
    route: str = "auto",
    processes: int = 1,
    store: str | Path | Store | None = None,
) -> Float[Tensor, "q q"]:
    """Return H [q, q], symmetric, ridge included.

    Args:
        learner: MAML or ProtoNet; first-order MAML has no objective and is refused.
        w: meta-parameters [q].
        tasks: the M training tasks.
        l2: ridge of the meta-objective, >= 0.
        route: "general" for any learner, "two_layer" for one-step MAML on Linear, BatchNorm, activation, Linear; "auto"
            takes the second where it fits. Both are exact.
        processes: number of processes that share the tasks, one thread each.
        store: a folder for this computation; an interrupted call resumes from it.

    Returns:
        H, in loss per squared parameter. Cost: M q products of four gradients each, or M dense products q x q x (r C).

    Raises:
        ValueError: a learner without an objective, or a route that does not fit.

    Source: TLXML, eq. (5).
    """
    require_nonnegative("l2", l2)
    require_count("processes", processes)
    w = require_objective(learner).require_w(w)
    learner.require_tasks(tasks)
    learner.require_derivatives(tasks, GRADIENT, HESSIAN, THIRD)
    summed = _route(learner, require_choice("route", route, ("auto", "general", "two_layer")))
    if store is not None and not isinstance(store, Store):
        route_name = summed.__name__.strip("_")  # both routes are exact, and round differently
        store = Store(store, learner_fingerprint(learner, w, tasks, {}, {"what": "meta_hessian", "route": route_name}))
    require_memory(f"the meta-Hessian of q = {learner.q:,} parameters", 4 * learner.q**2 * w.element_size(), w.device)
    total = w.new_zeros(learner.q, learner.q)
    done = 0
    if store is not None and "curvature" in store:
        saved = store.load("curvature", w.device)
        total, done = saved["sum"], int(saved["done"])
    while done < len(tasks):
        part = tasks[done : done + TASKS_PER_WRITE * processes]
        total = total + _distribute(summed, learner, w, part, processes)
        done += len(part)
        if store is not None:
            store.save("curvature", {"sum": total, "done": torch.tensor(done)})
    total = require_learned(learner, "the meta-Hessian's rows", total) / len(tasks)
    total = symmetrised("the meta-Hessian", total)
    total.diagonal().add_(l2)
    return total


def require_objective(learner: Learner) -> Learner:
    """Return the learner if its training direction is the gradient of an objective."""
    if getattr(require_learner(learner), "first_order", False):
        raise ValueError(
            "first-order MAML follows a direction that is not the gradient of any objective, so there is no Hessian; "
            "explain the same w with Maml(model, inner_lr=..., first_order=False)."
        )
    return learner


HessianSum = Callable[[Learner, Tensor, Tasks], Tensor]


def _route(learner: Learner, route: str) -> HessianSum:
    fits = isinstance(learner, Maml) and learner.steps == 1 and as_two_layer(learner.given) is not None
    if route == "two_layer" and not fits:
        raise ValueError(
            "route='two_layer' needs one-step Maml on Linear, BatchNorm (or none), activation, Linear; "
            "pass route='general'."
        )
    return _general_sum if route == "general" or not fits else _two_layer_sum


def _two_layer_sum(learner: Maml, w: Tensor, tasks: Tasks) -> Float[Tensor, "q q"]:
    net = as_two_layer(learner.given)
    return two_layer_hessians(net, w, *tasks.arrays(), inner_lr=learner.inner_lr) * len(tasks)


def _general_sum(learner: Learner, w: Tensor, tasks: Tasks) -> Float[Tensor, "q q"]:
    eye, total = torch.eye(learner.q, dtype=w.dtype, device=w.device), w.new_zeros(learner.q, learner.q)
    for start in range(0, len(tasks), TASKS):  # few enough for the processor's cache
        product = hessian_operator(learner, w, tasks[start : start + TASKS])
        total += torch.cat([product(rows) for rows in eye.split(ROWS)])
    return total


def hessian_operator(
    learner: Learner, w: Float[Tensor, " q"], tasks: Tasks, weights: Float[Tensor, " M"] | None = None
) -> Callable[[Float[Tensor, "k q"]], Float[Tensor, "k q"]]:
    """Return v -> sum_i weight_i grad^2 L_i(w) v for rows v [k, q]; the first backward pass is done here, once.

    Args:
        learner: any; no ridge is added.
        w: meta-parameters [q].
        tasks: all in memory at once, with the graphs of their backward passes.
        weights: one a task; None is all ones.
    """
    learner.require_derivatives(tasks, GRADIENT, HESSIAN, THIRD)
    ways, size = tasks.ways, min(TASKS, learner.chunk(tasks))
    weights = w.new_ones(len(tasks)) if weights is None else weights

    def total(v: Tensor, rows: slice) -> Tensor:
        episodes = Episode(*(part[rows] for part in tasks.arrays()))
        return vmap(lambda task: learner.loss_one(v, task, ways))(episodes) @ weights[rows]

    starts = range(0, len(tasks), size)
    products = [vjp(grad(lambda v, rows=slice(start, start + size): total(v, rows)), w)[1] for start in starts]
    return lambda v: sum(vmap(lambda row, product=product: product(row)[0])(v) for product in products)


def _distribute(summed: HessianSum, learner: Learner, w: Tensor, tasks: Tasks, processes: int) -> Tensor:
    """Return the sum over tasks, computed by several processes."""
    if processes == 1:
        return summed(learner, w, tasks)
    rows = torch.arange(len(tasks)).tensor_split(min(processes, len(tasks)))
    return sum(map_blocks(partial(summed, learner, w), [tasks[some] for some in rows], processes))

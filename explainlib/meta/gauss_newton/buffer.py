"""The Gauss-Newton matrix of many tasks in a buffer of few rows, in bounded memory (TLXML, section 4.2).

    M G = sum_i V_i^T V_i  ~  B^T B,      B [k, q]

Blocks of tasks are added in order: of the buffer and the new rows the k leading directions are kept, found from their
Gram matrix in float64. The buffer's own rows are orthogonal, so that only products with the new rows are computed; at
the end the whole Gram matrix is, once. A block of several tasks costs one step of k directions. Its rows come from any
number of processes, for large networks a few tasks at a time, and go straight to their place behind the buffer: what a
process sends is copied on its way, so it should be small. After every few blocks the buffer is written to the store,
from which an interrupted computation goes on to the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_count, warn_caller
from explainlib.datasets import Tasks
from explainlib.memory import require_memory
from explainlib.meta.gauss_newton.factors import float64_gram, leading_rotation, leading_rows, rotate
from explainlib.meta.gauss_newton.rows import TaskRows, rows_of_a_task, task_rows
from explainlib.meta.hessian import require_objective
from explainlib.meta.learner import Learner
from explainlib.meta.task_map import Processes, map_blocks, width_of
from explainlib.progress import tqdm
from explainlib.storage import Store

BLOCK = 8  # tasks a step
PORTION = 2  # tasks of a large network whose rows are sent at once
STEPS_PER_WRITE = 4  # steps between two writes to a store


@dataclass(frozen=True)
class Buffer:
    """Rows whose products approximate M times the mean Gauss-Newton matrix.

    Attributes:
        rows: B [k, q], orthogonal, upwards by norm.
        added: rows that went in.
        done: tasks that went in.
        trace: of the rows that went in.
        lost: an unbiased estimate of the trace that compression took from them.
    """

    rows: Float[Tensor, "k q"]
    added: int = 0
    done: int = 0
    trace: float = 0.0
    lost: float = 0.0

    @property
    def captured(self) -> float:
        """The share of the trace of M G that is in the buffer; above 1 by the estimate's error only."""
        whole = self.trace + self.lost
        return float(float64_squares(self.rows).sum()) / whole if whole else 1.0

    def tensors(self) -> dict[str, Tensor]:
        """Return the buffer for a store."""
        numbers = (self.added, self.done, self.trace, self.lost)
        return {"rows": self.rows, "numbers": torch.tensor(numbers, dtype=torch.float64)}

    def moved_to(self, workspace: Float[Tensor, "n q"]) -> Buffer:
        """Return the buffer with its rows in the first ones of a workspace; the others are no longer held."""
        rows = workspace[: len(self.rows)]
        rows.copy_(self.rows)
        return replace(self, rows=rows)

    @staticmethod
    def of(tensors: dict[str, Tensor]) -> Buffer:
        """Return the buffer from a store."""
        added, done, trace, lost = tensors["numbers"].tolist()
        return Buffer(tensors["rows"], int(added), int(done), trace, lost)


@compute.entry
def gauss_newton_buffer(
    learner: Learner,
    w: Float[Tensor, " q"],
    tasks: Tasks,
    *,
    size: int,
    block: int = BLOCK,
    compress: int | None = None,
    processes: Processes = 1,
) -> Float[Tensor, "k q"]:
    """Return at most ``size`` rows B with B^T B close to M times the mean Gauss-Newton matrix.

    Rows are orthogonal and sorted upwards by norm; their squared norms, over M, are eigenvalues of G. The Gram matrix
    is computed in float64 and cut at the rounding level of the rows (``gram_floor``), which does not depend on q. A
    warning is given where fewer than ``size`` directions lie above it although as many rows were added.

    Args:
        learner: MAML or ProtoNet.
        w: meta-parameters [q].
        tasks: in order; the result depends slightly on it.
        size: rows kept, at least 1 and at most the rows there are.
        block: tasks a step, at least 1.
        compress: directions kept of each task, at least C - 1; None is all r (C - 1), and exact.
        processes: that compute the rows: a number, the address of a dask scheduler, or its Client.

    Raises:
        ValueError: a size or a compression that the tasks cannot give.

    Source: TLXML, section 4.2. Deviation: the paper orthogonalises the columns and keeps the longest; the leading
    directions of the Gram matrix are the best choice of that size and cost less.
    """
    options = {"size": size, "block": block, "compress": compress, "processes": processes}
    buffer = filled_buffer(learner, w, tasks, **options)
    warn_of_rank(buffer, "size", size)
    return buffer.rows.clone()  # without the workspace behind it


def filled_buffer(
    learner: Learner,
    w: Float[Tensor, " q"],
    tasks: Tasks,
    *,
    size: int,
    block: int = BLOCK,
    compress: int | None = None,
    processes: Processes = 1,
    store: Store | None = None,
) -> Buffer:
    """Return the buffer with what it holds of the trace; see ``gauss_newton_buffer``.

    Args:
        learner: MAML or ProtoNet.
        w: meta-parameters [q].
        tasks: in order.
        size: rows kept.
        block: tasks a step.
        compress: directions kept of each task.
        processes: that compute the rows.
        store: written to after every few steps, and resumed from.
    """
    require_objective(learner).require_w(w)
    learner.require_tasks(tasks)
    require_buffer(size, compress, tasks)
    require_count("block", block)
    per_task = rows_of_a_task(tasks) if compress is None else min(compress, rows_of_a_task(tasks))
    what = f"a buffer of {size:,} and {block * per_task:,} new rows of q = {learner.q:,} parameters"
    require_memory(what, 3 * (size + block * per_task) * learner.q * w.element_size(), w.device)
    compute.return_freed_memory()
    workspace = w.new_empty(size + block * per_task, learner.q)
    buffer = Buffer(w.new_zeros(0, learner.q))
    if store is not None and "buffer" in store:
        buffer = Buffer.of(store.load("buffer", w.device)).moved_to(workspace)
    steps = [range(start, min(start + block, len(tasks))) for start in range(buffer.done, len(tasks), block)]
    large = learner.one_by_one(tasks)
    portion = min(block, PORTION) if large else block
    parts = [[own[k : k + portion] for k in range(0, len(own), portion)] for own in steps]
    new = _new_rows(learner, w, tasks, [part for own in parts for part in own], compress, processes)
    for step, own in enumerate(tqdm(parts, desc="Gauss-Newton rows")):
        found = _gathered(islice(new, len(own)), workspace[len(buffer.rows) :])
        with compute.threads(width_of(processes)):  # the other processes wait for this
            buffer = _step(buffer, found, size, len(steps[step]), workspace)
        if large:
            compute.return_freed_memory()
        last = buffer.done == len(tasks)
        if last:
            rotation = leading_rotation(float64_gram(buffer.rows), w.dtype, size)
            buffer = replace(buffer, rows=rotate(rotation, buffer.rows, out=buffer.rows[: len(rotation)]))
        if store is not None and (last or (step + 1) % STEPS_PER_WRITE == 0):
            store.save("buffer", buffer.tensors())
    return buffer


def _new_rows(
    learner: Learner,
    w: Tensor,
    tasks: Tasks,
    parts: Sequence[range],
    compress: int | None,
    processes: Processes,
) -> Iterator[TaskRows]:
    blocks = [(part.start, tasks[part.start : part.stop]) for part in parts]
    return map_blocks(partial(_block_rows, learner, w, compress), blocks, processes)


def _gathered(parts: Iterator[TaskRows], place: Float[Tensor, "n q"]) -> TaskRows:
    """Return the rows of several parts as one, the first of a place that is large enough."""
    filled, lost = 0, 0.0
    for part in parts:
        place[filled : filled + len(part.rows)] = part.rows
        filled, lost = filled + len(part.rows), lost + part.lost
    return TaskRows(place[:filled], lost)


def _block_rows(learner: Learner, w: Tensor, compress: int | None, block: tuple[int, Tasks]) -> TaskRows:
    start, tasks = block
    found = task_rows(learner, w, tasks, compress, seed=start)
    if learner.one_by_one(tasks):
        compute.return_freed_memory()  # before the rows are copied on their way
    return found


def _step(buffer: Buffer, new: TaskRows, size: int, tasks: int, workspace: Float[Tensor, "n q"]) -> Buffer:
    """Return the buffer with the rows of some tasks added, cut to its size.

    Args:
        buffer: its rows are the first of the workspace, before and after.
        new: rows behind them.
        size: of the buffer.
        tasks: whose rows are added.
        workspace: that holds both.
    """
    k, m = len(buffer.rows), len(new.rows)
    rows = workspace[: k + m]
    gram = rows.new_zeros(k + m, k + m, dtype=torch.float64)
    gram[:k, :k] = torch.diag(float64_squares(buffer.rows))  # the buffer's rows are orthogonal
    gram[k:] = float64_gram(new.rows, rows)
    gram[:k, k:] = gram[k:, :k].T
    added = {"added": buffer.added + m, "done": buffer.done + tasks, "lost": buffer.lost + new.lost}
    added["trace"] = buffer.trace + float(gram.diagonal()[k:].sum())
    if k + m > size:
        rotation = leading_rotation(gram, rows.dtype, size)
        return Buffer(rotate(rotation, rows, out=rows[: len(rotation)]), **added)
    leading = leading_rows(rows, size)
    rows[: len(leading)] = leading
    return Buffer(rows[: len(leading)], **added)


def float64_squares(rows: Float[Tensor, "k q"]) -> Float[Tensor, " k"]:
    """Return the squared norms of rows in float64.

    Args:
        rows: any.
    """
    return torch.stack([row.double().square().sum() for row in rows]) if len(rows) else rows.new_zeros(0).double()


def buffer_size(tasks: Tasks, q: int, compress: int | None) -> int:
    """Return the size of a buffer that loses nothing.

    Args:
        tasks: M, all.
        q: parameters.
        compress: directions kept of each task, or None.
    """
    each = rows_of_a_task(tasks)
    return min(q, len(tasks) * (each if compress is None else min(compress, each)))


def require_buffer(size: int, compress: int | None, tasks: Tasks) -> None:
    """Return nothing; raise unless that many tasks can fill a buffer of that size.

    Args:
        size: of the buffer.
        compress: directions kept of each task, or None.
        tasks: their number, ways and queries decide.

    Raises:
        ValueError: a buffer larger than the rows there are, or a compression below C - 1.
    """
    require_count("size", size)
    each = rows_of_a_task(tasks)
    if compress is not None:
        require_count("compress", compress)
        if compress < tasks.ways - 1:
            raise ValueError(
                f"compress={compress} directions a task are fewer than one query example has, C - 1 = {tasks.ways - 1};"
                f" pass compress={tasks.ways - 1} or more, or None for all {each}."
            )
        each = min(each, compress)
    rows = len(tasks) * each
    if size > rows:
        raise ValueError(
            f"a buffer of {size:,} rows is larger than the {rows:,} rows that {len(tasks):,} tasks give ({each} each); "
            f"pass {rows:,} or fewer."
        )


def warn_of_rank(buffer: Buffer, option: str, size: int) -> None:
    """Return nothing; warn if a buffer holds fewer directions than it was asked for, although as many rows were added.

    Args:
        buffer: filled.
        option: of the caller that asked for the size.
        size: that was asked for.
    """
    rows = buffer.rows
    if len(rows) >= min(size, buffer.added, rows.shape[1]):
        return
    advice = f"Pass a smaller {option}"
    advice = advice if rows.dtype == torch.float64 else f"Use float64, or p{advice[1:]}"
    warn_caller(
        f"{option}={size} rows were asked for, and only {len(rows)} directions of the {buffer.added} rows lie above "
        f"the rounding of {rows.dtype}: the matrix has that rank. {advice}.",
        UserWarning,
    )

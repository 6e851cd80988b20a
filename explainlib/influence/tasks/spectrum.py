"""The curvature of task influence as eigenvalues and eigenvectors, so that any pruning costs one product.

    H^+ g = sum over kept k of u_k (u_k . g) / lambda_k

A Gauss-Newton matrix of few rows has a large null space; its vectors are not materialised. With damping the null space
has the eigenvalue ``damping`` and is inverted too. Eigenvalues are computed in float64; those at the rounding level of
the matrix, or of the rows, are never inverted, for any ``keep``, and a warning is given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.datasets import Tasks
from explainlib.meta.gauss_newton import (
    COLUMNS,
    buffer_size,
    filled_buffer,
    float64_gram,
    gauss_newton_rows,
    require_buffer,
    warn_of_rank,
)
from explainlib.meta.hessian import meta_hessian
from explainlib.meta.learner import Learner
from explainlib.meta.task_map import Processes
from explainlib.solvers.dense import Keep, kept_eigenvalues, rounding_share
from explainlib.solvers.low_rank import gram_floor
from explainlib.storage import Store


@dataclass(frozen=True)
class Spectrum:
    """The eigendecomposition of a symmetric q x q matrix A + damping I.

    Attributes:
        values: eigenvalues of ``vectors``, in ascending order [r].
        vectors: orthonormal columns [q, r]; None is the identity matrix.
        rest: the eigenvalue of the q - r directions that are not in ``vectors``.
        floor: rounding level relative to the largest eigenvalue; None is ``rounding_share`` of q.
        captured: the share of the trace of a Gauss-Newton matrix that is in it; None for others.
    """

    values: Float[Tensor, " r"]
    vectors: Float[Tensor, "q r"] | None
    rest: float
    floor: float | None = None
    captured: float | None = None

    def _all_values(self, q: int) -> tuple[Float[Tensor, " q"], float]:
        """Return all q eigenvalues, the rest first, and the absolute level of rounding."""
        filled = torch.cat([self.values.new_full((q - len(self.values),), self.rest), self.values])
        floor = rounding_share(self.values.dtype, q) if self.floor is None else self.floor
        return filled, floor * float(filled.abs().max())

    def coordinates(self, rows: Float[Tensor, "k q"]) -> Float[Tensor, "k r"]:
        """Return rows in the basis of the eigenvectors."""
        return rows if self.vectors is None else rows @ self.vectors

    def weights(self, keep: Keep, q: int) -> tuple[Float[Tensor, " r"], float]:
        """Return (1/lambda where kept, else 0 [r]; the same for the rest)."""
        if self.vectors is None:
            return torch.ones_like(self.values), 0.0
        null_size = q - len(self.values)
        filled, rounding = self._all_values(q)
        order = filled.argsort(stable=True)
        mask = torch.empty_like(order, dtype=torch.bool)
        mask[order] = kept_eigenvalues(filled[order], keep, floor=rounding / max(float(filled.abs().max()), 1e-300))
        if keep is None and not (filled.abs() > rounding).all():
            raise ValueError(
                "the curvature is singular, so keep=None cannot invert it; pass keep=1e-9 (the pseudo-inverse), "
                "a count, or make TaskInfluence(..., damping=...) with damping > 0."
            )
        inverse = torch.where(mask, 1 / torch.where(mask, filled, 1.0), 0.0)
        invert_rest = null_size > 0 and self.rest > 0 and bool(mask[:null_size].all())
        return inverse[null_size:], (1 / self.rest if invert_rest else 0.0)

    def rank(self, keep: Keep) -> int:
        """Return how many eigenvalues are inverted."""
        q = len(self.values) if self.vectors is None else len(self.vectors)
        weights, rest = self.weights(keep, q)
        return int((weights != 0).sum()) + (q - len(weights) if rest else 0)

    def unmet(self, keep: Keep) -> str | None:
        """Return a warning if ``keep`` selects more than is inverted, else None."""
        if self.vectors is None or keep is None or keep == "positive":
            return None
        q, rank = len(self.vectors), self.rank(keep)
        filled, rounding = self._all_values(q)
        largest = float(filled.abs().max())
        above = f"the {rank} that are inverted lie above rounding, {rounding / max(largest, 1e-300):.1e} of the largest"
        if isinstance(keep, int):
            if rank >= min(keep, q):
                return None
            request = f"keep={keep} eigenvalues were asked for, and only {rank} are inverted: {above}, and above zero."
            return f"{request} Pass keep={rank} or fewer, or a float such as 1e-9."
        below_rounding = int(((filled.abs() > keep * largest) & (filled.abs() <= rounding)).sum())
        undetermined = q - len(self.values) if keep * largest < rounding and self.rest <= rounding else 0
        if not below_rounding and not undetermined:
            return None
        precise = "Pass " if filled.dtype == torch.float64 else "Use float64, or pass "
        return f"keep={keep:g} reaches below what {filled.dtype} determines: {above}. {precise}a larger keep."

    def solve(self, rows: Float[Tensor, "k q"], coordinates: Float[Tensor, "k r"], keep: Keep) -> Float[Tensor, "k q"]:
        """Return H^+ applied to rows, given also in the basis of the eigenvectors."""
        weights, rest = self.weights(keep, rows.shape[1])
        if self.vectors is None:
            return rows
        value = (coordinates * weights) @ self.vectors.T
        return value + rest * (rows - coordinates @ self.vectors.T) if rest else value

    def products(
        self, left: Tensor, left_coordinates: Tensor, right: Tensor, right_coordinates: Tensor, keep: Keep
    ) -> Float[Tensor, "k m"]:
        """Return left^T H^+ right for all rows, both given also in the basis of the eigenvectors."""
        weights, rest = self.weights(keep, left.shape[1])
        value = (left_coordinates * weights) @ right_coordinates.T
        return value + rest * (left @ right.T - left_coordinates @ right_coordinates.T) if rest else value

    def save(self, store: Store) -> None:
        """Write the spectrum to a store."""
        parts = {"values": self.values, "rest": torch.tensor(self.rest, dtype=torch.float64)}
        for name in ("floor", "captured"):
            if (value := getattr(self, name)) is not None:
                parts[name] = torch.tensor(value, dtype=torch.float64)
        store.save("spectrum", parts if self.vectors is None else {**parts, "vectors": self.vectors})

    @staticmethod
    def load(store: Store, device: torch.device | str) -> Spectrum:
        """Return the spectrum of a store."""
        parts = store.load("spectrum", device)
        floor, captured = (float(parts[name]) if name in parts else None for name in ("floor", "captured"))
        return Spectrum(parts["values"], parts.get("vectors"), float(parts["rest"]), floor, captured)


def task_spectrum(
    learner: Learner,
    w: Float[Tensor, " q"],
    tasks: Tasks,
    curvature: str,
    *,
    l2: float,
    damping: float,
    processes: Processes = 1,
    store: Store | None = None,
    buffer: int | None = None,
    compress: int | None = None,
) -> Spectrum:
    """Return the spectrum of H (or G, or the identity) + (l2 + damping) I.

    Args:
        learner: MAML or ProtoNet.
        w: meta-parameters [q].
        tasks: the M training tasks.
        curvature: "hessian", "gauss_newton" or "identity".
        l2: ridge, >= 0.
        damping: >= 0.
        processes: that share the tasks.
        store: saved to and resumed from.
        buffer: rows of the Gauss-Newton buffer; None holds all.
        compress: directions kept of each task; None is all.
    """
    if store is not None and "spectrum" in store:
        return Spectrum.load(store, w.device)
    shift = l2 + damping
    if curvature == "identity":
        spectrum = Spectrum(torch.ones_like(w), None, 0.0)
    elif curvature == "hessian":
        matrix = meta_hessian(learner, w, tasks, l2=shift, processes=processes, store=store)
        # contiguous, as a store gives them back: products of another layout round differently
        spectrum = Spectrum(*(part.to(matrix).contiguous() for part in torch.linalg.eigh(matrix.double())), 0.0)
    else:
        rows, captured = _gauss_newton_rows(learner, w, tasks, processes, store, buffer, compress)
        spectrum = replace(spectrum_of_rows(rows, shift=shift, count=len(tasks)), captured=captured)
    if store is not None:
        spectrum.save(store)
    return spectrum


def _gauss_newton_rows(
    learner: Learner,
    w: Float[Tensor, " q"],
    tasks: Tasks,
    processes: Processes,
    store: Store | None,
    buffer: int | None,
    compress: int | None,
) -> tuple[Float[Tensor, "m q"], float]:
    """Return (rows V with V^T V = M G, or a buffer that approximates them; its share of the trace)."""
    if buffer is None and compress is None and processes == 1:
        return gauss_newton_rows(learner, w, tasks), 1.0
    size = buffer_size(tasks, learner.q, compress) if buffer is None else buffer
    found = filled_buffer(learner, w, tasks, size=size, compress=compress, processes=processes, store=store)
    if buffer is not None:
        warn_of_rank(found, "buffer", buffer)
    return found.rows, found.captured


def spectrum_of_rows(rows: Float[Tensor, "m q"], *, shift: float = 0.0, count: int = 1) -> Spectrum:
    """Return the spectrum of V^T V / count + shift I for rows V, in float64 from the smaller of V V^T and V^T V.

    Directions with an eigenvalue at the rounding level of the rows, below ``gram_floor`` of the largest, belong to
    the rest; ``len(values)`` is the rank.

    Args:
        rows: V.
        shift: ridge and damping, >= 0.
        count: of tasks, if V belongs to their sum.
    """
    m, q = rows.shape
    values, vectors = torch.linalg.eigh(float64_gram(rows.T if q <= m else rows))
    floor = gram_floor(rows.dtype, len(values))
    real = values > floor * values[-1]
    values, vectors = values[real], vectors[:, real]
    if q > m:
        left = vectors / values.sqrt()
        vectors = rows.new_empty(q, left.shape[1])
        for start in range(0, q, COLUMNS):
            vectors[start : start + COLUMNS] = rows[:, start : start + COLUMNS].double().T @ left
    return Spectrum((values / count + shift).to(rows), vectors.to(rows).contiguous(), shift, floor)


def require_sizes(curvature: str, buffer: int | None, compress: int | None, tasks: Tasks) -> dict[str, int | None]:
    """Return buffer and compression if the curvature and the tasks have room for them.

    Args:
        curvature: as of ``task_spectrum``.
        buffer: rows, or None.
        compress: directions of each task, or None.
        tasks: the training tasks.

    Raises:
        ValueError: another curvature, a buffer larger than the rows there are, or a compression below C - 1.
    """
    if curvature != "gauss_newton" and (buffer is not None or compress is not None):
        raise ValueError(
            f"buffer={buffer}, compress={compress} are for the Gauss-Newton matrix, and curvature={curvature!r}; pass "
            "curvature='gauss_newton', or leave them out."
        )
    if buffer is not None or compress is not None:
        require_buffer(1 if buffer is None else buffer, compress, tasks)
    return {"buffer": buffer, "compress": compress}


def require_processes(curvature: str, processes: Processes) -> None:
    """Return nothing; raise where a curvature cannot be spread over a cluster.

    Args:
        curvature: as of ``task_spectrum``.
        processes: a number, an address or a Client.

    Raises:
        ValueError: an address or a Client for another curvature than "gauss_newton".
    """
    if curvature != "gauss_newton" and not isinstance(processes, int):
        raise ValueError(
            f"processes={processes!r}: only Gauss-Newton rows are computed on a cluster, and curvature={curvature!r}; "
            "pass a number of processes, or curvature='gauss_newton'."
        )

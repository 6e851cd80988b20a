"""The curvature behind task influence, as eigenvalues and eigenvectors, so that any pruning is one product away.

    H^+ g = sum over kept k of u_k (u_k . g) / lambda_k

A Gauss-Newton matrix of few rows has a large null space; its vectors are never formed. With damping the null space has
the eigenvalue ``damping`` and takes part in the inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.datasets import Tasks
from explainlib.meta.gauss_newton import gauss_newton_rows
from explainlib.meta.hessian import meta_hessian
from explainlib.meta.learner import Learner
from explainlib.solvers.dense import Keep, kept_eigenvalues
from explainlib.storage import Store


@dataclass(frozen=True)
class Spectrum:
    """A symmetric q x q matrix A + damping I by its eigenvalues.

    Attributes:
        values: of the directions in ``vectors``, upwards [r].
        vectors: orthonormal columns [q, r]; None stands for the identity matrix.
        rest: the eigenvalue of the q - r directions that are not in ``vectors``.
    """

    values: Float[Tensor, " r"]
    vectors: Float[Tensor, "q r"] | None
    rest: float

    def inside(self, rows: Float[Tensor, "k q"]) -> Float[Tensor, "k r"]:
        """Return rows in the eigenvectors' coordinates."""
        return rows if self.vectors is None else rows @ self.vectors

    def weights(self, keep: Keep, q: int) -> tuple[Float[Tensor, " r"], float]:
        """Return (1/lambda where kept, else 0 [r]; the same for the rest)."""
        if self.vectors is None:
            return torch.ones_like(self.values), 0.0
        hidden = q - len(self.values)
        filled = torch.cat([self.values.new_full((hidden,), self.rest), self.values])
        order = filled.argsort(stable=True)
        mask = torch.empty_like(order, dtype=torch.bool)
        mask[order] = kept_eigenvalues(filled[order], keep)
        if keep is None and not (filled.abs() > len(filled) * torch.finfo(filled.dtype).eps * filled.abs().max()).all():
            raise ValueError(
                "the curvature is singular, so keep=None cannot invert it; pass keep=1e-9 (the pseudo-inverse), "
                "a count, or damping > 0."
            )
        inverse = torch.where(mask, 1 / torch.where(mask, filled, 1.0), 0.0)
        whole = hidden > 0 and self.rest > 0 and bool(mask[:hidden].all())
        return inverse[hidden:], (1 / self.rest if whole else 0.0)

    def rank(self, keep: Keep) -> int:
        """Return how many eigenvalues are inverted."""
        q = len(self.values) if self.vectors is None else len(self.vectors)
        weights, rest = self.weights(keep, q)
        return int((weights != 0).sum()) + (q - len(weights) if rest else 0)

    def solved(self, rows: Float[Tensor, "k q"], inside: Float[Tensor, "k r"], keep: Keep) -> Float[Tensor, "k q"]:
        """Return H^+ applied to rows, given also in the eigenvectors' coordinates."""
        weights, rest = self.weights(keep, rows.shape[1])
        if self.vectors is None:
            return rows
        value = (inside * weights) @ self.vectors.T
        return value + rest * (rows - inside @ self.vectors.T) if rest else value

    def products(
        self, left: Tensor, left_inside: Tensor, right: Tensor, right_inside: Tensor, keep: Keep
    ) -> Float[Tensor, "k m"]:
        """Return left^T H^+ right for all rows, both given also in the eigenvectors' coordinates."""
        weights, rest = self.weights(keep, left.shape[1])
        value = (left_inside * weights) @ right_inside.T
        return value + rest * (left @ right.T - left_inside @ right_inside.T) if rest else value

    def saved(self, store: Store) -> None:
        """Write the spectrum to a store."""
        parts = {"values": self.values, "rest": torch.tensor(self.rest, dtype=torch.float64)}
        store.save("spectrum", parts if self.vectors is None else {**parts, "vectors": self.vectors})

    @staticmethod
    def loaded(store: Store, device: torch.device | str) -> Spectrum:
        """Return the spectrum of a store."""
        parts = store.load("spectrum", device)
        return Spectrum(parts["values"], parts.get("vectors"), float(parts["rest"]))


def task_spectrum(
    learner: Learner,
    w: Float[Tensor, " q"],
    tasks: Tasks,
    curvature: str,
    *,
    l2: float,
    damping: float,
    processes: int = 1,
    store: Store | None = None,
) -> Spectrum:
    """Return the spectrum of H (or G, or the identity) + (l2 + damping) I.

    Args:
        learner: whose objective it is.
        w: where.
        tasks: the M training tasks.
        curvature: "hessian", "gauss_newton" or "identity".
        l2: ridge, >= 0.
        damping: >= 0.
        processes: for the Hessian.
        store: resumes from it and fills it.
    """
    if store is not None and "spectrum" in store:
        return Spectrum.loaded(store, w.device)
    shift = l2 + damping
    if curvature == "identity":
        spectrum = Spectrum(torch.ones_like(w), None, 0.0)
    elif curvature == "hessian":
        matrix = meta_hessian(learner, w, tasks, l2=shift, processes=processes, store=store)
        spectrum = Spectrum(*torch.linalg.eigh(matrix), 0.0)
    else:
        spectrum = spectrum_of_rows(gauss_newton_rows(learner, w, tasks) / len(tasks) ** 0.5, shift=shift)
    if store is not None:
        spectrum.saved(store)
    return spectrum


def spectrum_of_rows(rows: Float[Tensor, "m q"], *, shift: float = 0.0) -> Spectrum:
    """Return the spectrum of V^T V + shift I for rows V; the smaller of V V^T and V^T V is taken apart."""
    m, q = rows.shape
    values, vectors = torch.linalg.eigh(rows.T @ rows if q <= m else rows @ rows.T)
    real = values > values[-1] * max(m, q) * torch.finfo(rows.dtype).eps
    if q > m:
        vectors = rows.T @ (vectors / torch.where(real, values, 1.0).sqrt())
    return Spectrum(values[real] + shift, vectors[:, real], shift)

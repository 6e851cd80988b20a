r"""EK-FAC: the Gauss-Newton matrix (for classes, the Fisher matrix) by layers, each diagonal in a Kronecker basis.

    G ~ blockdiag( Q_l diag(Lambda_l) Q_l^T ) + l2 I,      Q_l = U_S (x) U_A of layer l.

Its inverse is a rotation, a division and a rotation back. Two approximations: layers are independent, and within a
layer the eigenvectors are those of a Kronecker product. Where a block is a Kronecker product (one example; or inputs
independent of output gradients, as in linear least squares) it is exact.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from explainlib import compute
from explainlib.checks import require_choice, require_nonnegative, warn_caller
from explainlib.curvature.blocks import Fit, KroneckerFit, block_fits
from explainlib.curvature.gauss_newton import loss_roots
from explainlib.curvature.kronecker import COVERAGE, Block, UncoveredError, verb
from explainlib.layerwise.gradient_matrix import checked_plan
from explainlib.layerwise.recording import LayerCall, forward_pass
from explainlib.memory import memory_limit, require_memory, slices
from explainlib.progress import tqdm
from explainlib.risk import Risk, risk_fingerprint
from explainlib.storage import Store

LABELS = ("exact", "sampled", "data")
EXACT_UP_TO = 16  # backward passes an example; above, labels are sampled
PASS = 128  # most examples in one forward and backward pass
COPIES = 4  # bytes of work per byte of a layer's inputs and gradients by position
PASS_BYTES = 4  # bytes that a pass needs per byte that it records
STAGES = ("factors", "eigenvalues")
KEPT_EVERY = 30.0  # seconds between two states of a fit in its store


class UncoveredWarning(UserWarning):
    """Parameters that EK-FAC leaves out."""


class Ekfac:
    """The eigenvalue-corrected Kronecker approximation of a risk's Gauss-Newton matrix, ridge included.

    Args:
        risk: at any theta. Linear, Conv1d, Conv2d, Embedding, MultiheadAttention and normalisation layers have blocks
            (``curvature.blocks`` has their form).
        labels: for the output gradients that are squared. "exact" is the loss's Hessian in the outputs (for classes:
            the expectation over labels of the model), C - 1 backward passes for C classes; "sampled" draws one label an
            example from the model; "data" takes the labels of the data, which gives the empirical Fisher, another
            matrix. None is "exact" up to 16 passes, "sampled" above.
        seed: of sampled labels.
        memory: bytes of working memory; None is a quarter of free memory.
        uncovered: of parameters without a block (bare parameters, recurrent layers, shared weights): "raise", or "warn"
            to leave them out, once with a warning, as if they were not chosen: products have zeros there.
        store: a folder for the fit: read if it is there, and an interrupted one goes on, to the same bits; another
            computation is refused.

    Attributes:
        blocks: one for each layer (for each group of a grouped convolution).
        labels: the choice used.
        l2: the ridge, which is added to every eigenvalue.
        left_out: the names of the parameters without a block.

    Raises:
        UncoveredError: nothing that has a block, or with "raise" a parameter without one.
        ValueError: negative example weights, (exact, sampled) a loss that is not convex in the outputs, or a store of
            another computation.

    Source: George et al. 2018; Grosse et al. 2023. Convolutions as in Grosse & Martens 2016:
    positions count as independent in A and S, but not in Lambda. Deviation: "exact" samples no labels.

    Example: one linear output, x = 1 and 3: its block is the Hessian 2 mean(x^2), exactly.

        >>> from explainlib.datasets import Examples
        >>> train = Examples(torch.tensor([[1.0], [3.0]]).double(), torch.zeros(2, 1).double())
        >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
        >>> round(Ekfac(Risk(model, train, loss="squared_error", l2=0.5)).matrix().item(), 9)
        10.5
    """

    def __init__(
        self,
        risk: Risk,
        *,
        labels: str | None = None,
        seed: int = 0,
        memory: int | float | None = None,
        uncovered: str = "raise",
        store: str | Path | None = None,
    ) -> None:
        require_choice("labels", labels, (*LABELS, None))
        require_choice("uncovered", uncovered, ("raise", "warn"))
        few = risk.n_outputs - risk.loss.lost_ranks <= EXACT_UP_TO
        self.labels = ("exact" if few else "sampled") if labels is None else labels
        if risk.weights is not None and (risk.weights < 0).any():
            raise ValueError(
                "a negative weight has no square root, so EK-FAC has no factors; take influence with "
                "loss_influence(..., curvature='gauss_newton')."
            )
        self.p, self.l2, self._like = risk.p, risk.l2, risk.theta
        with compute.settings(risk.n * risk.p):
            plan = checked_plan(risk.parameters, risk.theta, risk.train.x, warn=False)
            fits, self.left_out = block_fits(plan, risk.n, float(risk.weights_or_ones().sum()), risk.theta)
            self._require_coverage(risk, uncovered)
            recorded = [module for module in plan.layers if any(_holds(fit, module) for fit in fits)]
            kept = None if store is None else _fit_store(store, risk, self.labels, seed)
            cotangents, limit = _Cotangents(risk, self.labels, seed), memory_limit(memory, risk.theta.device)
            _fit(risk, fits, recorded, cotangents, limit, kept, repeated=plan.repeated)
        self.blocks: tuple[Block, ...] = tuple(block for fit in fits for block in fit.blocks())

    def _require_coverage(self, risk: Risk, uncovered: str) -> None:
        """Raise or warn, once a model, where parameters have no block."""
        if self.left_out and uncovered == "raise":
            covered = [name for name in risk.parameters.names if name not in self.left_out]
            raise UncoveredError(list(self.left_out), covered, otherwise="leave them out with Ekfac(uncovered='warn')")
        if self.left_out:
            warn_caller(
                f"{COVERAGE}; {', '.join(self.left_out)} {verb(self.left_out)} left out, as if not trained.",
                UncoveredWarning,
            )

    def product(self, rows: Float[Tensor, "k p"]) -> Float[Tensor, "k p"]:
        """Return the approximation times rows, ridge included."""
        return self._apply_in_eigenbasis(rows, lambda rotated, values: rotated * (values + self.l2))

    def inverse_product(self, rows: Float[Tensor, "k p"], *, damping: int | float = 0.0) -> Float[Tensor, "k p"]:
        """Return (approximation + damping I)^-1 rows; infinite where an eigenvalue, l2 and damping are all zero."""
        shift = self.l2 + require_nonnegative("damping", damping)
        return self._apply_in_eigenbasis(rows, lambda rotated, values: rotated / (values + shift))

    def covered(self, rows: Float[Tensor, "k p"]) -> Float[Tensor, "k p"]:
        """Return rows with zeros for the parameters that are left out."""
        return self._apply_in_eigenbasis(rows, lambda rotated, values: rotated) if self.left_out else rows

    def matrix(self) -> Float[Tensor, "p p"]:
        """Return the approximation as a dense matrix [p, p], ridge included; for small networks."""
        size = 3 * self.p**2 * self._like.element_size()
        otherwise = "product and inverse_product take rows"
        require_memory(f"EK-FAC of p = {self.p:,} parameters as a matrix", size, self._like.device, otherwise=otherwise)
        return self.product(torch.eye(self.p, dtype=self._like.dtype, device=self._like.device))

    @property
    def eigenvalues(self) -> Float[Tensor, " c"]:
        """All eigenvalues, ridge included, block by block; without those left out."""
        return torch.cat([block.values.flatten() for block in self.blocks]) + self.l2

    def _apply_in_eigenbasis(self, rows: Tensor, change) -> Tensor:
        out = torch.zeros_like(rows) if self.left_out else torch.empty_like(rows)
        for block in self.blocks:
            out[:, block.flat_positions] = block.apply_in_eigenbasis(rows, change)
        return out


def _fit_store(folder: str | Path, risk: Risk, labels: str, seed: int) -> Store:
    """Return the store of a fit; the seed counts where labels are drawn."""
    options = {"computed": "EK-FAC", "labels": labels, "seed": seed if labels == "sampled" else None}
    sources = {"theta": risk.theta, "weights": risk.weights_or_ones()}
    return Store(folder, risk_fingerprint(risk, risk.theta, sources, options))


def _holds(fit: Fit, module: nn.Module) -> bool:
    """Return whether a fit is of a layer."""
    if isinstance(fit, KroneckerFit):
        return fit.layer.module is module
    return any(site is module for p in getattr(fit, "parameters", None) or [fit.parameter] for site, _ in p.sites)


def _fit(
    risk: Risk,
    fits: Sequence[Fit],
    layers: list[nn.Module],
    cotangents: _Cotangents,
    memory: int,
    store: Store | None,
    *,
    repeated: Sequence[nn.Module],
) -> None:
    """Fill the fits by two passes over the data: one for the factors, one for the eigenvalues."""

    def calls(part: slice) -> list[LayerCall]:
        x = risk.train.x[part]
        forward = forward_pass(risk.parameters, risk.theta, x, layers, repeated=repeated)
        return forward.backward(cotangents.of(part, forward.outputs.detach()))

    stage, done, size = _restored(store, fits, risk.theta)
    if size == 0:
        first = calls(slice(0, 1))
        recorded = sum(call.input.nbytes + call.gradient.nbytes for call in first)
        one = PASS_BYTES * recorded + COPIES * max(fit.row_bytes(first) for fit in fits)
        size = max(1, min(PASS, memory // one))
    for number, name in list(enumerate(STAGES))[stage:]:
        parts = [part for part in slices(risk.n, size) if part.start >= done]
        last = time.monotonic()
        for part in tqdm(parts, desc=f"EK-FAC {name}", delay=2.0, leave=False):
            found, weights = calls(part), None if risk.weights is None else risk.weights[part]
            for fit in fits:
                fit.add_factors(found, weights) if name == "factors" else fit.add_eigenvalues(found)
            if store is not None and time.monotonic() - last > KEPT_EVERY:
                _keep(store, fits, number, part.stop, size)
                last = time.monotonic()
        done = 0
        if name == "factors":
            for fit in fits:
                fit.diagonalise()
        if store is not None:
            _keep(store, fits, number + 1, 0, size)


def _keep(store: Store, fits: Sequence[Fit], stage: int, done: int, size: int) -> None:
    """Replace what is stored by the sums so far: the stage, the examples done in it, and those of one pass."""
    sums = {f"{k}.{name}": tensor for k, fit in enumerate(fits) for name, tensor in fit.tensors().items()}
    store.save("fit", {"state": torch.tensor([stage, done, size]), **sums})


def _restored(store: Store | None, fits: Sequence[Fit], like: Tensor) -> tuple[int, int, int]:
    """Fill the fits from the store; return the stage, the examples done in it, and those of one pass; zeros if new."""
    if store is None or "fit" not in store:
        return 0, 0, 0
    found = store.load("fit", like.device)
    for k, fit in enumerate(fits):
        fit.restore({name.removeprefix(f"{k}."): t for name, t in found.items() if name.startswith(f"{k}.")})
    stage, done, size = found["state"].tolist()
    return stage, done, size


class _Cotangents:
    """c [e, k, C] of parts of the training set: sum_k c c^T is the loss's Hessian in the outputs, or an estimate.

    Labels are drawn by one number in [0, 1) each, from the seed, so that both passes have the same.
    """

    def __init__(self, risk: Risk, labels: str, seed: int) -> None:
        self.loss, self.labels, self.y = risk.loss, labels, risk.train.y
        self.roots = None if risk.weights is None else risk.weights.sqrt()
        generator = torch.Generator().manual_seed(seed)
        if labels == "sampled" and hasattr(risk.loss, "drawn"):
            self.uniform = torch.rand(self.y.shape, generator=generator, dtype=torch.float64)
        elif labels == "sampled":
            shape = (risk.n, risk.n_outputs)
            self.noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(risk.theta)

    def of(self, part: slice, outputs: Float[Tensor, "e C"]) -> Float[Tensor, "e k C"]:
        """Return the cotangents of some examples with these outputs."""
        y = self.y[part]
        if self.labels == "sampled" and hasattr(self.loss, "drawn"):
            y = self.loss.drawn(outputs, y, self.uniform[part].to(outputs.device))
        if self.labels == "data" or (self.labels == "sampled" and hasattr(self.loss, "drawn")):
            found = self.loss.gradient(outputs, y)[:, None]
        else:
            # sum_r c_r c_r^T = d^2 l / d outputs^2
            found = loss_roots(self.loss, outputs, y, otherwise="pass xl.curvature.Ekfac(risk, labels='data')")
            if self.labels == "sampled":  # gradient of a Gaussian log-likelihood: (f - y) / sigma^2
                found = self.noise[part, None, : found.shape[1]] @ found
        return found if self.roots is None else found * self.roots[part, None, None]

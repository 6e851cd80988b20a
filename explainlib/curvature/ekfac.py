r"""EK-FAC: the Gauss-Newton matrix (for classes, the Fisher matrix) by layers, each diagonal in a Kronecker basis.

    G ~ blockdiag( Q_l diag(Lambda_l) Q_l^T ) + l2 I,      Q_l = U_S (x) U_A of layer l.

Its inverse is a rotation, a division and a rotation back. Two approximations: layers are independent, and within a
layer the eigenvectors are those of a Kronecker product. Where a block is a Kronecker product (one example; or inputs
independent of output gradients, as in linear least squares) it is exact.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_nonnegative
from explainlib.curvature.gauss_newton import loss_roots
from explainlib.curvature.kronecker import Block, Positions, covered_layers, squares_in_basis
from explainlib.layerwise.gradient_matrix import checked_plan
from explainlib.layerwise.recording import layer_calls
from explainlib.losses import CROSS_ENTROPY
from explainlib.memory import memory_limit, require_memory, slices
from explainlib.progress import tqdm
from explainlib.risk import Risk

LABELS = ("exact", "sampled", "data")
EXACT_UP_TO = 16  # backward passes an example; above, labels are sampled
PASS = 128  # most examples in one forward and backward pass
COPIES = 4  # bytes of work per byte of a layer's inputs and gradients by position


class Ekfac:
    """The eigenvalue-corrected Kronecker approximation of a risk's Gauss-Newton matrix, ridge included.

    Args:
        risk: at any theta; every chosen parameter belongs to a Linear, Conv1d or Conv2d layer.
        labels: for the output gradients that are squared. "exact" is the loss's Hessian in the outputs (for classes:
            the expectation over labels of the model), C - 1 backward passes for C classes; "sampled" draws one label an
            example from the model; "data" takes the labels of the data, which gives the empirical Fisher, another
            matrix. None is "exact" up to 16 passes, "sampled" above.
        seed: of sampled labels.
        memory: bytes of working memory; None is a quarter of free memory.

    Attributes:
        blocks: one for each layer (for each group of a grouped convolution).
        labels: the choice used.
        l2: the ridge, which is added to every eigenvalue.

    Raises:
        UncoveredError: other layers, a shared weight.
        ValueError: negative example weights, or (exact, sampled) a loss that is not
            convex in the outputs.

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
        self, risk: Risk, *, labels: str | None = None, seed: int = 0, memory: int | float | None = None
    ) -> None:
        require_choice("labels", labels, (*LABELS, None))
        few = risk.n_outputs - risk.loss.lost_ranks <= EXACT_UP_TO
        self.labels = ("exact" if few else "sampled") if labels is None else labels
        if risk.weights is not None and (risk.weights < 0).any():
            raise ValueError(
                "a negative weight has no square root, so EK-FAC has no factors; take influence with "
                "loss_influence(..., curvature='gauss_newton')."
            )
        self.p, self.l2, self._like = risk.p, risk.l2, risk.theta
        with compute.settings(risk.n * risk.p):
            plan = checked_plan(risk.parameters, risk.theta, risk.train.x)
            self._layers = covered_layers(plan, risk.parameters.names, risk.parameters.sizes)
            self._cotangents = _Cotangents(risk, self.labels, seed)
            self.blocks: tuple[Block, ...] = self._fit(risk, memory_limit(memory, risk.theta.device))
        del self._cotangents  # it holds the training set's outputs

    def product(self, rows: Float[Tensor, "k p"]) -> Float[Tensor, "k p"]:
        """Return the approximation times rows, ridge included."""
        return self._apply_in_eigenbasis(rows, lambda rotated, values: rotated * (values + self.l2))

    def inverse_product(self, rows: Float[Tensor, "k p"], *, damping: int | float = 0.0) -> Float[Tensor, "k p"]:
        """Return (approximation + damping I)^-1 rows; infinite where an eigenvalue, l2 and damping are all zero."""
        shift = self.l2 + require_nonnegative("damping", damping)
        return self._apply_in_eigenbasis(rows, lambda rotated, values: rotated / (values + shift))

    def matrix(self) -> Float[Tensor, "p p"]:
        """Return the approximation as a dense matrix [p, p], ridge included; for small networks."""
        size = 3 * self.p**2 * self._like.element_size()
        otherwise = "product and inverse_product take rows"
        require_memory(f"EK-FAC of p = {self.p:,} parameters as a matrix", size, self._like.device, otherwise=otherwise)
        return self.product(torch.eye(self.p, dtype=self._like.dtype, device=self._like.device))

    @property
    def eigenvalues(self) -> Float[Tensor, " p"]:
        """All eigenvalues, ridge included, block by block."""
        return torch.cat([block.values.flatten() for block in self.blocks]) + self.l2

    def _apply_in_eigenbasis(self, rows: Tensor, change) -> Tensor:
        out = torch.empty_like(rows)
        for block in self.blocks:
            out[:, block.flat_positions] = block.apply_in_eigenbasis(rows, change)
        return out

    def _fit(self, risk: Risk, memory: int) -> tuple[Block, ...]:
        """Return the blocks after two passes over the data: one for the factors, one for the eigenvalues."""
        size = self._pass_size(risk, memory)
        weights, spaces = risk.weights_or_ones(), [place for layer in self._layers for place in layer.flat_positions]
        A = [risk.theta.new_zeros(place.shape[1], place.shape[1]) for place in spaces]
        S = [risk.theta.new_zeros(place.shape[0], place.shape[0]) for place in spaces]
        values = [risk.theta.new_zeros(place.shape) for place in spaces]
        for part, positions in self._passes(risk, size, "EK-FAC factors"):
            for at, (a, g) in enumerate(positions):
                seen = a if risk.weights is None else a * weights[part, None, None].sqrt()
                A[at].addmm_(seen.flatten(0, 1).T, seen.flatten(0, 1), alpha=1 / float(a.shape[1] * weights.sum()))
                S[at].addmm_(g.flatten(0, 2).T, g.flatten(0, 2), alpha=1 / risk.n)
        sides = [(*torch.linalg.eigh(a), *torch.linalg.eigh(s)) for a, s in zip(A, S, strict=True)]
        for _, positions in self._passes(risk, size, "EK-FAC eigenvalues"):
            for (a, g), total, (_, inputs, _, outputs) in zip(positions, values, sides, strict=True):
                total += squares_in_basis(a, g, inputs, outputs) / risk.n
        return tuple(
            Block(place, inputs, outputs, along_s[:, None] * along_a, total)
            for place, total, (along_a, inputs, along_s, outputs) in zip(spaces, values, sides, strict=True)
        )

    def _passes(self, risk: Risk, size: int, name: str) -> Iterator[tuple[slice, list[Positions]]]:
        """Yield parts of the training set with every block's inputs and output gradients."""
        for part in tqdm(slices(risk.n, size), desc=name, delay=2.0, leave=False):
            yield part, self._read(risk, part)

    def _read(self, risk: Risk, part: slice) -> list[Positions]:
        modules = [layer.module for layer in self._layers]
        calls = layer_calls(risk.parameters, risk.theta, risk.train.x[part], self._cotangents[part], modules)
        return [positions for layer in self._layers for positions in layer.positions(calls)]

    def _pass_size(self, risk: Risk, memory: int) -> int:
        """Return the examples whose layers fit into the memory."""
        one = sum(a.nbytes + g.nbytes for a, g in self._read(risk, slice(0, 1)))
        return max(1, min(PASS, memory // (COPIES * one)))


class _Cotangents:
    """c [e, k, C] for parts of the training set: sum_k c c^T is the loss's Hessian in the outputs, or an estimate."""

    def __init__(self, risk: Risk, labels: str, seed: int) -> None:
        self.loss, self.labels = risk.loss, labels
        self.outputs, self.y = risk.outputs(), risk.train.y
        self.roots = None if risk.weights is None else risk.weights.sqrt()
        generator = torch.Generator().manual_seed(seed)
        if labels == "sampled" and risk.loss is CROSS_ENTROPY:
            probabilities = self.outputs.softmax(1).cpu()
            self.y = torch.multinomial(probabilities, 1, generator=generator)[:, 0].to(self.outputs.device)
        elif labels == "sampled":
            self.noise = torch.randn(self.outputs.shape, generator=generator, dtype=torch.float64).to(self.outputs)

    def __getitem__(self, part: slice) -> Float[Tensor, "e k C"]:
        outputs, y = self.outputs[part], self.y[part]
        if self.labels == "data" or (self.labels == "sampled" and self.loss is CROSS_ENTROPY):
            found = self.loss.gradient(outputs, y)[:, None]
        else:
            # sum_r c_r c_r^T = d^2 l / d outputs^2
            found = loss_roots(self.loss, outputs, y, otherwise="pass xl.curvature.Ekfac(risk, labels='data')")
            if self.labels == "sampled":  # gradient of a Gaussian log-likelihood: (f - y) / sigma^2
                found = self.noise[part, None, : found.shape[1]] @ found
        return found if self.roots is None else found * self.roots[part, None, None]

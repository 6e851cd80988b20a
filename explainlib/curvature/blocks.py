r"""Fits of EK-FAC's blocks: sums over passes, first for the eigenvectors, then for the eigenvalues.

    Linear, convolution   Kronecker factors A and S, then Lambda in their eigenbasis; see ``kronecker``
    attention             each of its four projections as a Linear layer
    Embedding             A is diagonal, because one-hot inputs share no token: the basis is U_S alone, a token a column
    normalisation         E[g g^T] of scale and bias itself, its eigenvectors and eigenvalues: exact; of more than
                          2,048 parameters the diagonal

Each takes cotangents c with sum_r c_r c_r^T = the loss's Hessian in the outputs, times an example's weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from explainlib.curvature.kronecker import Block, Layer, UncoveredError, kronecker_layers, squares_in_basis
from explainlib.layerwise.blocks import affine_gradients, embedding_block
from explainlib.layerwise.recording import EMBEDDING, LayerCall, ParameterPlan, Plan

DENSE_UP_TO = 2048  # parameters of a normalisation layer whose block is a matrix
Weights = Float[Tensor, " e"] | None


class KroneckerFit:
    """The blocks of a Linear or convolution layer, one for each group of channels.

    Args:
        layer: with the positions of its parameters.
        n: examples of all passes.
        total: the sum of their weights.
        like: gives dtype and device.
    """

    def __init__(self, layer: Layer, n: int, total: float, like: Tensor) -> None:
        self.layer, self.n, self.total = layer, n, total
        shapes = [place.shape for place in layer.flat_positions]
        self.A = [like.new_zeros(d, d) for _, d in shapes]
        self.S = [like.new_zeros(o, o) for o, _ in shapes]
        self.values = [like.new_zeros(shape) for shape in shapes]

    def tensors(self) -> dict[str, Tensor]:
        """Return what was summed so far, and the eigenvectors once they are taken."""
        found = {f"values.{k}": value for k, value in enumerate(self.values)}
        if hasattr(self, "sides"):
            return found | {
                f"sides.{k}.{i}": _transposed(t) for k, side in enumerate(self.sides) for i, t in enumerate(side)
            }
        return found | {f"{name}.{k}": t for name in "AS" for k, t in enumerate(getattr(self, name))}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take what ``tensors`` returned."""
        groups = range(len(self.values))
        self.values = [tensors[f"values.{k}"] for k in groups]
        if "sides.0.0" in tensors:
            # eigenvectors as eigh gives them, by columns: products round by the order in memory
            self.sides = [tuple(_transposed(tensors[f"sides.{k}.{i}"]) for i in range(4)) for k in groups]
            del self.A, self.S
        else:
            self.A, self.S = ([tensors[f"{name}.{k}"] for k in groups] for name in "AS")

    def row_bytes(self, calls: list[LayerCall]) -> int:
        """Return the bytes of inputs and output gradients by position of the examples in the calls."""
        return sum(a.nbytes + g.nbytes for a, g in self.layer.positions(calls))

    def add_factors(self, calls: list[LayerCall], weights: Weights) -> None:
        """Add some examples to A and S."""
        for at, (a, g) in enumerate(self.layer.positions(calls)):
            seen = a if weights is None else a * weights[:, None, None].sqrt()
            self.A[at].addmm_(seen.flatten(0, 1).T, seen.flatten(0, 1), alpha=1 / float(a.shape[1] * self.total))
            self.S[at].addmm_(g.flatten(0, 2).T, g.flatten(0, 2), alpha=1 / self.n)

    def diagonalise(self) -> None:
        """Take the eigenvectors; the factors are freed."""
        self.sides = [
            (*torch.linalg.eigh(a), *torch.linalg.eigh(s)) for a, s in zip(self.A, self.S, strict=True)
        ]  # fmt: skip
        del self.A, self.S

    def add_eigenvalues(self, calls: list[LayerCall]) -> None:
        """Add some examples to Lambda."""
        for (a, g), total, (_, inputs, _, outputs) in zip(
            self.layer.positions(calls), self.values, self.sides, strict=True
        ):
            total += squares_in_basis(a, g, inputs, outputs) / self.n

    def blocks(self) -> list[Block]:
        """Return the fitted blocks."""
        return [
            Block(place, inputs, outputs, along_s[:, None] * along_a, total)
            for place, total, (along_a, inputs, along_s, outputs) in zip(
                self.layer.flat_positions, self.values, self.sides, strict=True
            )
        ]


class EmbeddingFit:
    """The block of an embedding table, a token a column.

    Args:
        parameter: the table.
        n: examples of all passes.
        total: the sum of their weights.
        like: gives dtype and device.
    """

    def __init__(self, parameter: ParameterPlan, n: int, total: float, like: Tensor) -> None:
        self.parameter, self.n, self.total = parameter, n, total
        ((self.module, _),) = parameter.sites
        tokens, width = self.module.weight.shape
        span = torch.arange(parameter.span.start, parameter.span.stop, device=like.device)
        self.positions = span.view(tokens, width).T
        self.counts, self.values = like.new_zeros(tokens), like.new_zeros(width, tokens)
        self.S = like.new_zeros(width, width)

    def tensors(self) -> dict[str, Tensor]:
        """Return what was summed so far, and the eigenvectors once they are taken."""
        found = {"counts": self.counts, "values": self.values}
        return found | ({"S": self.S} if hasattr(self, "S") else {"along_s": self.along_s, "turned": self.outputs.T})

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take what ``tensors`` returned."""
        self.counts, self.values = tensors["counts"], tensors["values"]
        if "S" in tensors:
            self.S = tensors["S"]
        else:
            self.along_s, self.outputs = tensors["along_s"], tensors["turned"].T
            del self.S

    def row_bytes(self, calls: list[LayerCall]) -> int:
        """Return the bytes of tokens and output gradients of the examples in the calls."""
        return sum(call.input.nbytes + call.gradient.nbytes for call in self._own(calls))

    def add_factors(self, calls: list[LayerCall], weights: Weights) -> None:
        """Add some examples to the counts of tokens and to S."""
        own = self._own(calls)
        block = embedding_block(self.parameter, own, own[0].gradient.shape[1])
        g = block.g.flatten(0, 1)
        self.S.addmm_(g.T, g, alpha=1 / self.n)
        share = g.new_ones(len(block.ids)) if weights is None else weights
        each = (share / (block.ids.shape[1] * self.total))[:, None].expand(block.ids.shape)
        self.counts.index_add_(0, block.ids.flatten(), each.flatten())

    def diagonalise(self) -> None:
        """Take the eigenvectors."""
        self.along_s, self.outputs = torch.linalg.eigh(self.S)
        del self.S

    def add_eigenvalues(self, calls: list[LayerCall]) -> None:
        """Add some examples to Lambda: the squares of each token's gradient, turned."""
        own = self._own(calls)
        token, _, gradient = embedding_block(self.parameter, own, own[0].gradient.shape[1]).table_rows()
        self.values.index_add_(1, token, (gradient @ self.outputs).square().T / self.n)

    def blocks(self) -> list[Block]:
        """Return the fitted block."""
        return [Block(self.positions, None, self.outputs, self.along_s[:, None] * self.counts, self.values)]

    def _own(self, calls: list[LayerCall]) -> list[LayerCall]:
        return [call for call in calls if call.layer is self.module]


class NormFit:
    """The block of scale and bias of a normalisation layer.

    Args:
        parameters: of the layer.
        n: examples of all passes.
        like: gives dtype and device.
    """

    def __init__(self, parameters: Sequence[ParameterPlan], n: int, like: Tensor) -> None:
        self.parameters, self.n = parameters, n
        spans = [torch.arange(p.span.start, p.span.stop, device=like.device) for p in parameters]
        self.positions = torch.cat(spans)[:, None]
        size = len(self.positions)
        self.dense = size <= DENSE_UP_TO
        self.outputs, self.sum = None, like.new_zeros(size, size if self.dense else 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return what was summed so far, and the eigenvectors once they are taken."""
        return {"sum": self.sum} if self.outputs is None else {"sum": self.sum, "turned": self.outputs.T}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take what ``tensors`` returned."""
        self.sum = tensors["sum"]
        if "turned" in tensors:
            self.outputs = tensors["turned"].T

    def row_bytes(self, calls: list[LayerCall]) -> int:
        """Return the bytes of the gradients of the examples in the calls."""
        return self._rows(calls).nbytes

    def add_factors(self, calls: list[LayerCall], weights: Weights) -> None:
        """Add some examples to E[g g^T], or to its diagonal."""
        rows = self._rows(calls)
        self.sum += (rows.T @ rows if self.dense else rows.square().sum(0)[:, None]) / self.n

    def diagonalise(self) -> None:
        """Take eigenvectors and eigenvalues."""
        if self.dense:
            values, self.outputs = torch.linalg.eigh(self.sum)
            self.sum = values.clamp(min=0)[:, None]

    def add_eigenvalues(self, calls: list[LayerCall]) -> None:
        """Nothing: the block is diagonal in its own eigenbasis."""

    def blocks(self) -> list[Block]:
        """Return the fitted block."""
        return [Block(self.positions, None, self.outputs, self.sum, self.sum)]

    def _rows(self, calls: list[LayerCall]) -> Tensor:
        parts = []
        for parameter in self.parameters:
            ((module, attribute),) = parameter.sites
            parts.append(sum(affine_gradients(call, attribute) for call in calls if call.layer is module))
        return torch.cat(parts, dim=1)


def _transposed(tensor: Tensor) -> Tensor:
    """Return a matrix transposed, a vector as it is."""
    return tensor.T if tensor.ndim == 2 else tensor


Fit = KroneckerFit | EmbeddingFit | NormFit


def block_fits(plan: Plan, n: int, total: float, like: Tensor) -> tuple[list[Fit], tuple[str, ...]]:
    """Return a fit for each covered layer, and the names of the parameters that none covers.

    Args:
        plan: how gradients are recorded.
        n: examples of all passes.
        total: the sum of their weights.
        like: gives dtype and device.

    Raises:
        UncoveredError: nothing is covered.
    """
    alone = [parameter for parameter in plan.recorded if len(parameter.sites) == 1]
    shared = [parameter.name for parameter in plan.recorded if len(parameter.sites) > 1]
    outside = (*plan.fallback, *shared)
    if not alone:
        raise UncoveredError(list(outside), [])
    fits: list[Fit] = [KroneckerFit(layer, n, total, like) for layer in kronecker_layers(alone)]
    fits += [EmbeddingFit(parameter, n, total, like) for parameter in alone if parameter.kind == EMBEDDING]
    norms: dict[int, list[ParameterPlan]] = {}
    for parameter in alone:
        ((module, _),) = parameter.sites
        if parameter.kind != EMBEDDING and not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            norms.setdefault(id(module), []).append(parameter)
    return fits + [NormFit(parameters, n, like) for parameters in norms.values()], outside

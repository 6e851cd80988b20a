"""Materialised gradients: of biases, of normalisation layers, and of the parameters that fall back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.layerwise.outer_products import add_gram, symmetrised


@dataclass(frozen=True)
class DenseBlock:
    """The gradients of one or several parameters, one row an example.

    Args:
        spans: the slice of the flat vector of each parameter, side by side.
        values: [n, their sizes together].
    """

    spans: tuple[slice, ...]
    values: Float[Tensor, "n c"]

    @property
    def n(self) -> int:
        """The number of gradients."""
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """The bytes of the tensors."""
        return self.values.nbytes

    @property
    def working_bytes(self) -> int:
        """The bytes of temporary numbers that one row takes in a product."""
        return self.values.shape[1] * self.values.element_size()

    def part(self, rows: slice) -> DenseBlock:
        """Return some of the rows, as views."""
        return DenseBlock(self.spans, self.values[rows])

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors that hold the gradients."""
        return (self.values,)

    def with_tensors(self, tensors: Sequence[Tensor]) -> DenseBlock:
        """Return the same with other tensors in the order of ``tensors``."""
        return DenseBlock(self.spans, *tensors)

    def gram(self, other: DenseBlock, *, memory: int) -> Float[Tensor, "n m"]:
        """Return all inner products."""
        out = self.values.new_zeros(self.n, other.n)
        add_gram(out, self.values, other.values)
        return symmetrised(out) if other.values is self.values else out

    def squared_norms(self, *, memory: int) -> Float[Tensor, " n"]:
        """Return the squared lengths."""
        return self.values.square().sum(1)

    def product(self, vectors: Float[Tensor, "k p"], *, memory: int) -> Float[Tensor, "n k"]:
        """Return the inner products with rows of flat parameter vectors."""
        return self.values @ torch.cat([vectors[:, span] for span in self.spans], dim=1).T

    def add_combination(self, out: Float[Tensor, "k p"], weights: Float[Tensor, "k n"], *, memory: int) -> None:
        """Add the weighted sums of the gradients to flat vectors."""
        self._add(out, weights @ self.values)

    def materialise_into(self, out: Float[Tensor, "n p"]) -> None:
        """Write the gradients into rows of flat vectors that are zero."""
        self._add(out, self.values)

    def _add(self, out: Tensor, values: Tensor) -> None:
        sizes = [span.stop - span.start for span in self.spans]
        for span, part in zip(self.spans, values.split(sizes, dim=1), strict=True):
            out[:, span] += part

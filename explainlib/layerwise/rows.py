"""Gradients that are small enough, or strange enough, to stand as rows: biases, normalisation layers, the fallback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.layerwise.positions import add_product, mirrored


@dataclass(frozen=True)
class Rows:
    """The gradients of one or several parameters, one row an example.

    Args:
        places: the flat positions of each parameter, side by side.
        values: [n, their number together].
    """

    places: tuple[slice, ...]
    values: Float[Tensor, "n c"]

    @property
    def n(self) -> int:
        """The number of gradients."""
        return len(self.values)

    def held(self) -> int:
        """Return the bytes kept."""
        return self.values.nbytes

    def working(self) -> int:
        """Return the bytes that one row takes while it is worked with, beside those kept."""
        return self.values.shape[1] * self.values.element_size()

    def part(self, rows: slice) -> Rows:
        """Return some of the rows, as views."""
        return Rows(self.places, self.values[rows])

    def tensors(self) -> tuple[Tensor, ...]:
        """Return what is kept."""
        return (self.values,)

    def holding(self, tensors: Sequence[Tensor]) -> Rows:
        """Return the same with other tensors in the order of ``tensors``."""
        return Rows(self.places, *tensors)

    def gram(self, other: Rows, *, memory: int) -> Float[Tensor, "n m"]:
        """Return all inner products."""
        out = self.values.new_zeros(self.n, other.n)
        add_product(out, self.values, other.values)
        return mirrored(out) if other.values is self.values else out

    def norms(self, *, memory: int) -> Float[Tensor, " n"]:
        """Return the squared lengths."""
        return self.values.square().sum(1)

    def product(self, vectors: Float[Tensor, "k p"], *, memory: int) -> Float[Tensor, "n k"]:
        """Return the inner products with rows of flat parameter vectors."""
        return self.values @ torch.cat([vectors[:, place] for place in self.places], dim=1).T

    def add_combination(self, out: Float[Tensor, "k p"], weights: Float[Tensor, "k n"], *, memory: int) -> None:
        """Add the weighted sums of the gradients to flat vectors."""
        self._spread(out, weights @ self.values)

    def write(self, out: Float[Tensor, "n p"]) -> None:
        """Write the gradients into rows of flat vectors."""
        self._spread(out, self.values)

    def _spread(self, out: Tensor, values: Tensor) -> None:
        sizes = [place.stop - place.start for place in self.places]
        for place, part in zip(self.places, values.split(sizes, dim=1), strict=True):
            out[:, place] += part

"""Gradients of the weight of a linear or convolution layer, held as the factors of their outer products.

The raw input of the layer and its output gradient are stored; the input at each position (a convolution's unfolded
patches, many times larger) is recomputed for each product, one layer at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from explainlib.layerwise.blocks.examples import example_slice
from explainlib.layerwise.outer_products import (
    FactoredGradients,
    Patches,
    column_and_row_slices,
    compressed_factors,
    extract_patches,
    materialised_gradients,
    position_gram,
    squared_norms,
)

Factors = tuple[Tensor, Tensor]  # inputs [n, P, d] and output gradients [n, P, o]


@dataclass(frozen=True)
class OuterProductBlock:
    """The gradients of one weight, from one or several calls of layers of one kind.

    Args:
        span: the weight's slice of the flat vector.
        layers: the layer of each call.
        inputs: of each call, [e, ...].
        gradients: of the output of each call, [n, ...].
        rows_per_example: rows of a gradient per row of its input (several cotangents share an example).
    """

    span: slice
    layers: tuple[nn.Module, ...]
    inputs: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    rows_per_example: int

    @property
    def n(self) -> int:
        """The number of gradients."""
        return len(self.gradients[0])

    @property
    def nbytes(self) -> int:
        """The bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors())

    @property
    def working_bytes(self) -> int:
        """The bytes of temporary numbers that one row takes in a product."""
        repeated, compressed = self.rows_per_example > 1, self.gradients[0].dtype == torch.float32
        row = self.part(slice(0, 1)).factors()
        return sum((1 + repeated + compressed) * (a[0].nbytes + g[0].nbytes) for a, g in row)

    def part(self, rows: slice) -> OuterProductBlock:
        """Return some of the rows, as views; whole examples."""
        examples = example_slice(rows, self.rows_per_example)
        return self.with_tensors([*(a[examples] for a in self.inputs), *(g[rows] for g in self.gradients)])

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors that hold the gradients."""
        return (*self.inputs, *self.gradients)

    def with_tensors(self, tensors: Sequence[Tensor]) -> OuterProductBlock:
        """Return the same with other tensors in the order of ``tensors``."""
        calls = len(self.layers)
        inputs, gradients = tuple(tensors[:calls]), tuple(tensors[calls:])
        return OuterProductBlock(self.span, self.layers, inputs, gradients, self.rows_per_example)

    def factors(self) -> list[Factors]:
        """Return, per group of channels, the inputs and output gradients at each position."""
        calls = [
            _call_factors(layer, a, g) for layer, a, g in zip(self.layers, self.inputs, self.gradients, strict=True)
        ]  # fmt: skip
        k, groups = self.rows_per_example, []
        for group in zip(*calls, strict=True):
            a, g = (torch.cat(side, dim=1) if len(side) > 1 else side[0] for side in zip(*group, strict=True))
            groups.append((a.repeat_interleave(k, dim=0)[: len(g)] if k > 1 else a, g))
        return groups

    def lazy_factors(self) -> list[FactoredGradients]:
        """Return the factors; with ``Patches``, which need not be unfolded, for one call of one convolution."""
        layer, g = self.layers[0], self.gradients[0]
        single = len(self.layers) == self.rows_per_example == 1 and isinstance(layer, nn.Conv1d | nn.Conv2d)
        if not single or layer.groups > 1 or g.device.type != "cpu":  # elsewhere a convolution may round to ten bits
            return self.factors()
        return [(Patches(layer, self.inputs[0]), g.flatten(2).mT)]

    def gram(self, other: OuterProductBlock, *, memory: int) -> Float[Tensor, "n m"]:
        """Return all inner products."""
        left = self.lazy_factors()
        right = left if other is self else other.lazy_factors()
        pairs = [compressed_factors(*pair, memory=memory) for pair in zip(left, right, strict=True)]
        del left, right  # the unfolded inputs, where compressed ones replace them
        grams = [position_gram(*factors, *factors_, memory=memory) for factors, factors_ in pairs]
        return grams[0] if len(grams) == 1 else sum(grams)

    def squared_norms(self, *, memory: int) -> Float[Tensor, " n"]:
        """Return the squared lengths."""
        return sum(squared_norms(a, g, memory=memory) for a, g in self.factors())

    def product(self, vectors: Float[Tensor, "k p"], *, memory: int) -> Float[Tensor, "n k"]:
        """Return the inner products with rows of flat parameter vectors: sum_p g_p . (V a_p)."""
        out = vectors.new_zeros(self.n, len(vectors))
        factors = self.factors()
        for (a, g), V in zip(factors, self._matrices(vectors, factors), strict=True):
            if _one_by_one_is_cheaper(len(V), *a.shape[1:]):
                for column, v in zip(out.T, V, strict=True):
                    column += (torch.matmul(a, v.T) * g).sum((1, 2))
            else:
                for columns, rows in column_and_row_slices(a, g, memory):
                    part = materialised_gradients(a[rows, :, columns], g[rows])
                    out[rows] += part.flatten(1) @ V[:, :, columns].flatten(1).T
        return out

    def add_combination(self, out: Float[Tensor, "k p"], weights: Float[Tensor, "k n"], *, memory: int) -> None:
        """Add the weighted sums of the gradients to flat vectors: sum_i w_i sum_p g_ip a_ip^T."""
        factors = self.factors()
        for (a, g), V in zip(factors, self._matrices(out, factors), strict=True):
            if _one_by_one_is_cheaper(len(V), *a.shape[1:]):
                flat = a.flatten(0, 1)
                for v, w in zip(V, weights, strict=True):
                    v += (g * w[:, None, None]).flatten(0, 1).T @ flat
            else:
                for columns, rows in column_and_row_slices(a, g, memory):
                    part = materialised_gradients(a[rows, :, columns], g[rows])
                    V[:, :, columns] += (weights[:, rows] @ part.flatten(1)).view(len(V), *part.shape[1:])

    def materialise_into(self, out: Float[Tensor, "n p"]) -> None:
        """Write the gradients into rows of flat vectors."""
        factors = self.factors()
        for (a, g), V in zip(factors, self._matrices(out, factors), strict=True):
            V.copy_(materialised_gradients(a, g))

    def _matrices(self, vectors: Tensor, factors: list[Factors]) -> list[Tensor]:
        """Return this weight's part of flat vectors, as a matrix [k, o, d] per group; views."""
        a, g = factors[0]
        return list(vectors[:, self.span].unflatten(1, (len(factors), g.shape[2], a.shape[2])).unbind(1))


def _one_by_one_is_cheaper(k: int, P: int, d: int) -> bool:
    """Return whether k vectors cost less than materialised gradients: k P against P + k, in units of d o.

    At one position both cost k, and numbers in memory decide: k o written for the vectors, d o for a gradient.
    """
    return k <= d if P == 1 else k * P <= P + k


def _call_factors(layer: nn.Module, a: Tensor, g: Tensor) -> list[Factors]:
    """Return, per group of channels, the input and the output gradient of one call at each position."""
    if isinstance(layer, nn.Linear):
        return [(a.reshape(len(a), -1, a.shape[-1]), g.reshape(len(g), -1, g.shape[-1]))]
    patches = extract_patches(layer, a)
    d = patches.shape[1] // layer.groups
    outputs = g.flatten(2).split(g.shape[1] // layer.groups, dim=1)
    return [(p.mT, o.mT) for p, o in zip(patches.split(d, dim=1), outputs, strict=True)]

r"""Gradients of an embedding table: a row per token, zero for every token that is not in the example.

    <grad_i, grad_j> = sum over tokens v in both of (sum_{p: id_ip = v} g_ip) . (sum_{q: id_jq = v} g_jq)

Only the tokens that two examples share contribute, so the sum runs token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.layerwise.blocks.examples import example_slice


@dataclass(frozen=True)
class EmbeddingBlock:
    """The gradients of one embedding table [V, d].

    Args:
        span: the table's slice of the flat vector.
        ids: the tokens at each position.
        g: the output gradients there, zero where the token is the padding.
        rows_per_example: rows of ``g`` per row of ``ids`` (several cotangents share an example).
    """

    span: slice
    ids: Int[Tensor, "e P"]
    g: Float[Tensor, "n P d"]
    rows_per_example: int

    @property
    def n(self) -> int:
        """The number of gradients."""
        return len(self.g)

    @property
    def nbytes(self) -> int:
        """The bytes of the tensors."""
        return self.ids.nbytes + self.g.nbytes

    @property
    def working_bytes(self) -> int:
        """The bytes of temporary numbers that one row takes in a product."""
        return 3 * self.g[0].numel() * self.g.element_size() + 4 * self.g.shape[1] * 8 * self.rows_per_example

    def part(self, rows: slice) -> EmbeddingBlock:
        """Return some of the rows, as views; whole examples."""
        ids = self.ids[example_slice(rows, self.rows_per_example)]
        return EmbeddingBlock(self.span, ids, self.g[rows], self.rows_per_example)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors that hold the gradients."""
        return self.ids, self.g

    def with_tensors(self, tensors: Sequence[Tensor]) -> EmbeddingBlock:
        """Return the same with other tensors in the order of ``tensors``."""
        return EmbeddingBlock(self.span, *tensors, self.rows_per_example)

    def table_rows(self) -> tuple[Int[Tensor, " r"], Int[Tensor, " r"], Float[Tensor, "r d"]]:
        """Return the rows of all gradients that are not zero: token, example and values, sorted by token."""
        examples = torch.arange(self.n, device=self.g.device)
        keys = self.ids.repeat_interleave(self.rows_per_example, dim=0) * self.n + examples[:, None]
        keys, where = keys.flatten().unique(return_inverse=True)
        values = self.g.new_zeros(len(keys), self.g.shape[2]).index_add_(0, where, self.g.flatten(0, 1))
        return keys // self.n, keys % self.n, values

    def gram(self, other: EmbeddingBlock, *, memory: int) -> Float[Tensor, "n m"]:
        """Return all inner products."""
        token, row, value = self.table_rows()
        token_, row_, value_ = (token, row, value) if other is self else other.table_rows()
        out = self.g.new_zeros(self.n, other.n)
        slices, slices_ = _token_slices(token), _token_slices(token_)
        for v in slices.keys() & slices_.keys():
            i, j = slices[v], slices_[v]
            out[row[i][:, None], row_[j]] += value[i] @ value_[j].T
        return out

    def squared_norms(self, *, memory: int) -> Float[Tensor, " n"]:
        """Return the squared lengths."""
        _, row, value = self.table_rows()
        return self.g.new_zeros(self.n).index_add_(0, row, value.square().sum(1))

    def product(self, vectors: Float[Tensor, "k p"], *, memory: int) -> Float[Tensor, "n k"]:
        """Return the inner products with rows of flat parameter vectors."""
        token, row, value = self.table_rows()
        out = self.g.new_zeros(len(vectors), self.n)
        for row_out, vector in zip(out, vectors, strict=True):
            table = vector[self.span].view(-1, self.g.shape[2])
            row_out.index_add_(0, row, (table[token] * value).sum(1))
        return out.T

    def add_combination(self, out: Float[Tensor, "k p"], weights: Float[Tensor, "k n"], *, memory: int) -> None:
        """Add the weighted sums of the gradients to flat vectors."""
        token, row, value = self.table_rows()
        for row_out, weight in zip(out, weights, strict=True):
            row_out[self.span].view(-1, self.g.shape[2]).index_add_(0, token, weight[row, None] * value)

    def materialise_into(self, out: Float[Tensor, "n p"]) -> None:
        """Write the gradients into rows of flat vectors that are zero."""
        token, row, value = self.table_rows()
        out[:, self.span].unflatten(1, (-1, self.g.shape[2]))[row, token] = value


def _token_slices(tokens: Tensor) -> dict[int, slice]:
    """Return the slice of each token in a sorted row of tokens."""
    values, counts = tokens.unique_consecutive(return_counts=True)
    stops = counts.cumsum(0).tolist()
    starts = [0, *stops[:-1]]
    return {v: slice(a, b) for v, a, b in zip(values.tolist(), starts, stops, strict=True)}

r"""Gradients of an embedding table: a row per token, and zero for every token that the example does not hold.

    <grad_i, grad_j> = sum over tokens v in both of (sum_{p: id_ip = v} g_ip) . (sum_{q: id_jq = v} g_jq)

Only the tokens that two examples share count, so the work is done token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """The gradients of one embedding table [V, d].

    Args:
        place: the table's flat positions.
        ids: the tokens at each position.
        g: the output gradients there, zero where the token is the padding.
        several: rows of ``g`` per row of ``ids`` (several cotangents share an example).
    """

    place: slice
    ids: Int[Tensor, "e P"]
    g: Float[Tensor, "n P d"]
    several: int

    @property
    def n(self) -> int:
        """The number of gradients."""
        return len(self.g)

    def held(self) -> int:
        """Return the bytes kept."""
        return self.ids.nbytes + self.g.nbytes

    def working(self) -> int:
        """Return the bytes that one row takes while it is worked with, beside those kept."""
        return 3 * self.g[0].numel() * self.g.element_size() + 4 * self.g.shape[1] * 8 * self.several

    def part(self, rows: slice) -> Tokens:
        """Return some of the rows, as views; whole examples."""
        return Tokens(self.place, self.ids[_examples(rows, self.several)], self.g[rows], self.several)

    def tensors(self) -> tuple[Tensor, ...]:
        """Return what is kept."""
        return self.ids, self.g

    def holding(self, tensors: Sequence[Tensor]) -> Tokens:
        """Return the same with other tensors in the order of ``tensors``."""
        return Tokens(self.place, *tensors, self.several)

    def table_rows(self) -> tuple[Int[Tensor, " r"], Int[Tensor, " r"], Float[Tensor, "r d"]]:
        """Return the rows of all tables that are not zero: token, example and gradient, sorted by token."""
        examples = torch.arange(self.n, device=self.g.device)
        keys = self.ids.repeat_interleave(self.several, dim=0) * self.n + examples[:, None]
        keys, where = keys.flatten().unique(return_inverse=True)
        values = self.g.new_zeros(len(keys), self.g.shape[2]).index_add_(0, where, self.g.flatten(0, 1))
        return keys // self.n, keys % self.n, values

    def gram(self, other: Tokens, *, memory: int) -> Float[Tensor, "n m"]:
        """Return all inner products."""
        token, row, value = self.table_rows()
        token_, row_, value_ = (token, row, value) if other is self else other.table_rows()
        out = self.g.new_zeros(self.n, other.n)
        spans, spans_ = _spans(token), _spans(token_)
        for v in spans.keys() & spans_.keys():
            i, j = spans[v], spans_[v]
            out[row[i][:, None], row_[j]] += value[i] @ value_[j].T
        return out

    def norms(self, *, memory: int) -> Float[Tensor, " n"]:
        """Return the squared lengths."""
        _, row, value = self.table_rows()
        return self.g.new_zeros(self.n).index_add_(0, row, value.square().sum(1))

    def product(self, vectors: Float[Tensor, "k p"], *, memory: int) -> Float[Tensor, "n k"]:
        """Return the inner products with rows of flat parameter vectors."""
        token, row, value = self.table_rows()
        out = self.g.new_zeros(len(vectors), self.n)
        for to, vector in zip(out, vectors, strict=True):
            table = vector[self.place].view(-1, self.g.shape[2])
            to.index_add_(0, row, (table[token] * value).sum(1))
        return out.T

    def add_combination(self, out: Float[Tensor, "k p"], weights: Float[Tensor, "k n"], *, memory: int) -> None:
        """Add the weighted sums of the gradients to flat vectors."""
        token, row, value = self.table_rows()
        for to, weight in zip(out, weights, strict=True):
            to[self.place].view(-1, self.g.shape[2]).index_add_(0, token, weight[row, None] * value)

    def write(self, out: Float[Tensor, "n p"]) -> None:
        """Write the gradients into rows of flat vectors."""
        token, row, value = self.table_rows()
        out[:, self.place].unflatten(1, (-1, self.g.shape[2]))[row, token] = value


def _examples(rows: slice, several: int) -> slice:
    return slice(rows.start // several, -(-rows.stop // several))


def _spans(tokens: Tensor) -> dict[int, slice]:
    """Return where each token stands in a sorted row of tokens."""
    values, counts = tokens.unique_consecutive(return_counts=True)
    stops = counts.cumsum(0).tolist()
    starts = [0, *stops[:-1]]
    return {v: slice(a, b) for v, a, b in zip(values.tolist(), starts, stops, strict=True)}

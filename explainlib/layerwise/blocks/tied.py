r"""Gradients of a table that an embedding and a linear layer share, E_i + O_i: rows of tokens, and outer products.

    <E_i + O_i, E_j + O_j> = <E_i, E_j> + <O_i, O_j> + <E_i, O_j> + <O_i, E_j>
    <E_i, O_j> = sum_{p,q} (e_ip . a_jq) g_jq[id_ip]

e_ip is the output gradient of the embedding at position p, whose token is id_ip; a_jq and g_jq are input and output
gradient of the linear layer at position q.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.layerwise.blocks.embedding import EmbeddingBlock
from explainlib.layerwise.blocks.outer import OuterProductBlock
from explainlib.memory import slices


@dataclass(frozen=True)
class TiedBlock:
    """The gradients of one table [V, d].

    Args:
        table: from the embeddings.
        linear: from the linear layers, of the same rows.
    """

    table: EmbeddingBlock
    linear: OuterProductBlock

    @property
    def n(self) -> int:
        """The number of gradients."""
        return self.table.n

    @property
    def nbytes(self) -> int:
        """The bytes of the tensors."""
        return self.table.nbytes + self.linear.nbytes

    @property
    def working_bytes(self) -> int:
        """The bytes of temporary numbers that one row takes in a product."""
        return self.table.working_bytes + self.linear.working_bytes

    def part(self, rows: slice) -> TiedBlock:
        """Return some of the rows, as views; whole examples."""
        return TiedBlock(self.table.part(rows), self.linear.part(rows))

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors that hold the gradients."""
        return (*self.table.tensors(), *self.linear.tensors())

    def with_tensors(self, tensors: Sequence[Tensor]) -> TiedBlock:
        """Return the same with other tensors in the order of ``tensors``."""
        return TiedBlock(self.table.with_tensors(tensors[:2]), self.linear.with_tensors(tensors[2:]))

    def gram(self, other: TiedBlock, *, memory: int) -> Float[Tensor, "n m"]:
        """Return all inner products."""
        cross = _cross_gram(self.table, other.linear, memory)
        out = self.table.gram(other.table, memory=memory) + self.linear.gram(other.linear, memory=memory)
        return out + cross + (cross.T if other is self else _cross_gram(other.table, self.linear, memory).T)

    def squared_norms(self, *, memory: int) -> Float[Tensor, " n"]:
        """Return the squared lengths."""
        own = self.table.squared_norms(memory=memory) + self.linear.squared_norms(memory=memory)
        ((a, g),), ids, e = self.linear.factors(), _ids(self.table), self.table.g
        cross = torch.empty_like(own)
        for rows in slices(self.n, memory // (4 * a.shape[1] * e.shape[1] * e.element_size())):
            there = g[rows].gather(2, ids[rows, None].expand(-1, g.shape[1], -1))  # [n, Q, P]
            cross[rows] = (there * (a[rows] @ e[rows].mT)).sum((1, 2))
        return (own + 2 * cross).clamp_(min=0)

    def product(self, vectors: Float[Tensor, "k p"], *, memory: int) -> Float[Tensor, "n k"]:
        """Return the inner products with rows of flat parameter vectors."""
        return self.table.product(vectors, memory=memory) + self.linear.product(vectors, memory=memory)

    def add_combination(self, out: Float[Tensor, "k p"], weights: Float[Tensor, "k n"], *, memory: int) -> None:
        """Add the weighted sums of the gradients to flat vectors."""
        self.table.add_combination(out, weights, memory=memory)
        self.linear.add_combination(out, weights, memory=memory)

    def materialise_into(self, out: Float[Tensor, "n p"]) -> None:
        """Write the gradients into rows of flat vectors."""
        self.linear.materialise_into(out)
        token, row, value = self.table.table_rows()
        out[:, self.table.span].unflatten(1, (-1, value.shape[1]))[row, token] += value  # a row of a token stands once


def _ids(table: EmbeddingBlock) -> Tensor:
    """Return the tokens of each row of gradients [n, P]."""
    return table.ids.repeat_interleave(table.rows_per_example, dim=0)[: table.n]


def _cross_gram(table: EmbeddingBlock, linear: OuterProductBlock, memory: int) -> Float[Tensor, "n m"]:
    """Return <E_i, O_j> for all pairs, in square tiles."""
    ((a, g),), ids, e = linear.factors(), _ids(table), table.g
    out = e.new_empty(len(e), len(a))
    width = math.isqrt(memory // (4 * a.shape[1] * e.shape[1] * e.element_size()))
    for j in slices(len(a), width):
        for i in slices(len(e), width):
            along = torch.einsum("ipd,jqd->ijpq", e[i], a[j])
            there = g[j][:, :, ids[i]]  # [j, Q, i, P]
            out[i, j] = (along * there.permute(2, 0, 3, 1)).sum((2, 3))
    return out

"""The gradients sum_p g_p a_p^T [n, o, d] themselves, a few input columns at a time, and their Gram matrix."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.layerwise.outer_products.symmetric import add_gram, symmetrised
from explainlib.memory import slices

TILE = 128 * 2**20  # bytes of position products, or of materialised columns, that are alive at a time
CACHE = 16 * 2**20  # bytes of materialised columns that the processor's caches nearly hold
MIN_COLUMNS = 32  # columns below which the small products that materialise gradients become slow


def materialised_gradients(
    a: Float[Tensor, "n P d"], g: Float[Tensor, "n P o"], buffer: Float[Tensor, " size"] | None = None
) -> Float[Tensor, "n o d"]:
    """Return sum_p g_p a_p^T.

    Args:
        a: layer inputs at each position.
        g: output gradients at the same positions.
        buffer: n o d numbers or more to write to; None allocates them, which may cost more than the products.
    """
    shape = (len(a), g.shape[2], a.shape[2])
    out = a.new_empty(shape) if buffer is None else buffer[: math.prod(shape)].view(shape)
    product = torch.bmm if a.shape[1] > 1 else torch.mul
    return product(g.transpose(1, 2), a, out=out)


def materialised_gram(
    a_i: Float[Tensor, "n P d"],
    g_i: Float[Tensor, "n P o"],
    a_j: Float[Tensor, "m Q d"],
    g_j: Float[Tensor, "m Q o"],
    *,
    memory: int = TILE,
) -> Float[Tensor, "n m"]:
    """Return the Gram matrix of gradients that are materialised a few input columns at a time.

    Args:
        a_i: layer inputs at each position.
        g_i: output gradients at the same positions.
        a_j: of the other side; the very tensor ``a_i`` (and ``g_j`` that of ``g_i``) halves the work by symmetry.
        g_j: likewise.
        memory: bytes of materialised columns, as far as one column fits into them.
    """
    out = a_i.new_zeros(len(a_i), len(a_j))
    for left, right in materialised_columns((a_i, g_i), (a_j, g_j), memory=memory):
        add_gram(out, left, right)
    return symmetrised(out) if a_i is a_j and g_i is g_j else out


def materialised_columns(
    left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], *, memory: int
) -> Iterator[tuple[Float[Tensor, "n c"], Float[Tensor, "m c"]]]:
    """Yield the gradients of both sides, a few input columns at a time; one tensor twice where the sides are the same.

    The tensors yielded are overwritten by the next ones.

    Args:
        left: layer inputs [n, P, d] and output gradients [n, P, o].
        right: likewise, [m, Q, d] and [m, Q, o].
        memory: bytes of the tensors yielded.

    Returns:
        Pairs [n, c] and [m, c], whose products add up to the Gram matrix.
    """
    (a, g), (a_, g_) = left, right
    symmetric, d = a is a_ and g is g_, a.shape[2]
    column = (len(a) if symmetric else len(a) + len(a_)) * g.shape[2] * a.element_size()
    width = max(1, min(d, memory // column, max(MIN_COLUMNS, CACHE // column)))
    width = math.ceil(d / math.ceil(d / width))  # parts of one size
    buffers = [x.new_empty(len(x) * y.shape[2] * width) for x, y in ((a, g), (a_, g_))[: 2 - symmetric]]
    for columns in slices(d, width):
        mine = materialised_gradients(a[:, :, columns], g, buffers[0]).flatten(1)
        yield mine, mine if symmetric else materialised_gradients(a_[:, :, columns], g_, buffers[1]).flatten(1)


def column_and_row_slices(
    a: Float[Tensor, "n P d"], g: Float[Tensor, "n P o"], memory: int
) -> list[tuple[slice, slice]]:
    """Return slices of input columns and of rows whose materialised gradients fit into the memory.

    All columns of few rows, if one row fits; else some columns of one row.

    Args:
        a: layer inputs.
        g: output gradients.
        memory: bytes.
    """
    d, column = a.shape[2], max(1, g.shape[2]) * a.element_size()
    width = max(1, min(d, memory // column))
    return [(c, r) for c in slices(d, width) for r in slices(len(a), memory // (column * width))]

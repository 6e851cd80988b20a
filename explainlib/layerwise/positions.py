r"""Gram matrices of gradients that are sums of outer products over positions, [o, d] = sum_p g_p a_p^T.

    <sum_p g_ip a_ip^T, sum_q g_jq a_jq^T> = sum_{p,q} (a_ip . a_jq) (g_ip . g_jq)

A linear layer on one vector has one position, a convolution one per place of its output. The right side never forms
a gradient and wins for few positions and many parameters; the left side wins for many positions and small filters.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import kernels
from explainlib.kernels.reference import gram_tiles

TILE = 128 * 2**20  # bytes of position products, or of formed gradient columns, that are alive at a time
CACHED = 16 * 2**20  # bytes of formed columns that the processor's caches nearly hold
NARROW = 32  # columns below which the small products that form gradients become slow
BLOCK = 512  # rows of a product, where symmetry spares what lies below the diagonal
ELEMENTWISE = 40  # multiply-adds of a matrix product in the time one number is multiplied and summed on its own
FORMING = 4  # how much slower the small products are that form gradients


def position_gram(
    a_i: Float[Tensor, "n P d"],
    g_i: Float[Tensor, "n P o"],
    a_j: Float[Tensor, "m Q d"],
    g_j: Float[Tensor, "m Q o"],
    *,
    memory: int = TILE,
) -> Float[Tensor, "n m"]:
    """Return sum_{p,q} (a_ip . a_jq)(g_ip . g_jq) for all pairs, by the cheaper of two routes.

    Args:
        a_i: layer inputs at each position.
        g_i: output gradients at the same positions.
        a_j: of the other side; the very tensor ``a_i`` (and ``g_j`` that of ``g_i``) halves the work by symmetry.
        g_j: likewise.
        memory: bytes of temporary numbers, as far as one pair of examples (or one gradient column) fits into them.

    Returns:
        [n, m]. Cost a pair: P Q (d + o), or d o once the gradients are formed in n P d o + m Q d o.

    Example: one position each, so the inner product of two outer products.

        >>> a, g = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0]]])
        >>> position_gram(a, g, a, g).item()  # |3 (1, 2)|^2
        45.0
    """
    n, P, d = a_i.shape
    m, Q, o = len(a_j), a_j.shape[1], g_j.shape[2]
    if forming_is_cheaper(n, m, P, Q, d, o):
        return formed_gram(a_i, g_i, a_j, g_j, memory=memory)
    if P * Q > 1 and uses_fused_kernel(a_i, P * Q):
        return kernels.layer_gram(a_i, g_i, a_j, g_j)
    return product_gram(a_i, g_i, a_j, g_j, memory=memory)


def uses_fused_kernel(a: Tensor, positions: int) -> bool:
    """Return whether the fused kernel takes this product.

    Triton is imported only where it may be of use: for tensors on a GPU, and after ``xl.kernels.use``.
    """
    chosen = a.is_cuda or "explainlib.kernels.choice" in sys.modules
    return chosen and kernels.runs_on_triton(a, positions)


def forming_is_cheaper(n: int, m: int, P: int, Q: int, d: int, o: int) -> bool:
    """Return whether n and m formed gradients [o, d] and their product cost less than products of positions.

    Args:
        n: examples on the left.
        m: examples on the right.
        P: positions on the left.
        Q: positions on the right.
        d: inputs of the layer.
        o: outputs of the layer.
    """
    products = n * m * P * Q * (d + o + (ELEMENTWISE if P * Q > 1 else 2))
    return n * m * d * o + FORMING * (n * P + m * Q) * d * o < products


def product_gram(
    a_i: Float[Tensor, "n P d"],
    g_i: Float[Tensor, "n P o"],
    a_j: Float[Tensor, "m Q d"],
    g_j: Float[Tensor, "m Q o"],
    *,
    memory: int = TILE,
) -> Float[Tensor, "n m"]:
    """Return the Gram matrix as (A A')*(G G') summed over positions, in square tiles.

    Args:
        a_i: what the layer reads, on the left [n, P, d].
        g_i: gradients of what it puts out, on the left [n, P, o].
        a_j: likewise on the right.
        g_j: likewise on the right.
        memory: bytes of a work array.
    """
    symmetric = a_i is a_j and g_i is g_j
    out = a_i.new_empty(len(a_i), len(a_j))
    memory = min(memory, CACHED)
    for rows, columns, tile in gram_tiles(a_i, g_i, a_j, g_j, memory=memory, symmetric=symmetric, inplace=True):
        out[rows, columns] = tile
    return mirrored(out) if symmetric else out


def formed_gram(
    a_i: Float[Tensor, "n P d"],
    g_i: Float[Tensor, "n P o"],
    a_j: Float[Tensor, "m Q d"],
    g_j: Float[Tensor, "m Q o"],
    *,
    memory: int = TILE,
) -> Float[Tensor, "n m"]:
    """Return the Gram matrix of gradients that are formed a few input columns at a time.

    Args:
        a_i: what the layer reads, on the left [n, P, d].
        g_i: gradients of what it puts out, on the left [n, P, o].
        a_j: likewise on the right.
        g_j: likewise on the right.
        memory: bytes of a work array.
    """
    out = a_i.new_zeros(len(a_i), len(a_j))
    for left, right in formed_columns((a_i, g_i), (a_j, g_j), memory=memory):
        add_product(out, left, right)
    return mirrored(out) if a_i is a_j and g_i is g_j else out


def formed_columns(
    left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor], *, memory: int
) -> Iterator[tuple[Float[Tensor, "n c"], Float[Tensor, "m c"]]]:
    """Yield the gradients of both sides, a few input columns at a time; one tensor twice where the sides are the same.

    What is yielded is overwritten by what comes next.

    Args:
        left: inputs [n, P, d] and output gradients [n, P, o].
        right: likewise, [m, Q, d] and [m, Q, o].
        memory: bytes of what is yielded.

    Returns:
        Pairs [n, c] and [m, c], whose products add up to the Gram matrix.
    """
    (a, g), (a_, g_) = left, right
    symmetric, d = a is a_ and g is g_, a.shape[2]
    column = (len(a) if symmetric else len(a) + len(a_)) * g.shape[2] * a.element_size()
    width = max(1, min(d, memory // column, max(NARROW, CACHED // column)))
    width = math.ceil(d / math.ceil(d / width))  # parts of one size
    rooms = [x.new_empty(len(x) * y.shape[2] * width) for x, y in ((a, g), (a_, g_))[: 2 - symmetric]]
    for columns in slices(d, width):
        mine = formed(a[:, :, columns], g, rooms[0]).flatten(1)
        yield mine, mine if symmetric else formed(a_[:, :, columns], g_, rooms[1]).flatten(1)


def formed(
    a: Float[Tensor, "n P d"], g: Float[Tensor, "n P o"], room: Float[Tensor, " size"] | None = None
) -> Float[Tensor, "n o d"]:
    """Return the gradients themselves, sum_p g_p a_p^T.

    Args:
        a: inputs.
        g: output gradients.
        room: n o d numbers or more to write them to; memory that was just allocated costs more than the products.
    """
    shape = (len(a), g.shape[2], a.shape[2])
    out = a.new_empty(shape) if room is None else room[: math.prod(shape)].view(shape)
    product = torch.bmm if a.shape[1] > 1 else torch.mul
    return product(g.transpose(1, 2), a, out=out)


def add_product(out: Float[Tensor, "n m"], left: Float[Tensor, "n c"], right: Float[Tensor, "m c"]) -> None:
    """Return nothing, and add left right^T to out; where right is left, only on the diagonal's blocks and above them.

    Args:
        out: added to in place.
        left: rows.
        right: rows; the very same tensor says that the result is symmetric.
    """
    if right is not left:
        out.addmm_(left, right.T)
        return
    for i in range(0, len(left), BLOCK):
        out[i : i + BLOCK, i:].addmm_(left[i : i + BLOCK], left[i:].T)


def mirrored(out: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Return out with its blocks above the diagonal copied below it, in place; in a block on it, its upper half."""
    for i in range(0, len(out), BLOCK):
        corner = out[i : i + BLOCK, i : i + BLOCK]
        corner.copy_(corner.triu() + corner.triu(1).T)
        out[i + BLOCK :, i : i + BLOCK] = out[i : i + BLOCK, i + BLOCK :].T
    return out


def slices(total: int, width: int) -> list[slice]:
    """Return consecutive slices of at most ``width`` (or 1) that cover ``range(total)``."""
    width = max(1, width)
    return [slice(start, min(start + width, total)) for start in range(0, total, width)]

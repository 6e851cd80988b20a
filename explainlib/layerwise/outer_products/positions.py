r"""Gram matrices and norms of gradients that are sums of outer products over positions, [o, d] = sum_p g_p a_p^T.

    <sum_p g_ip a_ip^T, sum_q g_jq a_jq^T> = sum_{p,q} (a_ip . a_jq) (g_ip . g_jq)

A linear layer on one vector has one position, a convolution one per place of its output. The right side never
materialises a gradient and wins for few positions and many parameters; the left side wins for many positions and small
filters.
"""

from __future__ import annotations

import sys

from jaxtyping import Float
from torch import Tensor

from explainlib import kernels
from explainlib.kernels.reference import gram_tiles
from explainlib.layerwise.outer_products.materialised import (
    CACHE,
    TILE,
    column_and_row_slices,
    materialised_gradients,
    materialised_gram,
)
from explainlib.layerwise.outer_products.symmetric import symmetrised
from explainlib.memory import slices

ELEMENTWISE = 40  # multiply-adds of a matrix product in the time one number is multiplied and summed on its own
MATERIALISING = 4  # how much slower the small products are that materialise gradients


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
        [n, m]. Cost a pair: P Q (d + o), or d o once the gradients are materialised in n P d o + m Q d o.

    Example: one position each, so the inner product of two outer products.

        >>> import torch
        >>> a, g = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0]]])
        >>> position_gram(a, g, a, g).item()  # |3 (1, 2)|^2
        45.0
    """
    n, P, d = a_i.shape
    m, Q, o = len(a_j), a_j.shape[1], g_j.shape[2]
    if materialising_is_cheaper(n, m, P, Q, d, o):
        return materialised_gram(a_i, g_i, a_j, g_j, memory=memory)
    if P * Q > 1 and uses_fused_kernel(a_i, P * Q):
        return kernels.layer_gram(a_i, g_i, a_j, g_j)
    return product_gram(a_i, g_i, a_j, g_j, memory=memory)


def uses_fused_kernel(a: Tensor, positions: int) -> bool:
    """Return whether the fused kernel takes this product.

    Triton is imported only where it may be of use: for tensors on a GPU, and after ``xl.kernels.use``.
    """
    chosen = a.is_cuda or "explainlib.kernels.choice" in sys.modules
    return chosen and kernels.runs_on_triton(a, positions)


def materialising_is_cheaper(n: int, m: int, P: int, Q: int, d: int, o: int) -> bool:
    """Return whether n and m materialised gradients [o, d] and their product cost less than products of positions.

    Args:
        n: examples on the left.
        m: examples on the right.
        P: positions on the left.
        Q: positions on the right.
        d: inputs of the layer.
        o: outputs of the layer.
    """
    products = n * m * P * Q * (d + o + (ELEMENTWISE if P * Q > 1 else 2))
    return n * m * d * o + MATERIALISING * (n * P + m * Q) * d * o < products


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
        a_i: layer inputs at each position.
        g_i: output gradients at the same positions.
        a_j: of the other side; the very tensor ``a_i`` (and ``g_j`` that of ``g_i``) halves the work by symmetry.
        g_j: likewise.
        memory: bytes of position products, as far as one pair of examples fits into them.
    """
    symmetric = a_i is a_j and g_i is g_j
    out = a_i.new_empty(len(a_i), len(a_j))
    memory = min(memory, CACHE)
    for rows, columns, tile in gram_tiles(a_i, g_i, a_j, g_j, memory=memory, symmetric=symmetric, inplace=True):
        out[rows, columns] = tile
    return symmetrised(out) if symmetric else out


def squared_norms(a: Float[Tensor, "n P d"], g: Float[Tensor, "n P o"], *, memory: int = TILE) -> Float[Tensor, " n"]:
    """Return |sum_p g_p a_p^T|^2, the diagonal of ``position_gram(a, g, a, g)``, by the cheaper of the two routes.

    Args:
        a: layer inputs at each position.
        g: output gradients at the same positions.
        memory: bytes of temporary numbers, as far as one example (or one gradient column) fits into them.

    Returns:
        [n], at least 0. Cost: n P min(P (d + o), d o).
    """
    (n, P, d), o = a.shape, g.shape[2]
    if P == 1:
        return a.square().sum((1, 2)) * g.square().sum((1, 2))
    out = a.new_zeros(n)
    if P * (d + o + ELEMENTWISE) < d * o:
        for rows in slices(n, memory // (2 * P * P * a.element_size())):
            out[rows] = (a[rows] @ a[rows].mT).mul_(g[rows] @ g[rows].mT).sum((1, 2)).clamp_(min=0)
        return out
    for columns, rows in column_and_row_slices(a, g, memory):
        out[rows] += materialised_gradients(a[rows, :, columns], g[rows]).square_().sum((1, 2))
    return out

r"""The layer-wise Gram in plain PyTorch: what the fused kernel has to equal, and what runs where there is no GPU.

A layer's weight gradient for one example is a sum of outer products over positions, sum_p g_p a_p^T, so

    K[i, j] = sum_{p,q} (a_ip . a_jq) (g_ip . g_jq)

K is linear in each of its four arguments. With the cotangent v of K, the cotangent of one of them is

    d/da_ip  sum_ij v_ij K[i, j]  =  sum_{j,q} v_ij (g_ip . g_jq) a_jq

and the other three are the same sum with the letters exchanged. Both functions are made of plain differentiable
operations, so they can be differentiated any number of times in both modes, and mapped over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

TILE = 64 * 2**20  # bytes of position products that are alive at a time
HALF = (torch.float16, torch.bfloat16)


def upcast(x: Tensor) -> Tensor:
    """Return half-precision numbers in float32, in which they are summed; all others unchanged."""
    return x.float() if x.dtype in HALF else x


def layer_gram(
    a_i: Float[Tensor, "n P d"],
    g_i: Float[Tensor, "n P o"],
    a_j: Float[Tensor, "m Q d"],
    g_j: Float[Tensor, "m Q o"],
    *,
    memory: int = TILE,
) -> Float[Tensor, "n m"]:
    """Return K[i, j] = sum_{p,q} (a_ip . a_jq)(g_ip . g_jq), in tiles of pairs.

    Args:
        a_i: layer inputs at each position.
        g_i: output gradients at the same positions.
        a_j: of the other side.
        g_j: likewise.
        memory: bytes of position products at a time, as far as one pair of examples fits into them.

    Returns:
        [n, m] in the inputs' dtype; half precision is summed in float32. Cost: n m P Q (d + o).

    Example: one position each, so the inner product of two outer products.

        >>> a, g = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0]]])
        >>> layer_gram(a, g, a, g).item()  # |3 (1, 2)|^2
        45.0
    """
    dtype = a_i.dtype
    a_i, g_i, a_j, g_j = map(upcast, (a_i, g_i, a_j, g_j))
    bands: dict[int, list[Tensor]] = {}
    for rows, _, tile in gram_tiles(a_i, g_i, a_j, g_j, memory=memory):
        bands.setdefault(rows.start, []).append(tile)
    return torch.cat([torch.cat(band, 1) for band in bands.values()]).to(dtype)


def gram_tiles(
    a_i: Float[Tensor, "n P d"],
    g_i: Float[Tensor, "n P o"],
    a_j: Float[Tensor, "m Q d"],
    g_j: Float[Tensor, "m Q o"],
    *,
    memory: int,
    symmetric: bool = False,
    inplace: bool = False,
) -> Iterator[tuple[slice, slice, Float[Tensor, "r c"]]]:
    """Yield K[i, j] = sum_{p,q} (a_ip . a_jq)(g_ip . g_jq) in square tiles, row by row.

    Args:
        a_i: layer inputs at each position.
        g_i: output gradients at the same positions.
        a_j: of the other side.
        g_j: likewise.
        memory: bytes of position products that are alive at a time, as far as one pair of examples fits into them.
        symmetric: both sides are the same; only the tiles on the diagonal and above it are yielded.
        inplace: two arrays of position products are alive and not three. Not for ``torch.func.vmap``.

    Returns:
        Rows, columns and K[rows, columns].
    """
    (n, P), (m, Q) = a_i.shape[:2], a_j.shape[:2]
    arrays = 2 if inplace else 3
    side = max(1, math.isqrt(memory // (arrays * P * Q * a_i.element_size())))
    for i in range(0, n, side):
        rows = slice(i, min(i + side, n))
        a, g = a_i[rows].flatten(0, 1), g_i[rows].flatten(0, 1)
        for j in range(i if symmetric else 0, m, side):
            columns = slice(j, min(j + side, m))
            tile, multiply = a @ a_j[columns].flatten(0, 1).T, Tensor.mul_ if inplace else Tensor.mul
            tile = multiply(tile, g @ g_j[columns].flatten(0, 1).T)
            if P * Q > 1:
                tile = tile.view(rows.stop - i, P, columns.stop - j, Q).sum(3).sum(1)
            yield rows, columns, tile


def factor_cotangent(
    v: Float[Tensor, "*b n m"],
    u_i: Float[Tensor, "*b n P o"],
    x_j: Float[Tensor, "*b m Q d"],
    u_j: Float[Tensor, "*b m Q o"],
    *,
    memory: int = TILE,
) -> Float[Tensor, "*b n P d"]:
    """Return sum_{j,q} v_ij (u_ip . u_jq) x_jq, the cotangent of the factor beside ``u_i`` (a vjp of K).

    Args:
        v: the cotangent of K.
        u_i: the factor that stands beside the one differentiated: g_i for a_i, a_i for g_i.
        x_j: the other side's a for a_i, its g for g_i.
        u_j: the other side's factor beside ``x_j``.
        memory: bytes of position products at a time, as far as one row fits into them.

    Returns:
        [..., n, P, d] in the dtype of ``u_i``. Of two routes, the one that needs less memory: through products of
        positions [n P, m Q], or through sums of materialised gradients [n, o, d].
    """
    dtype = u_i.dtype
    v, u_i, x_j, u_j = map(upcast, (v, u_i, x_j, u_j))
    batch, (n, P, o), (m, Q, d) = u_i.shape[:-3], u_i.shape[-3:], x_j.shape[-3:]
    if (n + m) * o * d <= n * P * m * Q:
        materialised = (u_j.transpose(-1, -2) @ x_j).reshape(*batch, m, o * d)
        return (u_i @ (v @ materialised).reshape(*batch, n, o, d)).to(dtype)
    rows = max(1, memory // (2 * P * m * Q * u_i.element_size()))
    x_j, u_j = x_j.reshape(*batch, 1, m * Q, d), u_j.reshape(*batch, 1, m * Q, o).transpose(-1, -2)
    parts = []
    for part_v, part_u in zip(v.split(rows, -2), u_i.split(rows, -3), strict=True):
        products = (part_u @ u_j).reshape(*part_u.shape[:-1], m, Q) * part_v.unsqueeze(-2).unsqueeze(-1)
        parts.append(products.reshape(*part_u.shape[:-1], m * Q) @ x_j)
    return torch.cat(parts, -3).to(dtype)

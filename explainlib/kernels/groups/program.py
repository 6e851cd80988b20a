"""Hessian blocks of many groups of examples in Triton: members are gathered in registers, and only blocks are written.

    K_g = sum_{i in U_g} (diag(a_i) - u_i v_i^T) kron (x_i y_i^T)                         [C d, C d], row (c, k)

One program owns a tile of K_g. It walks over the group's members in blocks; for each it builds u_ic x_ik for its rows
and v_ic y_il for its columns, and subtracts their product. Where the tile meets a diagonal block, it adds the product
of a_ic x_ik and y_il for pairs of rows and columns of one class. Rows and columns are counted through classes, so that
few features fill a tile. Sums run in a fixed order and nothing is added atomically: the result is the same, bit for
bit, in every run on one kind of GPU.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple, no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.kernels.gram_triton import FP_FUSION, jit, tl, triton


@jit
@no_type_check
def _group_products(
    a, u, v, x, y, members, offsets, out, groups, C, d,
    a_b, a_n, a_c, u_b, u_n, u_c, v_b, v_n, v_c, x_b, x_n, x_k, y_b, y_n, y_k,
    SIDE: tl.constexpr, BLOCK: tl.constexpr, SYMMETRIC: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Write one tile of one group's block; of a symmetric one only from the diagonal up, and mirrored."""
    size = C * d
    across = tl.cdiv(size, SIDE)
    program = tl.program_id(0)
    group = program // (across * across)  # of all batches
    batch, own = (group // groups).to(tl.int64), group % groups
    first_row, first_column = program // across % across * SIDE, program % across * SIDE
    if (not SYMMETRIC) or (first_column >= first_row):
        row, column = first_row + tl.arange(0, SIDE), first_column + tl.arange(0, SIDE)
        row_mask, column_mask = row < size, column < size
        row_class, column_class = row // d, column // d
        a_at, u_at, x_at = batch * a_b + row_class * a_c, batch * u_b + row_class * u_c, batch * x_b + row % d * x_k
        v_at, y_at = batch * v_b + column_class * v_c, batch * y_b + column % d * y_k
        # whether a class of the rows is one of the columns
        meets = (first_row // d <= (first_column + SIDE - 1) // d) & (first_column // d <= (first_row + SIDE - 1) // d)
        total = tl.zeros((SIDE, SIDE), dtype=SUM)
        start, stop = tl.load(offsets + own), tl.load(offsets + own + 1)
        for first in range(start, stop, BLOCK):
            place = first + tl.arange(0, BLOCK)
            inside = place < stop
            example = tl.load(members + place, mask=inside, other=0)
            left_mask, right_mask = row_mask[:, None] & inside[None, :], inside[:, None] & column_mask[None, :]
            left_x = tl.load(x + (x_at[:, None] + example[None, :] * x_n), mask=left_mask, other=0.0)
            right_y = tl.load(y + (example[:, None] * y_n + y_at[None, :]), mask=right_mask, other=0.0)
            if meets:
                scale = tl.load(a + (a_at[:, None] + example[None, :] * a_n), mask=left_mask, other=0.0)
                both = tl.dot(scale * left_x, right_y, input_precision=PRECISION, out_dtype=SUM)
                total += tl.where(row_class[:, None] == column_class[None, :], both, 0.0)
            left = -left_x * tl.load(u + (u_at[:, None] + example[None, :] * u_n), mask=left_mask, other=0.0)
            right = right_y * tl.load(v + (example[:, None] * v_n + v_at[None, :]), mask=right_mask, other=0.0)
            total = tl.dot(left, right, total, input_precision=PRECISION, out_dtype=SUM)
        whole = out + group.to(tl.int64) * size * size
        mask = row_mask[:, None] & column_mask[None, :]
        if SYMMETRIC:
            mask = mask & (row[:, None] <= column[None, :])
            tl.store(whole + (column[None, :] * size + row[:, None]), total, mask=mask)
        tl.store(whole + (row[:, None] * size + column[None, :]), total, mask=mask)


class Tiles(NamedTuple):
    """The constants of one build: rows and columns of a tile, members at a time, warps, stages and registers."""

    side: int
    block: int = 16
    warps: int = 8
    stages: int = 1
    registers: int = 255


def tiles_for(dtype: torch.dtype) -> Tiles:
    """Return the constants with which no build spills: 64 rows and columns, in float64 32.

    Args:
        dtype: float32 or float64.
    """
    return Tiles(32 if dtype == torch.float64 else 64)


def launch(
    a: Float[Tensor, "b n C"],
    u: Float[Tensor, "b n C"],
    v: Float[Tensor, "b n C"],
    x: Float[Tensor, "b n d"],
    y: Float[Tensor, "b n d"],
    members: Int[Tensor, " k"],
    offsets: Int[Tensor, " h"],
    *,
    symmetric: bool,
    precision: str,
) -> Float[Tensor, "b g r r"]:
    """Return K of each of b batches and each group, from one launch; any strides, also 0.

    Args:
        a: of the diagonal, on a GPU (on the CPU under Triton's interpreter).
        u: left factor of the outer product.
        v: its right factor.
        x: left features.
        y: right features.
        members: int64 numbers of examples, group after group.
        offsets: int64, where each group's members begin and, last, how many there are.
        symmetric: u and v are multiples of each other and x is y; nearly half the tiles are left out.
        precision: of products in float32, "ieee" or "tf32".

    Returns:
        [b, g, C d, C d] in the inputs' dtype.

    Raises:
        ValueError: a block is too wide for offsets of 32 bits, or there are too many tiles for one launch.
    """
    (b, _, C), d, groups = u.shape, x.shape[-1], len(offsets) - 1
    out = x.new_empty(b, groups, C * d, C * d)
    tiles = tiles_for(x.dtype)
    programs = b * groups * triton.cdiv(C * d, tiles.side) ** 2
    if (C * d) ** 2 >= 2**31 or programs >= 2**31:
        raise ValueError(
            f"{b * groups} blocks of {C * d} x {C * d} are too many or too wide for one launch of the kernel; pass "
            "fewer groups at a time, or use('torch')."
        )
    if not programs:
        return out
    strides = [step for factor in (a, u, v, x, y) for step in factor.stride()]
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        _group_products[(programs,)](
            a, u, v, x, y, members.contiguous(), offsets.contiguous(), out, groups, C, d, *strides,
            *constants(tiles, x.dtype, symmetric=symmetric, precision=precision).values(), **compiler_options(tiles),
        )  # fmt: skip
    return out


def constants(tiles: Tiles, dtype: torch.dtype, *, symmetric: bool, precision: str) -> dict[str, object]:
    """Return the constants of a build, in the kernel's order."""
    return {
        "SIDE": tiles.side, "BLOCK": tiles.block, "SYMMETRIC": symmetric, "PRECISION": precision,
        "SUM": tl.float64 if dtype == torch.float64 else tl.float32,
    }  # fmt: skip


def compiler_options(tiles: Tiles) -> dict[str, object]:
    """Return what a build is compiled with."""
    return {
        "num_warps": tiles.warps, "num_stages": tiles.stages, "maxnreg": tiles.registers, "enable_fp_fusion": FP_FUSION,
    }  # fmt: skip

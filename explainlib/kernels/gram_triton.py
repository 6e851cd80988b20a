"""The fused layer-wise Gram in Triton: position products live in registers and never reach memory.

    K[i, j] = sum_{p,q} (a_ip . a_jq) (g_ip . g_jq)

One program owns a tile of pairs (i, j). Its rows are I examples times S of their positions, its columns J examples
times T positions. It walks over the blocks of positions p and q; for each it builds the tile of (a_ip . a_jq) over
blocks of d, the tile of (g_ip . g_jq) over blocks of o, and adds their product to a third. Only at the end are rows
and columns summed down to pairs, and written once. The order of the sums is fixed and nothing is added atomically, so
the result is the same, bit for bit, in every run on one kind of GPU.

The module can be imported without Triton, and without a GPU; then it only cannot run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError:  # there are no builds of Triton for this system: the kernels below stay unread
    triton = tl = None

FP_FUSION = True  # a * b + c in one rounding; said here, so that no environment variable decides it
SIDE = 64  # rows and columns of a tile of position products
SMALLEST = 80  # the oldest compute capability the kernel is built for
OLDEST = (3, 5)  # of Triton, major and minor: the first whose tl.dot takes float64


def jit(function: Callable[..., object]) -> Callable[..., object]:
    """Return ``function`` as a Triton kernel, or untouched where there is no Triton."""
    return function if triton is None else triton.jit(function)


@jit
@no_type_check
def _inner_products(
    left, right, left_at, right_at, left_there, right_there, width, left_step, right_step,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Return the [ROWS, COLUMNS] inner products over ``width`` of vectors that start at ``left_at``, ``right_at``."""
    total = tl.zeros((ROWS, COLUMNS), dtype=SUM)
    for start in range(0, width, BLOCK):
        k = (start + tl.arange(0, BLOCK)).to(left_at.dtype)
        inside = k < width
        x = tl.load(
            left + left_at[:, None] + k[None, :] * left_step, mask=left_there[:, None] & inside[None, :], other=0.0
        )
        y = tl.load(
            right + right_at[None, :] + k[:, None] * right_step, mask=right_there[None, :] & inside[:, None], other=0.0
        )
        total = tl.dot(x, y, total, input_precision=PRECISION, out_dtype=SUM)
    return total


@jit
@no_type_check
def _gram(
    a_i, g_i, a_j, g_j, out, n, m, P, Q, d, o,
    ai_b, ai_n, ai_p, ai_d, gi_b, gi_n, gi_p, gi_o, aj_b, aj_m, aj_q, aj_d, gj_b, gj_m, gj_q, gj_o,
    I: tl.constexpr, S: tl.constexpr, J: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr,
    SYMMETRIC: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr, INDEX: tl.constexpr,
):  # fmt: skip
    """Write one tile of pairs, I x J of them; where the sides are the same, only from the diagonal up, and mirrored."""
    across = tl.cdiv(m, J)
    place = tl.program_id(0)
    batch = (place // (tl.cdiv(n, I) * across)).to(INDEX)
    first_i = (place // across) % tl.cdiv(n, I) * I
    first_j = place % across * J
    if (not SYMMETRIC) or (first_j >= first_i):
        row, column = tl.arange(0, I * S), tl.arange(0, J * T)
        i, j = (first_i + row // S).to(INDEX), (first_j + column // T).to(INDEX)
        ai, gi = batch * ai_b + i * ai_n, batch * gi_b + i * gi_n
        aj, gj = batch * aj_b + j * aj_m, batch * gj_b + j * gj_m
        total = tl.zeros((I * S, J * T), dtype=SUM)
        for first_p in range(0, P, S):
            p = (first_p + row % S).to(INDEX)
            left = (i < n) & (p < P)
            for first_q in range(0, Q, T):
                q = (first_q + column % T).to(INDEX)
                right = (j < m) & (q < Q)
                by_a = _inner_products(a_i, a_j, ai + p * ai_p, aj + q * aj_q, left, right, d, ai_d, aj_d,
                                      I * S, J * T, BLOCK, PRECISION, SUM)  # fmt: skip
                by_g = _inner_products(g_i, g_j, gi + p * gi_p, gj + q * gj_q, left, right, o, gi_o, gj_o,
                                      I * S, J * T, BLOCK, PRECISION, SUM)  # fmt: skip
                total += by_a * by_g
        pairs = tl.sum(tl.sum(tl.reshape(total, (I, S, J, T)), 3), 1).to(out.dtype.element_ty)
        i, j = (first_i + tl.arange(0, I)).to(INDEX)[:, None], (first_j + tl.arange(0, J)).to(INDEX)[None, :]
        there = (i < n) & (j < m)
        if SYMMETRIC:
            there = there & (i <= j)
            tl.store(out + batch * n * m + j * m + i, pairs, mask=there)
        tl.store(out + batch * n * m + i * m + j, pairs, mask=there)


class Tiles(NamedTuple):
    """The constants of one build: examples and positions of a tile's sides, the block of d and o, warps and stages."""

    I: int
    S: int
    J: int
    T: int
    BLOCK: int
    warps: int = 8
    stages: int = 2


def tiles_for(n: int, P: int, m: int, Q: int, dtype: torch.dtype, precision: str) -> Tiles:
    """Return tiles with the least padding, of 64 x 64 products.

    The three tiles of sums and one block of each factor have to fit into 255 registers a thread. On tensor cores a
    block of 32 does; without them (float32 as it stands, float64) a thread holds its whole part of both blocks.
    """
    sides = (*split_of(n, P, SIDE), *split_of(m, Q, SIDE))
    on_tensor_cores = dtype in (torch.float16, torch.bfloat16) or (dtype == torch.float32 and precision == "tf32")
    return Tiles(*sides, BLOCK=32, stages=3) if on_tensor_cores else Tiles(*sides, BLOCK=16)


def split_of(n: int, P: int, side: int) -> tuple[int, int]:
    """Return (examples, positions) a tile, powers of two with product ``side``: fewest padded rows, most tiles."""

    def cost(positions: int) -> tuple[int, int]:
        examples = side // positions
        return -(-n // examples) * examples * -(-P // positions) * positions, examples

    positions = min((2**k for k in range(side.bit_length())), key=cost)
    return side // positions, positions


def launch(
    a_i: Float[Tensor, "b n P d"],
    g_i: Float[Tensor, "b n P o"],
    a_j: Float[Tensor, "b m Q d"],
    g_j: Float[Tensor, "b m Q o"],
    *,
    symmetric: bool,
    precision: str,
) -> Float[Tensor, "b n m"]:
    """Return K of each of b batches, from one launch; any strides, also 0.

    Args:
        a_i: layer inputs at each position, on a GPU (on the CPU under Triton's interpreter).
        g_i: output gradients at the same positions.
        a_j: of the other side.
        g_j: likewise.
        symmetric: both sides are the same; half the tiles are left out.
        precision: of products in float32, "ieee" or "tf32".

    Returns:
        [b, n, m] in the inputs' dtype, summed in float32 (in float64 if they are).
    """
    if interpreted() and a_i.dtype == torch.bfloat16:  # the interpreter multiplies the bit patterns of bfloat16
        wide = (x.float() for x in (a_i, g_i, a_j, g_j))
        return launch(*wide, symmetric=symmetric, precision=precision).bfloat16()
    (b, n, P, d), (m, Q, o) = a_i.shape, g_j.shape[1:]
    out = a_i.new_empty(b, n, m)
    tiles = tiles_for(n, P, m, Q, a_i.dtype, precision)
    grid = (b * triton.cdiv(n, tiles.I) * triton.cdiv(m, tiles.J),)
    strides = [step for x in (a_i, g_i, a_j, g_j) for step in x.stride()]
    far = any(reach(x) >= 2**31 for x in (a_i, g_i, a_j, g_j, out))
    with torch.cuda.device(a_i.device) if a_i.is_cuda else nullcontext():
        _gram[grid](
            a_i, g_i, a_j, g_j, out, n, m, P, Q, d, o, *strides,
            *constants(tiles, a_i.dtype, symmetric=symmetric, precision=precision, far=far).values(),
            num_warps=tiles.warps, num_stages=tiles.stages, enable_fp_fusion=FP_FUSION,
        )  # fmt: skip
    return out


def reach(x: Tensor) -> int:
    """Return the offset of the last element, with room for one block beyond it."""
    return sum((size + SIDE) * step for size, step in zip(x.shape, x.stride(), strict=True))


def constants(tiles: Tiles, dtype: torch.dtype, *, symmetric: bool, precision: str, far: bool) -> dict[str, object]:
    """Return the constants of a build, in the kernel's order; ``far`` tensors need offsets of 64 bits."""
    return {
        "I": tiles.I, "S": tiles.S, "J": tiles.J, "T": tiles.T, "BLOCK": tiles.BLOCK,
        "SYMMETRIC": symmetric, "PRECISION": precision,
        "SUM": tl.float64 if dtype == torch.float64 else tl.float32, "INDEX": tl.int64 if far else tl.int32,
    }  # fmt: skip


def interpreted() -> bool:
    """Return whether Triton was imported with its interpreter on: kernels then run on the CPU, slowly."""
    if triton is None:
        return False
    from triton.runtime.interpreter import InterpretedFunction

    return all(isinstance(function, InterpretedFunction) for function in (_gram, tl.zeros))

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
except ModuleNotFoundError:  # Triton has no builds for this system
    triton = tl = None

FP_FUSION = True  # a * b + c in one rounding; set here, so that no environment variable decides it
SIDE = 64  # rows and columns of a tile of position products
MIN_CAPABILITY = 80  # the oldest compute capability the kernel is built for
MIN_TRITON = (3, 5)  # major and minor: the first whose tl.dot takes float64


def jit(function: Callable[..., object]) -> Callable[..., object]:
    """Return ``function`` as a Triton kernel, or untouched where there is no Triton."""
    return function if triton is None else triton.jit(function)


@jit
@no_type_check
def _inner_products(
    left, right, left_offset, right_offset, left_mask, right_mask, width, left_stride, right_stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Return the [ROWS, COLUMNS] inner products of vectors of ``width`` numbers, at offsets from two pointers."""
    total = tl.zeros((ROWS, COLUMNS), dtype=SUM)
    k = tl.arange(0, BLOCK)
    left_at = left_offset[:, None] + k[None, :] * left_stride
    right_at = right_offset[None, :] + k[:, None] * right_stride
    for start in range(0, width, BLOCK):
        k_mask = k < width - start
        x = tl.load(left + left_at, mask=left_mask[:, None] & k_mask[None, :], other=0.0)
        y = tl.load(right + right_at, mask=right_mask[None, :] & k_mask[:, None], other=0.0)
        total = tl.dot(x, y, total, input_precision=PRECISION, out_dtype=SUM)
        left += BLOCK * left_stride
        right += BLOCK * right_stride
    return total


@jit
@no_type_check
def _gram(
    a_i, g_i, a_j, g_j, out, n, m, P, Q, d, o,
    ai_b, ai_n, ai_p, ai_d, gi_b, gi_n, gi_p, gi_o, aj_b, aj_m, aj_q, aj_d, gj_b, gj_m, gj_q, gj_o,
    I: tl.constexpr, S: tl.constexpr, J: tl.constexpr, T: tl.constexpr, BLOCK: tl.constexpr,
    SYMMETRIC: tl.constexpr, PRECISION: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Write one tile of pairs, I x J of them; where the sides are the same, only from the diagonal up, and mirrored.

    Where the tile begins is one pointer of 64 bits, moved from block to block; inside it offsets have 32 bits and do
    not change. So a tensor may have more than 2^31 numbers, and a thread keeps no addresses of 64 bits.
    """
    tiles_across = tl.cdiv(m, J)
    program = tl.program_id(0)
    batch = (program // (tl.cdiv(n, I) * tiles_across)).to(tl.int64)
    first_i = (program // tiles_across) % tl.cdiv(n, I) * I
    first_j = program % tiles_across * J
    if (not SYMMETRIC) or (first_j >= first_i):
        row, column = tl.arange(0, I * S), tl.arange(0, J * T)
        at_i, at_j = first_i.to(tl.int64), first_j.to(tl.int64)
        ai, gi = a_i + batch * ai_b + at_i * ai_n, g_i + batch * gi_b + at_i * gi_n
        ai_at, gi_at = row // S * ai_n + row % S * ai_p, row // S * gi_n + row % S * gi_p
        aj_at, gj_at = column // T * aj_m + column % T * aj_q, column // T * gj_m + column % T * gj_q
        total = tl.zeros((I * S, J * T), dtype=SUM)
        for first_p in range(0, P, S):
            left = (row // S < n - first_i) & (row % S < P - first_p)
            aj, gj = a_j + batch * aj_b + at_j * aj_m, g_j + batch * gj_b + at_j * gj_m
            for first_q in range(0, Q, T):
                right = (column // T < m - first_j) & (column % T < Q - first_q)
                a_products = _inner_products(ai, aj, ai_at, aj_at, left, right, d, ai_d, aj_d,
                                      I * S, J * T, BLOCK, PRECISION, SUM)  # fmt: skip
                g_products = _inner_products(gi, gj, gi_at, gj_at, left, right, o, gi_o, gj_o,
                                      I * S, J * T, BLOCK, PRECISION, SUM)  # fmt: skip
                total += a_products * g_products
                aj += T * aj_q
                gj += T * gj_q
            ai += S * ai_p
            gi += S * gi_p
        pairs = tl.sum(tl.sum(tl.reshape(total, (I, S, J, T)), 3), 1).to(out.dtype.element_ty)
        i, j = tl.arange(0, I)[:, None], tl.arange(0, J)[None, :]
        mask = (i < n - first_i) & (j < m - first_j)
        whole = out + batch * n * m
        if SYMMETRIC:
            mask = mask & (first_i + i <= first_j + j)
            tl.store(whole + at_j * m + at_i + (j * m + i), pairs, mask=mask)
        tl.store(whole + at_i * m + at_j + (i * m + j), pairs, mask=mask)


class Tiles(NamedTuple):
    """The constants of one build: examples and positions of a tile's sides, the block of d and o, warps and stages.

    ``registers`` is the most a thread may have. Left to itself the assembler aims at 128, so that two programs share a
    multiprocessor, and spills what does not fit.
    """

    I: int
    S: int
    J: int
    T: int
    BLOCK: int
    warps: int = 8
    stages: int = 2
    registers: int = 255


def tiles_for(n: int, P: int, m: int, Q: int, dtype: torch.dtype, precision: str, *, aligned: bool = False) -> Tiles:
    """Return tiles with the least padding, of 64 x 64 products.

    The three tiles of sums and one block of each factor have to fit into 255 registers a thread. Without tensor cores
    (float32 as it stands, and float64) a thread holds its part of both blocks, and there is no room for the next one
    (stages). The constants are those with which no build spills (``tests/kernels/test_resources.py``).

    Args:
        n: examples of the left side.
        P: its positions.
        m: examples of the right side.
        Q: its positions.
        dtype: of the factors.
        precision: "ieee" or "tf32".
        aligned: widths and strides are multiples of 16. Then float32 needs fewer registers, on sm_80 and sm_90 half.
    """
    sides = (*tile_split(n, P, SIDE), *tile_split(m, Q, SIDE))
    if dtype in (torch.float16, torch.bfloat16):
        return Tiles(*sides, BLOCK=32)
    if dtype == torch.float32 and precision == "tf32":
        return Tiles(*sides, BLOCK=16)
    return Tiles(*sides, BLOCK=16, stages=1, registers=160 if aligned and dtype == torch.float32 else 255)


def tile_split(n: int, P: int, side: int) -> tuple[int, int]:
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
    aligned = all(
        x.stride(-1) == 1 and all(step % 16 == 0 for step in (x.shape[-1], *x.stride()[:-1]))
        for x in (a_i, g_i, a_j, g_j)
    )
    tiles = tiles_for(n, P, m, Q, a_i.dtype, precision, aligned=aligned)
    grid = (b * triton.cdiv(n, tiles.I) * triton.cdiv(m, tiles.J),)
    strides = [step for x in (a_i, g_i, a_j, g_j) for step in x.stride()]
    require_near(tiles, a_i, g_i, a_j, g_j, out)
    with torch.cuda.device(a_i.device) if a_i.is_cuda else nullcontext():
        _gram[grid](
            a_i, g_i, a_j, g_j, out, n, m, P, Q, d, o, *strides,
            *constants(tiles, a_i.dtype, symmetric=symmetric, precision=precision).values(),
            **compiler_options(tiles),
        )  # fmt: skip
    return out


def require_near(tiles: Tiles, a_i: Tensor, g_i: Tensor, a_j: Tensor, g_j: Tensor, out: Tensor) -> None:
    """Raise a ValueError where one tile reaches over more than 2^31 numbers of memory, which offsets do not hold."""
    examples = ((a_i, tiles.I, tiles.S), (g_i, tiles.I, tiles.S), (a_j, tiles.J, tiles.T), (g_j, tiles.J, tiles.T))
    for x, count, positions in examples:
        _, of_example, of_position, of_number = x.stride()
        reach = count * of_example + positions * of_position + tiles.BLOCK * of_number
        if reach >= 2**31:
            raise ValueError(
                f"a tile of the kernel would reach over {reach} numbers of a tensor of shape {list(x.shape[1:])}, 2^31 "
                "and more; pass a contiguous tensor, or use('torch')."
            )
    if SIDE * max(out.shape[1:]) >= 2**31:
        raise ValueError(f"a Gram of {list(out.shape[1:])} is too wide for the kernel; use('torch').")


def constants(tiles: Tiles, dtype: torch.dtype, *, symmetric: bool, precision: str) -> dict[str, object]:
    """Return the constants of a build, in the kernel's order."""
    return {
        "I": tiles.I, "S": tiles.S, "J": tiles.J, "T": tiles.T, "BLOCK": tiles.BLOCK,
        "SYMMETRIC": symmetric, "PRECISION": precision, "SUM": tl.float64 if dtype == torch.float64 else tl.float32,
    }  # fmt: skip


def compiler_options(tiles: Tiles) -> dict[str, object]:
    """Return what a build is compiled with."""
    return {
        "num_warps": tiles.warps, "num_stages": tiles.stages, "maxnreg": tiles.registers, "enable_fp_fusion": FP_FUSION,
    }  # fmt: skip


def interpreted() -> bool:
    """Return whether Triton was imported with its interpreter on: kernels then run on the CPU, slowly."""
    if triton is None:
        return False
    from triton.runtime.interpreter import InterpretedFunction

    return all(isinstance(function, InterpretedFunction) for function in (_gram, tl.zeros))

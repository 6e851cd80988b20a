"""Moments of a linear layer with Gaussian weights in Triton: each tile of inputs and weights is read once, for both.

    mu_y = W mu_x + mu_b          var_y = S (mu_x^2 + var_x) + W^2 var_x + var_b

with W and S, mean and variance of the weights.

One program owns a tile of examples and outputs and walks over blocks of inputs; squares are made in registers. Plain
PyTorch reads the inputs and the weights three times and writes their squares and each part of the variance. Sums run in
a fixed order and nothing is added atomically.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.kernels.gram_triton import FP_FUSION, jit, tl, triton


@jit
@no_type_check
def _linear_moments(
    mean, variance, weight, spread, bias, bias_spread, out_mean, out_variance, n, o, d,
    m_b, m_n, m_d, v_b, v_n, v_d, w_b, w_o, w_d, s_b, s_o, s_d, c_b, c_o, t_b, t_o,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, RANDOM: tl.constexpr, BIAS: tl.constexpr,
    PRECISION: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """Write one tile of both moments. RANDOM: the inputs have a variance; BIAS: there are biases."""
    across = tl.cdiv(o, COLUMNS)
    program = tl.program_id(0)
    batch = (program // (tl.cdiv(n, ROWS) * across)).to(tl.int64)
    first_row, first_column = program // across % tl.cdiv(n, ROWS) * ROWS, program % across * COLUMNS
    row, column, k = tl.arange(0, ROWS), tl.arange(0, COLUMNS), tl.arange(0, BLOCK)
    row_mask, column_mask = row < n - first_row, column < o - first_column
    mean += batch * m_b + first_row.to(tl.int64) * m_n
    weight += batch * w_b + first_column.to(tl.int64) * w_o
    spread += batch * s_b + first_column.to(tl.int64) * s_o
    if RANDOM:
        variance += batch * v_b + first_row.to(tl.int64) * v_n
    total, of_variance = tl.zeros((ROWS, COLUMNS), dtype=SUM), tl.zeros((ROWS, COLUMNS), dtype=SUM)
    for start in range(0, d, BLOCK):
        left_mask = row_mask[:, None] & (k < d - start)[None, :]
        right_mask = (k < d - start)[:, None] & column_mask[None, :]
        x = tl.load(mean + (row[:, None] * m_n + k[None, :] * m_d), mask=left_mask, other=0.0)
        w = tl.load(weight + (column[None, :] * w_o + k[:, None] * w_d), mask=right_mask, other=0.0)
        total = tl.dot(x, w, total, input_precision=PRECISION, out_dtype=SUM)
        second = x * x
        if RANDOM:
            v = tl.load(variance + (row[:, None] * v_n + k[None, :] * v_d), mask=left_mask, other=0.0)
            of_variance = tl.dot(v, w * w, of_variance, input_precision=PRECISION, out_dtype=SUM)
            second += v
            variance += BLOCK * v_d
        s = tl.load(spread + (column[None, :] * s_o + k[:, None] * s_d), mask=right_mask, other=0.0)
        of_variance = tl.dot(second, s, of_variance, input_precision=PRECISION, out_dtype=SUM)
        mean += BLOCK * m_d
        weight += BLOCK * w_d
        spread += BLOCK * s_d
    if BIAS:
        at = (first_column + column).to(tl.int64)
        total += tl.load(bias + batch * c_b + at * c_o, mask=column_mask, other=0.0)[None, :]
        of_variance += tl.load(bias_spread + batch * t_b + at * t_o, mask=column_mask, other=0.0)[None, :]
    at = (batch * n + first_row) * o + first_column + (row[:, None] * o + column[None, :])
    mask = row_mask[:, None] & column_mask[None, :]
    tl.store(out_mean + at, total, mask=mask)
    tl.store(out_variance + at, of_variance, mask=mask)


class Tiles(NamedTuple):
    """The constants of one build: examples and outputs of a tile, inputs at a time, warps, stages and registers."""

    rows: int
    columns: int
    block: int = 16
    warps: int = 8
    stages: int = 1
    registers: int = 255


def tiles_for(dtype: torch.dtype, precision: str) -> Tiles:
    """Return the constants with which no build spills.

    Args:
        dtype: float32 or float64.
        precision: "ieee" or "tf32".
    """
    if dtype == torch.float64:
        return Tiles(32, 32)
    return Tiles(64, 64 if precision == "tf32" else 32)


def launch(
    mean: Float[Tensor, "b n d"],
    variance: Float[Tensor, "b n d"] | None,
    weight: Float[Tensor, "b o d"],
    spread: Float[Tensor, "b o d"],
    bias: Float[Tensor, "b o"] | None,
    bias_spread: Float[Tensor, "b o"] | None,
    *,
    precision: str,
) -> tuple[Float[Tensor, "b n o"], Float[Tensor, "b n o"]]:
    """Return mean and variance of the outputs of each of b layers, from one launch; any strides, also 0.

    Args:
        mean: of the inputs, on a GPU (on the CPU under Triton's interpreter).
        variance: of the inputs, or None.
        weight: means of the weights.
        spread: their variances.
        bias: means of the biases, or None.
        bias_spread: their variances, or None.
        precision: of products in float32, "ieee" or "tf32".

    Raises:
        ValueError: one tile reaches over more than 2^31 numbers of memory, or there are too many tiles.
    """
    (b, n, d), o = mean.shape, weight.shape[-2]
    tiles = tiles_for(mean.dtype, precision)
    out_mean, out_variance = (mean.new_empty(b, n, o) for _ in range(2))
    programs = b * triton.cdiv(n, tiles.rows) * triton.cdiv(o, tiles.columns)
    stand_in = [mean if variance is None else variance, weight, spread]
    reach = max(tiles.rows * abs(x.stride(1)) + tiles.block * abs(x.stride(2)) for x in (mean, *stand_in))
    if max(reach, tiles.rows * o, programs) >= 2**31:
        raise ValueError(
            f"a layer of {n} x {d} inputs and {o} outputs reaches too far in memory for the kernel; pass contiguous "
            "tensors, or use('torch')."
        )
    if not programs:
        return out_mean, out_variance
    biases = (weight[..., 0], weight[..., 0]) if bias is None else (bias, bias_spread)
    strides = [step for x in (mean, *stand_in, *biases) for step in x.stride()]
    fixed = constants(tiles, mean.dtype, random=variance is not None, bias=bias is not None, precision=precision)
    with torch.cuda.device(mean.device) if mean.is_cuda else nullcontext():
        _linear_moments[(programs,)](
            mean, *stand_in, *biases, out_mean, out_variance, n, o, d, *strides,
            *fixed.values(), **compiler_options(tiles),
        )  # fmt: skip
    return out_mean, out_variance


def constants(tiles: Tiles, dtype: torch.dtype, *, random: bool, bias: bool, precision: str) -> dict[str, object]:
    """Return the constants of a build, in the kernel's order."""
    return {
        "ROWS": tiles.rows, "COLUMNS": tiles.columns, "BLOCK": tiles.block, "RANDOM": random, "BIAS": bias,
        "PRECISION": precision, "SUM": tl.float64 if dtype == torch.float64 else tl.float32,
    }  # fmt: skip


def compiler_options(tiles: Tiles) -> dict[str, object]:
    """Return what a build is compiled with."""
    return {
        "num_warps": tiles.warps, "num_stages": tiles.stages, "maxnreg": tiles.registers, "enable_fp_fusion": FP_FUSION,
    }  # fmt: skip

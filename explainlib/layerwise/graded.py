r"""Gram matrices of gradients on the processor's whole-number matrix units, where that is as exact as float32.

In the bases of ``compression`` a small core of each gradient holds nearly all of its energy. The core is multiplied in
float32. What is outside it, R_i, becomes a fixed-point number of two digits and 14 bits,

    R_i ~ s_i (128 H_i + L_i),    H and L in -64 .. 64,

and products of whole numbers are exact. By Karatsuba's trick three of them do for two digits,

    H_i L_j + L_i H_j = (H_i + L_i)(H_j + L_j) - H_i H_j - L_i L_j.

What is still smaller, far outside the core, is one digit of 8 bits.

Rounding changes <M_i, M_j> by <R_i - R~_i, R_j> + <R~_i, R_j - R~_j>: both factors are small, so the error is of second
order in what is outside the core. It is measured on a sample of rows, not assumed: where it exceeds float32's own, all
is done in float32.

Source: Ozaki et al. 2012 (float products through exact ones); Karatsuba & Ofman 1962.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.layerwise.compression import Factors, Short
from explainlib.layerwise.positions import add_product, formed, formed_columns, formed_gram, mirrored, slices

TOP = 8127  # 128 * 63.49: the largest number that leaves H + L within 8 bits
WIDEST = 2**17  # numbers whose products of 8 bits sum within 32
BLOCK = 256  # rows of a product of whole numbers
CACHED = 2**17  # numbers that are rounded at a time
SAMPLE = 8  # rows whose error is measured
ALLOWED = 8  # rounding units, relative to the lengths of the two gradients


class Digits(NamedTuple):
    """Rows as whole numbers: s (128 H + L) of H, L and H + L, or s H of H alone."""

    scale: Float[Tensor, " n"]
    digits: tuple[Tensor, ...]

    def part(self, rows: slice | Tensor) -> Digits:
        """Return some of the rows."""
        return Digits(self.scale[rows], tuple(x[rows] for x in self.digits))


def available(x: Tensor) -> bool:
    """Return whether products of 8-bit numbers run on matrix units (AMX) here, and tensors like x are of use for it."""
    supported = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)  # not in every release
    return x.device.type == "cpu" and x.dtype == torch.float32 and supported()


def graded_gram(short: Short, *, memory: int) -> Float[Tensor, "n m"]:
    """Return the Gram matrix of gradients that have a core.

    Args:
        short: both sides in the bases, from ``compressed``.
        memory: bytes of formed gradient columns.
    """
    (r, s), left, right = short.core, short.left, short.right
    same = left[0] is right[0] and left[1] is right[1]
    out = left[0].new_zeros(len(left[0]), len(right[0]))
    rows = torch.linspace(0, len(out) - 1, min(SAMPLE, len(out))).long()
    error = out.new_zeros(len(rows), out.shape[1])
    core, core_ = ((a[:, :, -r:], g[:, :, -s:]) for a, g in (left, right))
    for mine, theirs in formed_columns(core, core if same else core_, memory=memory):
        add_product(out, mine, theirs)
    numbers = max(1, memory // (len(left[0]) if same else len(left[0]) + len(right[0])))  # of a byte a row
    rooms = [torch.empty(numbers * len(side[0]), dtype=torch.int8) for side in (left, right)[: 2 - same]]
    for columns, beside, two in _outside(short, numbers):
        part, part_ = ((a[:, :, columns], g[:, :, beside]) for a, g in (left, right))
        some = formed(part[0][rows], part[1][rows]).flatten(1)
        theirs, exact = _rounded(part_, some, two, rooms[-1])
        mine = theirs if same else _rounded(part, some, two, rooms[0])[0]
        _add_whole(out, mine, theirs, same)
        error += exact - _whole(mine.part(rows), theirs)
    lengths = (short.sizes[0][rows, None] * short.sizes[1]).sqrt()
    if (error.abs() > ALLOWED * torch.finfo(out.dtype).eps * lengths).any():
        return formed_gram(*left, *right, memory=memory)
    return mirrored(out, BLOCK) if same else out


def _outside(short: Short, numbers: int) -> list[tuple[slice, slice, bool]]:
    """Return what is outside the core as directions of the input and of the output, and whether it has two digits.

    A few columns of the input at a time, as many as there is room for their digits.
    """
    (r, s), (a, g) = short.core, short.left
    d, o = a.shape[2], g.shape[2]
    r_, s_ = (max(inner, min(near, size)) for inner, near, size in zip((r, s), short.near, (d, o), strict=True))
    boxes = [
        (0, d - r_, slice(0, o), False),
        (d - r_, d, slice(0, o - s_), False),
        (d - r_, d - r, slice(o - s_, o), True),
        (d - r, d, slice(o - s_, o - s), True),
    ]
    found = []
    for start, stop, beside, two in boxes:
        height = beside.stop - beside.start
        if height and stop > start:
            widest = max(1, min(WIDEST, numbers // (3 if two else 1)) // height)
            parts = math.ceil((stop - start) / widest)
            width = math.ceil((stop - start) / parts)
            found += [(slice(start + c.start, start + c.stop), beside, two) for c in slices(stop - start, width)]
    return found


def _rounded(
    factors: Factors, some: Float[Tensor, "k c"], two: bool, room: Tensor
) -> tuple[Digits, Float[Tensor, "k n"]]:
    """Return formed gradients as one or two digits, and the products of some rows with what they were before."""
    a, g = factors
    n, c, top = len(a), a.shape[2] * g.shape[2], TOP if two else 127
    kinds = 3 if two else 1
    room = room if len(room) >= kinds * n * c else torch.empty(kinds * n * c, dtype=torch.int8)  # one column is wider
    digits = room[: kinds * n * c].view(kinds, n, c).unbind()
    scale, exact = a.new_empty(n), a.new_empty(len(some), n)
    for rows in slices(n, CACHED // c):
        block = formed(a[rows], g[rows]).flatten(1)
        exact[:, rows] = some @ block.T
        scale[rows] = unit = block.abs().amax(1).clamp(min=torch.finfo(block.dtype).tiny * top) / top
        block = block.mul_(unit.reciprocal()[:, None]).round_()
        if two:
            high, low, both = digits
            upper = (block * (1 / 128)).round_()
            high[rows], low[rows] = upper, block.sub_(upper, alpha=128)
            both[rows] = upper.add_(block)
        else:
            digits[0][rows] = block
    return Digits(scale, digits), exact


def _whole(mine: Digits, theirs: Digits) -> Float[Tensor, "n m"]:
    """Return the inner products of rows of digits; exact up to the sum of the three products in float32."""
    high, *rest = (torch._int_mm(x, y.T) for x, y in zip(mine.digits, theirs.digits, strict=True))
    total, unit = high.to(mine.scale.dtype), mine.scale
    if rest:
        low, both = rest
        cross, unit = both.sub_(high).sub_(low), 128**2 * mine.scale
        total = total.add_(cross, alpha=1 / 128).add_(low, alpha=1 / 128**2)
    return total.mul_(unit[:, None]).mul_(theirs.scale)


def _add_whole(out: Float[Tensor, "n m"], mine: Digits, theirs: Digits, same: bool) -> None:
    """Add the inner products to out, where the sides are the same on the diagonal's blocks and above them."""
    for rows in slices(len(out), BLOCK):
        columns = slice(rows.start if same else 0, out.shape[1])
        out[rows, columns] += _whole(mine.part(rows), theirs.part(columns))

r"""Gram matrices of gradients on the processor's whole-number matrix units, where that is as exact as float32.

``grades`` sorts a gradient's numbers. The core is multiplied in float32. What is outside it, R_i, becomes a fixed-point
number of two digits and 14 bits,

    R_i ~ s_i (128 H_i + L_i),    H and L in -64 .. 64,

and products of whole numbers are exact. By Karatsuba's trick three of them do for two digits,

    H_i L_j + L_i H_j = (H_i + L_i)(H_j + L_j) - H_i H_j - L_i L_j.

What is still smaller is one digit of 8 bits, and what is smaller than rounding is left out.

Rounding changes <M_i, M_j> by <R_i - R~_i, R_j> + <R~_i, R_j - R~_j>: both factors are small, so the error is of second
order in what is outside the core. It is measured on a sample of rows, not assumed: where it exceeds float32's own, all
is done in float32.

Source: Ozaki et al. 2012 (float products through exact ones); Karatsuba & Ofman 1962.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from explainlib.layerwise.compression import Factors, Short, energy
from explainlib.layerwise.grades import ONE, TWO, Tile, chunks
from explainlib.layerwise.positions import CACHED, add_product, formed, formed_gram, mirrored, slices

BLOCK = 256  # rows of a product of whole numbers
ROUNDED = 2**18  # numbers that are rounded at a time
SAMPLE = 8  # rows whose error is measured
JUDGED = 512  # rows of which is measured what is left out
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
    """Return the Gram matrix of gradients that have grades.

    Args:
        short: both sides in the bases, from ``compressed``.
        memory: bytes of formed gradient columns.
    """
    left, right, grades = short
    same, out = short.same, left[0].new_zeros(len(left[0]), len(right[0]))
    _add_core(out, short, memory=memory)
    check = _Check.of(out)
    numbers = memory // (len(out) if same else sum(out.shape))  # of a byte a row
    parts = [(part, True) for part in chunks(grades.two, numbers // 3)]
    parts += [(part, False) for part in chunks(grades.one, numbers)]
    rooms = [_room(parts, len(side[0])) for side in (left, right)[: 2 - same]]
    for part, two in parts:
        some = _columns(left, part, check.rows)
        theirs, exact = _rounded(right, part, two, some, rooms[-1])
        mine = theirs if same else _rounded(left, part, two, some, rooms[0])[0]
        check.error += exact
        _add_whole(out, mine, theirs, check)
    if not check.passes(out, short):
        return formed_gram(*left, *right, memory=memory)
    return mirrored(out, BLOCK) if same else out


@dataclass
class _Check:
    """What rounding changed in some rows of the result.

    Args:
        rows: which.
        error: the exact products less those of whole numbers, where they were seen.
        seen: of a symmetric result, only the blocks on the diagonal and above are.
    """

    rows: Int[Tensor, " k"]
    error: Float[Tensor, "k m"]
    seen: Bool[Tensor, "k m"]

    @classmethod
    def of(cls, out: Float[Tensor, "n m"]) -> _Check:
        """Return that of a result, evenly spread over its rows."""
        rows = torch.linspace(0, len(out) - 1, min(SAMPLE, len(out))).long()
        error = out.new_zeros(len(rows), out.shape[1])
        return cls(rows, error, torch.zeros_like(error, dtype=torch.bool))

    def subtract(self, value: Float[Tensor, "b c"], rows: slice, columns: slice) -> None:
        """Subtract a block of the products of whole numbers."""
        for k, row in enumerate(self.rows.tolist()):
            if rows.start <= row < rows.stop:
                self.error[k, columns] -= value[row - rows.start]
                self.seen[k, columns] = True

    def passes(self, out: Float[Tensor, "n m"], short: Short) -> bool:
        """Return whether the errors are within float32's, relative to the lengths of the two gradients."""
        left, right, grades = short
        squares = [out.diagonal()] if short.same else [energy(*left), energy(*right)]
        lengths = (squares[0][self.rows, None] * squares[-1]).clamp(min=0).sqrt()
        share = max(_left_out(side, size, grades.none) for side, size in zip((left, right), squares, strict=False))
        allowed = (ALLOWED * torch.finfo(out.dtype).eps - share) * lengths
        return not ((self.error.abs() > allowed) & self.seen).any()


def _left_out(side: Factors, size: Float[Tensor, " n"], none: list[Tile]) -> float:
    """Return the largest share of a gradient's energy outside all grades, in a sample."""
    rows = torch.linspace(0, len(size) - 1, min(JUDGED, len(size))).long()
    rows = rows[size[rows] > 0]
    if not len(rows):
        return 0.0
    a, g = (factor[rows] for factor in side)
    outside = sum((energy(a[:, :, t.inputs], g[:, :, t.outputs]) for t in none), start=a.new_zeros(len(a)))
    return float((outside / size[rows]).max())


def _add_core(out: Float[Tensor, "n m"], short: Short, *, memory: int) -> None:
    """Add the inner products of the numbers in the core, in float32."""
    numbers = min(memory, CACHED) // (out.element_size() * (len(out) if short.same else sum(out.shape)))
    for part in chunks(short.grades.core, numbers):
        mine = _columns(short.left, part)
        add_product(out, mine, mine if short.same else _columns(short.right, part))


def _columns(side: Factors, part: list[Tile], rows: Tensor | slice = slice(None)) -> Float[Tensor, "n c"]:
    """Return formed gradients of some examples, in some tiles."""
    a, g = (factor[rows] for factor in side)
    found = [formed(a[:, :, tile.inputs], g[:, :, tile.outputs]).flatten(1) for tile in part]
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def _room(parts: list[tuple[list[Tile], bool]], n: int) -> Tensor:
    """Return room for the digits of the largest part; memory that was just allocated costs more than rounding."""
    return torch.empty(max((_size(part) * (3 if two else 1) * n for part, two in parts), default=0), dtype=torch.int8)


def _size(part: list[Tile]) -> int:
    return sum(tile.numbers for tile in part)


def _rounded(
    side: Factors, part: list[Tile], two: bool, some: Float[Tensor, "k c"], room: Tensor
) -> tuple[Digits, Float[Tensor, "k n"]]:
    """Return formed gradients as one or two digits, and the products of some rows with what they were before."""
    a, g = side
    n, c, kinds, top = len(a), _size(part), *((3, TWO) if two else (1, ONE))
    digits = room[: kinds * n * c].view(kinds, n, c)
    stops = accumulate(tile.numbers for tile in part)
    places = [slice(stop - tile.numbers, stop) for tile, stop in zip(part, stops, strict=True)]
    scale, exact, cache = a.new_empty(n), a.new_zeros(len(some), n), a.new_empty(max(ROUNDED, c))
    for rows in slices(n, ROUNDED // c):
        k, blocks = rows.stop - rows.start, []
        for tile, place in zip(part, places, strict=True):
            to = cache[k * place.start : k * place.stop]
            blocks.append(formed(a[rows, :, tile.inputs], g[rows, :, tile.outputs], to).flatten(1))
        peak = torch.stack([torch.maximum(block.amax(1), -block.amin(1)) for block in blocks]).amax(0)
        scale[rows] = unit = peak.clamp(min=torch.finfo(peak.dtype).tiny * top) / top
        for block, place in zip(blocks, places, strict=True):
            exact[:, rows] += some[:, place] @ block.T
            _write(block.mul_(unit.reciprocal()[:, None]).round_(), digits[:, rows, place])
    return Digits(scale, digits.unbind()), exact


def _write(block: Float[Tensor, "b c"], to: Tensor) -> None:
    """Write whole numbers as one digit, or as H, L and H + L."""
    if len(to) == 1:
        to[0] = block
        return
    upper = (block * (1 / 128)).round_()
    to[0], to[1] = upper, block.sub_(upper, alpha=128)
    to[2] = upper.add_(block)


def _whole(mine: Digits, theirs: Digits, rooms: Tensor | None = None) -> Float[Tensor, "n m"]:
    """Return the inner products of rows of digits; the products are exact, their sum is rounded to float32.

    With T_i = H_i + L_i, what is summed is H H' + (T T' - H H' - L L') / 128 + L L' / 128^2, in three terms.
    """
    n, m = len(mine.scale), len(theirs.scale)
    if rooms is None:
        rooms = torch.empty(3, n * m, dtype=torch.int32)
    high, *rest = (
        torch._int_mm(x, y.T, out=room[: n * m].view(n, m))
        for x, y, room in zip(mine.digits, theirs.digits, rooms, strict=False)
    )
    total, unit = high.to(mine.scale.dtype), mine.scale
    if rest:
        low, both = rest
        total.add_(both, alpha=1 / 127).add_(low, alpha=-1 / 128)
        unit = 128 * 127 * unit
    return total.mul_(unit[:, None]).mul_(theirs.scale)


def _add_whole(out: Float[Tensor, "n m"], mine: Digits, theirs: Digits, check: _Check) -> None:
    """Add the inner products to out, where the sides are the same on the diagonal's blocks and above them."""
    rooms = torch.empty(3, BLOCK * out.shape[1], dtype=torch.int32)
    for rows in slices(len(out), BLOCK):
        columns = slice(rows.start if mine is theirs else 0, out.shape[1])
        value = _whole(mine.part(rows), theirs.part(columns), rooms)
        check.subtract(value, rows, columns)
        out[rows, columns] += value

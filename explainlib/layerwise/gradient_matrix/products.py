r"""Products with the matrix of per-example gradients G [n, p], not materialised: G G'^T, the row norms, G v and G^T w.

Everything runs in tiles of rows: a tile's layers are captured (or found in memory), each parameter adds its part, and
the tile is freed. The memory limit counts rows in memory and temporary numbers, not the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_indices, require_same_kind, require_shape, require_tensor
from explainlib.layerwise.gradient_matrix.capture import Capture, GradientSource
from explainlib.layerwise.outer_products import TILE
from explainlib.memory import format_bytes, memory_limit, require_memory, slices

Gradients = Capture | GradientSource


@compute.entry
def gram(a: Gradients, b: Gradients, *, memory: int | float | None = None) -> Float[Tensor, "t n"]:
    """Return the inner products of all gradients of a with all of b.

    Args:
        a: t rows.
        b: n rows of the same parameters at the same theta; the very same object halves the work by symmetry.
        memory: bytes to work with beside the result; None is a quarter of what is free.

    Returns:
        [t, n]. Cost: per weight and pair of rows, the cheaper of the two routes of ``position_gram``.

    Raises:
        ValueError: gradients of different parameters, or memory below what one tile takes.
    """
    if a.theta.shape != b.theta.shape:
        raise ValueError(f"a has {a.theta.numel()} parameters, b {b.theta.numel()}; take both from one Parameters.")
    require_same_kind("a", a.theta, "b", b.theta)
    limit, symmetric = memory_limit(memory, a.theta.device), a is b
    cache = max(0, limit - 2 * _smallest_tile_bytes(a, b)) // 3  # rows in memory must leave space for the tiles
    left = a.cached(cache)
    right = left if symmetric else b.cached(cache)
    free = limit - _cache_bytes(left, a) - (0 if symmetric else _cache_bytes(right, b))
    height, width, work = _tile_shape(left, right, free, symmetric)
    out = a.theta.new_zeros(a.n, b.n)
    for i in slices(a.n, height):
        tile = left.tile(i.start, i.stop)
        for j in slices(b.n, width):
            if symmetric and j.start < i.start:
                out[i, j] = out[j, i].T
                continue
            other = tile if symmetric and i == j else right.tile(j.start, j.stop)
            for block, block_ in zip(tile.blocks, other.blocks, strict=True):
                out[i, j] += block.gram(block_, memory=work)
    return out


@compute.entry
def norms(a: Gradients, *, memory: int | float | None = None) -> Float[Tensor, " n"]:
    """Return the squared length of each gradient, the diagonal of ``gram(a, a)``."""
    tiles, work = _row_tiles(a, memory)
    parts = [
        sum(block.squared_norms(memory=work) for block in a.tile(rows.start, rows.stop).blocks) for rows in tiles
    ]  # fmt: skip
    return torch.cat(parts)


@compute.entry
def product(a: Gradients, vectors: Float[Tensor, "k p"], *, memory: int | float | None = None) -> Float[Tensor, "n k"]:
    """Return the inner products G v of each gradient with flat parameter vectors.

    Args:
        a: n rows.
        vectors: in the order of the chosen parameters.
        memory: bytes to work with; None is a quarter of what is free.

    Raises:
        ValueError: vectors of another length, or memory below what one row takes.
    """
    require_shape(
        "vectors", require_tensor("vectors", vectors), [None, a.theta.numel()], meaning="(rows of parameters)"
    )
    require_same_kind("vectors", vectors, "the gradients", a.theta)
    tiles, work = _row_tiles(a, memory)
    parts = [
        sum(block.product(vectors, memory=work) for block in a.tile(rows.start, rows.stop).blocks) for rows in tiles
    ]  # fmt: skip
    return torch.cat(parts)


@compute.entry
def combination(
    a: Gradients, weights: Float[Tensor, "k n"], *, memory: int | float | None = None
) -> Float[Tensor, "k p"]:
    """Return the weighted sums G^T w of the gradients, the adjoint of ``product``.

    Args:
        a: n rows.
        weights: one for each row.
        memory: bytes to work with; None is a quarter of what is free.

    Raises:
        ValueError: weights of another length, or memory below what one row takes.
    """
    require_shape("weights", require_tensor("weights", weights), [None, a.n], meaning="(one weight for each gradient)")
    require_same_kind("weights", weights, "the gradients", a.theta)
    tiles, work = _row_tiles(a, memory)
    out = a.theta.new_zeros(len(weights), a.theta.numel())
    for rows in tiles:
        for block in a.tile(rows.start, rows.stop).blocks:
            block.add_combination(out, weights[:, rows], memory=work)
    return out


@compute.entry
def per_example(a: Gradients, rows: Sequence[int] | Int[Tensor, " m"] | None = None) -> Float[Tensor, "m p"]:
    """Return the gradients themselves, materialised: for small numbers of them, and as an oracle.

    Args:
        a: n rows.
        rows: which of them, distinct; None is all.

    Raises:
        ValueError, TypeError: a row that is not there.
    """
    chosen = range(a.n) if rows is None else require_indices(rows, a.n, name="rows", of="gradients").tolist()
    k, p = a.rows_per_example, a.theta.numel()
    size = len(chosen) * p * a.theta.element_size()
    otherwise = "name fewer rows, or use gram, norms, product and combination, which materialise none"
    require_memory(f"{len(chosen):,} gradients of p = {p:,} parameters", size, a.theta.device, otherwise=otherwise)
    out = a.theta.new_zeros(len(chosen), p)
    for examples in slices(a.n // k, 64):
        tile = slice(examples.start * k, examples.stop * k)
        pairs = [(i, row - tile.start) for i, row in enumerate(chosen) if tile.start <= row < tile.stop]
        if not pairs:
            continue
        part = out.new_zeros(tile.stop - tile.start, p)
        for block in a.tile(tile.start, tile.stop).blocks:
            block.materialise_into(part)
        target, source = (torch.tensor(side, device=out.device) for side in zip(*pairs, strict=True))
        out[target] = part[source]
    return out


def _cache_bytes(cached: Gradients, given: Gradients) -> int:
    """Return the bytes that caching ``given`` takes."""
    return 0 if cached is given else cached.n * cached.row_bytes


def _row_bytes(a: Gradients) -> int:
    """Return the bytes of one row of a tile: temporary numbers, and its capture unless it is in memory."""
    return a.working_bytes + (0 if isinstance(a, Capture) else 2 * a.row_bytes)


def _smallest_tile_bytes(a: Gradients, b: Gradients) -> int:
    """Return the bytes of the smallest tile, one example with one."""
    k, k_, item = a.rows_per_example, b.rows_per_example, 2 * a.theta.element_size()
    return k * _row_bytes(a) + k_ * _row_bytes(b) + item * k * k_


def _tile_shape(a: Gradients, b: Gradients, free: int, symmetric: bool) -> tuple[int, int, int]:
    """Return the rows of a tile, its columns, and the bytes left for the temporary numbers of one block.

    A tile of r x s takes r cost + s cost_, and two copies of its r s numbers: one block's part, and a term of it.
    """
    item, cost, cost_ = 2 * a.theta.element_size(), _row_bytes(a), _row_bytes(b)
    work = min(TILE, free // 4)
    available = free - work
    if available < _smallest_tile_bytes(a, b):
        raise _memory_error(free, _smallest_tile_bytes(a, b))
    if symmetric and a.n * cost + item * a.n**2 <= available:  # one tile, both its sides
        return a.n, a.n, work
    side = int((math.sqrt((cost + cost_) ** 2 + 4 * item * available) - cost - cost_) / (2 * item))
    rows = _whole_examples(min(side, a.n), a.rows_per_example)
    if symmetric:
        return rows, rows, work
    columns = _whole_examples(int((available - rows * cost) / (cost_ + item * rows)), b.rows_per_example)
    return rows, min(columns, b.n), work


def _row_tiles(a: Gradients, memory: int | float | None) -> tuple[list[slice], int]:
    """Return slices of rows that fit into the memory, and the bytes left for the temporary numbers of one block."""
    free, cost = memory_limit(memory, a.theta.device), max(1, _row_bytes(a))
    work = min(TILE, free // 4)
    if free - work < a.rows_per_example * cost:
        raise _memory_error(free, a.rows_per_example * cost)
    return slices(a.n, _whole_examples(min((free - work) // cost, a.n), a.rows_per_example)), work


def _whole_examples(rows: int, rows_per_example: int) -> int:
    """Return ``rows`` rounded down to whole examples, at least one."""
    return max(rows_per_example, rows // rows_per_example * rows_per_example)


def _memory_error(free: int, smallest: int) -> ValueError:
    return ValueError(
        f"memory leaves {format_bytes(free)} for a tile, but the smallest tile (one example with one) takes "
        f"{format_bytes(-(-4 * smallest // 3))}; raise memory to at least that, or pass memory=None."
    )

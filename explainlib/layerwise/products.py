r"""What is made of per-example gradients G [n, p] without forming them: G G'^T, the row norms, G v and G^T w.

Everything runs in tiles of rows: a tile's layers are captured (or found in memory), each weight adds its part, and the
tile goes. The memory limit counts what is held and what is worked with, not the result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_indices, require_same_kind, require_shape, require_tensor
from explainlib.layerwise.capture import Capture, GradientSource
from explainlib.layerwise.positions import TILE, slices
from explainlib.memory import format_bytes, memory_limit, require_memory

Gradients = Capture | GradientSource


@compute.entry
def gram(a: Gradients, b: Gradients, *, memory: int | None = None) -> Float[Tensor, "t n"]:
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
    spare = max(0, limit - 2 * _least_tile(a, b)) // 3  # what is held must not take the place of the tiles
    kept = a.held(spare)
    kept_ = kept if symmetric else b.held(spare)
    free = limit - _newly_held(kept, a) - (0 if symmetric else _newly_held(kept_, b))
    rows, rows_, work = _tile_sides(kept, kept_, free, symmetric)
    out = a.theta.new_zeros(a.n, b.n)
    for i in slices(a.n, rows):
        tile = kept.tile(i.start, i.stop)
        for j in slices(b.n, rows_):
            if symmetric and j.start < i.start:
                out[i, j] = out[j, i].T
                continue
            other = tile if symmetric and i == j else kept_.tile(j.start, j.stop)
            for piece, piece_ in zip(tile.pieces, other.pieces, strict=True):
                out[i, j] += piece.gram(piece_, memory=work)
    return out


@compute.entry
def norms(a: Gradients, *, memory: int | None = None) -> Float[Tensor, " n"]:
    """Return the squared length of each gradient, the diagonal of ``gram(a, a)``."""
    tiles, work = _row_tiles(a, memory)
    return torch.cat([_total(piece.norms(memory=work) for piece in a.tile(s.start, s.stop).pieces) for s in tiles])


@compute.entry
def product(a: Gradients, vectors: Float[Tensor, "k p"], *, memory: int | None = None) -> Float[Tensor, "n k"]:
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
        _total(piece.product(vectors, memory=work) for piece in a.tile(s.start, s.stop).pieces) for s in tiles
    ]  # fmt: skip
    return torch.cat(parts)


@compute.entry
def combination(a: Gradients, weights: Float[Tensor, "k n"], *, memory: int | None = None) -> Float[Tensor, "k p"]:
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
        for piece in a.tile(rows.start, rows.stop).pieces:
            piece.add_combination(out, weights[:, rows], memory=work)
    return out


@compute.entry
def per_example(a: Gradients, rows: Sequence[int] | Int[Tensor, " m"] | None = None) -> Float[Tensor, "m p"]:
    """Return gradients themselves, materialised: for small numbers of them, and as an oracle.

    Args:
        a: n rows.
        rows: which of them, distinct; None is all.

    Raises:
        ValueError, TypeError: a row that is not there.
    """
    chosen = range(a.n) if rows is None else require_indices(rows, a.n, name="rows", of="gradients").tolist()
    k, p = a.several, a.theta.numel()
    size = len(chosen) * p * a.theta.element_size()
    otherwise = "name fewer rows, or use gram, norms, product and combination, which form none"
    require_memory(f"{len(chosen):,} gradients of p = {p:,} parameters", size, a.theta.device, otherwise=otherwise)
    out = a.theta.new_zeros(len(chosen), p)
    runs = [slice(s.start * k, s.stop * k) for s in slices(a.n // k, 64)]
    for run in runs:
        here = [(at, row - run.start) for at, row in enumerate(chosen) if run.start <= row < run.stop]
        if not here:
            continue
        part = a.theta.new_zeros(run.stop - run.start, a.theta.numel())
        for piece in a.tile(run.start, run.stop).pieces:
            piece.write(part)
        to, source = (torch.tensor(side, device=out.device) for side in zip(*here, strict=True))
        out[to] = part[source]
    return out


def _total(parts) -> Tensor:
    first, *rest = parts
    for part in rest:
        first = first + part
    return first


def _newly_held(kept: Gradients, given: Gradients) -> int:
    return 0 if kept is given else kept.n * kept.row_bytes


def _row_cost(a: Gradients) -> int:
    """Return the bytes one row of a tile takes: worked with, and captured for the purpose unless it is held."""
    return a.working_bytes + (0 if isinstance(a, Capture) else 2 * a.row_bytes)


def _least_tile(a: Gradients, b: Gradients) -> int:
    """Return the bytes of the smallest tile, one example with one."""
    item = 2 * a.theta.element_size()
    return a.several * _row_cost(a) + b.several * _row_cost(b) + item * a.several * b.several


def _tile_sides(a: Gradients, b: Gradients, free: int, symmetric: bool) -> tuple[int, int, int]:
    """Return the rows of a tile, its columns, and the bytes left for what one weight does with it.

    A tile of r x s takes r cost_a + s cost_b, and two copies of its r s numbers: one weight's part, and what that
    part is summed from.
    """
    item, cost, cost_ = 2 * a.theta.element_size(), _row_cost(a), _row_cost(b)
    work = min(TILE, free // 4)
    room = free - work
    if room < _least_tile(a, b):
        raise _too_small(free, _least_tile(a, b))
    if symmetric and a.n * cost + item * a.n**2 <= room:  # one tile, seen from both sides
        return a.n, a.n, work
    side = int((math.sqrt((cost + cost_) ** 2 + 4 * item * room) - cost - cost_) / (2 * item))
    rows = _whole(min(side, a.n), a.several)
    columns = rows if symmetric else _whole(int((room - rows * cost) / (cost_ + item * rows)), b.several)
    return rows, min(columns, b.n), work


def _row_tiles(a: Gradients, memory: int | None) -> tuple[list[slice], int]:
    """Return slices of rows that fit into the memory, and the bytes left for what one weight does with them."""
    free, cost = memory_limit(memory, a.theta.device), max(1, _row_cost(a))
    work = min(TILE, free // 4)
    if free - work < a.several * cost:
        raise _too_small(free, a.several * cost)
    return slices(a.n, _whole(min((free - work) // cost, a.n), a.several)), work


def _whole(rows: int, several: int) -> int:
    return max(several, rows // several * several)


def _too_small(free: int, least: int) -> ValueError:
    return ValueError(
        f"memory leaves {format_bytes(free)} for a tile, but the smallest tile (one example with one) takes "
        f"{format_bytes(-(-4 * least // 3))}; raise memory to at least that, or pass memory=None."
    )

"""The work of Hessians of groups and of moments of Gaussian layers: flops, bytes and launches of both routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from explainlib.kernels import build
from explainlib.kernels.groups import plain, program
from explainlib.kernels.moments import program as moments
from explainlib.kernels.report.roofline import BYTES, Piece, Work

KINDS = ("float32", "float32 tf32", "float64")
GROUP_LAUNCHES, MOMENT_LAUNCHES = 26, 9  # of one run of the plain routes, counted in a test
INDEX = 8  # bytes of a member's number


class Groups(NamedTuple):
    """Hessians of some groups of so many members each, of n examples, C classes and d features."""

    name: str
    groups: int
    members: int
    n: int
    C: int
    d: int


class Layer(NamedTuple):
    """A Gaussian layer of d inputs and o outputs on n examples (positions, where it is a convolution)."""

    name: str
    n: int
    d: int
    o: int


GROUPS = (
    Groups("iris, leave 10 of 120 out", 1000, 10, 120, 3, 5),
    Groups("digits, leave one out", 1000, 1, 1500, 10, 65),
    Groups("digits, leave 150 out", 100, 150, 1500, 10, 65),
    Groups("MNIST, leave 5,000 out", 16, 5000, 60000, 10, 785),
)
LAYERS = (
    Layer("dense 784 to 500, 256 examples", 256, 784, 500),
    Layer("conv 3x3, 64 to 64, 32x32, 64 pictures", 65536, 576, 64),
    Layer("conv 3x3, 512 to 512, 4x4, 64 pictures", 1024, 4608, 512),
)


def numbers(kind: str) -> tuple[torch.dtype, str]:
    """Return dtype and precision of a kind of numbers."""
    options = build.KINDS[kind]
    return options.get("dtype", torch.float32), options.get("precision", "ieee")


def group_work(case: Groups, kind: str, *, plain_route: bool) -> Work:
    """Return the work of ``group_hessians``.

    The kernel multiplies tiles from the diagonal up, twice where a tile meets a diagonal block, with their padding; it
    reads probabilities, features and members once and writes the blocks once. The plain route writes three gathered
    factors [C, d] a member, two of them again in another order, and copies the blocks twice.

    Args:
        case: the sizes.
        kind: of numbers.
        plain_route: the plain route, else the kernel.
    """
    size, side = BYTES[kind], case.C * case.d
    members, blocks = float(case.groups * case.members), float(case.groups * side**2)
    if not plain_route:
        tile = program.tiles_for(numbers(kind)[0])
        padded = case.groups * -(-case.members // tile.block) * tile.block
        tiles = list(_tiles(case.C, case.d, tile.side))
        products = sum(2.0 * (1 + meets) * padded * tile.side**2 for meets in tiles)
        read = case.n * (2.0 * case.C + case.d) * size + INDEX * (members + case.groups + 1)
        return Work((Piece(products, read + blocks * size, 3.0 * padded * tile.side * len(tiles)),), 1)
    runs = max(1, round(case.groups / max(1, _groups_of_a_run(case, size))))
    gathered, factors = members * (3 * case.C + 2 * case.d), members * side
    diagonal = float(case.groups * side * case.d)
    pieces = (
        Piece(0.0, (5 * gathered + 6 * factors) * size + 5 * INDEX * members, 3 * factors),
        Piece(2 * members * side**2, (2 * factors + blocks) * size),
        Piece(2 * members * side * case.d, (2 * factors + diagonal) * size),
        Piece(0.0, (4 * blocks + 4 * diagonal) * size, diagonal),
    )  # the last: the diagonal's sum, its place in a copy of the blocks, one tensor of all runs
    return Work(pieces, runs * GROUP_LAUNCHES)


def _groups_of_a_run(case: Groups, size: int) -> int:
    places = plain.MEMORY // ((3 * case.C * case.d + 3 * case.C + 2 * case.d) * size)
    return min(places // case.members, plain.MEMORY // (2 * (case.C * case.d) ** 2 * size))


def _tiles(C: int, d: int, side: int) -> Iterator[bool]:
    """Yield for each tile from the diagonal up whether a class of its rows is one of its columns."""
    starts = range(0, C * d, side)
    for row in starts:
        for column in starts[row // side :]:
            yield row // d <= (column + side - 1) // d and column // d <= (row + side - 1) // d


def moment_work(layer: Layer, kind: str, *, plain_route: bool) -> Work:
    """Return the work of ``linear_moments`` with a variance of the inputs and biases.

    Both routes multiply three times. The kernel reads inputs, weights and their variances once and writes both moments
    once, padding of its tiles included. The plain route reads factors and writes a result for each product, and squares
    and sums pass through memory.

    Args:
        layer: the sizes.
        kind: of numbers.
        plain_route: the plain route, else the kernel.

    Example: one number everywhere; the plain route reads and writes 9 numbers for three products, 10 for squares and
        sums, and 6 for biases.

        >>> work = moment_work(Layer("", 1, 1, 1), "float32", plain_route=True)
        >>> work.flops, work.bytes, work.launches
        (12.0, 100.0, 9)
    """
    size, (n, d, o) = BYTES[kind], layer[1:]
    if not plain_route:
        tile = moments.tiles_for(*numbers(kind))
        rows, columns = -(-n // tile.rows) * tile.rows, -(-o // tile.columns) * tile.columns
        width = -(-d // tile.block) * tile.block
        moved = float(2 * n * d + 2 * o * d + 2 * o + 2 * n * o)
        squares = width * (2.0 * rows * columns / tile.columns + columns * rows / tile.rows)
        return Work((Piece(6.0 * rows * columns * width, moved * size, squares + 2.0 * rows * columns),), 1)
    product = Piece(2.0 * n * d * o, float(n * d + o * d + n * o) * size)
    moved = [(2.0 * n * d, n * d), (2.0 * o * d, o * d), (3.0 * o * d, o * d), (3.0 * n * o, n * o)]
    moved += 2 * [(2.0 * n * o + o, n * o)]
    return Work((*3 * (product,), *(Piece(0.0, count * size, float(flops)) for count, flops in moved)), MOMENT_LAUNCHES)

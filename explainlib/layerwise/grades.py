r"""How exactly each number of a gradient is multiplied: in float32, as a whole number of 14 or 8 bits, or not at all.

In the bases of ``compression`` the numbers of a gradient M_i [o, d] differ in size by many orders. A number rounded to
units u_i is off by at most u_i / 2, with variance u_i^2 / 12, so rounding R_i, a part of each gradient, changes
<M_i, M_j> by about

    sqrt(u_i^2 |R_j|^2 + u_j^2 |R_i|^2) / sqrt(12),    u_i = max |R_i| / (the largest whole number),

which is small where both factors are. Numbers are taken in the order of their energy: from the smallest on they are
left out, then have one digit, then two, each as long as the error that is foreseen on a sample stays below its limit.
What is left is the core. In sorted bases the limits between grades are nearly monotone, so each becomes a staircase of
rectangles.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

TWO, ONE = 8127, 127  # 128 * 63.49: the largest number that leaves two digits' sum within 8 bits; and one digit's
NOISE = 1e-7  # error foreseen of each grade, relative to the lengths of the two gradients
LEFT_OUT = 4e-9  # energy left out
STEP = 8  # least directions of the input in one rectangle
GROWTH = 1.4  # of the rectangles' width, away from the largest energy
WIDEST = 2**16  # outputs of a layer, so that products of 8 bits sum within 32
COLUMNS = 6500  # numbers in one product of whole numbers: wider ones leave the caches
SPEED = 9  # products of whole numbers in the time of one in float32
ROUNDING = 400  # multiply-adds in float32 in the time one number is formed and rounded


class Tile(NamedTuple):
    """A rectangle of a gradient's numbers: directions of the input, and of the output."""

    inputs: slice
    outputs: slice

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return (self.inputs.stop - self.inputs.start) * (self.outputs.stop - self.outputs.start)


class Grades(NamedTuple):
    """The rectangles of each grade; together with those left out they cover a gradient."""

    core: list[Tile]
    two: list[Tile]
    one: list[Tile]
    none: list[Tile]

    def cost(self, rows: int, pairs: int | float) -> float:
        """Return the cost for a pair of gradients, in multiply-adds in float32."""
        core, two, one, _ = (sum(tile.numbers for tile in tiles) for tiles in self)
        return core + (3 * two + one) / SPEED + ROUNDING * rows / pairs * (two + one)


def graded(numbers: Float[Tensor, "k o d"]) -> Grades:
    """Return the grades of gradients like those of a sample.

    Args:
        numbers: gradients of length 1, in bases whose last directions hold the most energy.
    """
    squares = numbers.square()
    energy = squares.mean(0)
    limits = _limits(squares.flatten(1), energy.flatten())
    tiles: tuple[list[Tile], ...] = ([], [], [], [])
    o, d = energy.shape
    for inputs in _steps(d):
        height = energy[:, inputs].amax(1)
        stops = [_leading(height <= limit) for limit in limits]  # of none, one and two
        edges = [0, *torch.tensor(stops).cummax(0).values.tolist(), o]
        for grade, (start, stop) in zip(reversed(tiles), pairwise(edges), strict=True):
            if stop > start:
                grade.append(Tile(inputs, slice(start, stop)))
    return Grades(*tiles)


def _limits(squares: Float[Tensor, "k c"], energy: Float[Tensor, " c"]) -> list[float]:
    """Return the energies up to which numbers are left out, have one digit, and have two."""
    order = energy.argsort()
    below = energy[order].double().cumsum(0)
    peak = squares[:, order].cummax(1).values.mean(0)
    noise = (peak * below / 6).sqrt()
    counts = [int(within.sum()) for within in (below <= LEFT_OUT, noise <= ONE * NOISE, noise <= TWO * NOISE)]
    ordered = energy[order].tolist()
    return [ordered[count - 1] if count else -1.0 for count in counts]


def _steps(d: int) -> list[slice]:
    """Return slices of d directions, narrow at the end, where the energy falls off fast."""
    found, stop, width = [], d, float(STEP)
    while stop > 0:
        start = max(0, stop - int(width))
        found.append(slice(start, stop))
        stop, width = start, width * GROWTH
    return found[::-1]


def _leading(true: Tensor) -> int:
    """Return how many are true before the first that is not."""
    return int(true.int().cummin(0).values.sum())


def chunks(tiles: list[Tile], most: int) -> list[list[Tile]]:
    """Return the tiles in groups of ``most`` numbers and at most one direction more, cut where a group is full.

    A group is one product. Its rows share one unit each, so neighbours, which are alike, share a group.

    Args:
        tiles: in the order of the input's directions.
        most: numbers.
    """
    total = sum(tile.numbers for tile in tiles)
    most = max(1, min(most, COLUMNS))
    most = math.ceil(total / max(1, math.ceil(total / most)))  # groups of one size
    found: list[list[Tile]] = [[]]
    room = most
    for inputs, outputs in tiles:
        start, height = inputs.start, outputs.stop - outputs.start
        while start < inputs.stop:
            if room <= 0:
                found.append([])
                room = most
            stop = min(inputs.stop, start + math.ceil(room / height))
            found[-1].append(Tile(slice(start, stop), outputs))
            room -= (stop - start) * height
            start = stop
    return found if tiles else []

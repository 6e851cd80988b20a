"""How long an operation takes at least: its arithmetic at the GPU's peak, or its bytes at the memory's, the larger.

    seconds >= max(flops / peak + elementwise flops / peak without tensor cores, bytes / bandwidth)
               + launches x cost of a launch

The numbers are predicted: no kernel here has been timed. A kernel reaches a part of the peak; so does a library's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch

from explainlib.kernels import build, gram_triton

LAUNCH_COSTS = (2e-6, 5e-6, 10e-6)  # seconds that starting one kernel takes: an assumption, printed with each answer


class Gpu(NamedTuple):
    """Published peaks of one GPU, dense (no sparsity).

    Attributes:
        sm: compute capability times ten.
        processors: multiprocessors.
        clock: boost clock in hertz.
        bandwidth: of memory, bytes a second.
        cache: bytes of the second-level cache.
        peak: flops a second of matrix products, by kind of numbers; of float32 that of all its arithmetic.
        float64: flops a second of elementwise arithmetic in float64; in the other kinds it is that of float32.
        source: where the numbers are published.
    """

    sm: int
    processors: int
    clock: float
    bandwidth: float
    cache: int
    peak: dict[str, float]
    float64: float
    source: str


HOPPER = {"float32": 67e12, "float32 tf32": 494.5e12, "float16": 989.5e12, "bfloat16": 989.5e12, "float64": 67e12}
GPUS = {
    "A100 SXM 80 GB": Gpu(
        80, 108, 1.41e9, 2.039e12, 40 * 2**20,
        {"float32": 19.5e12, "float32 tf32": 156e12, "float16": 312e12, "bfloat16": 312e12, "float64": 19.5e12},
        9.7e12, "NVIDIA A100 Tensor Core GPU datasheet, 2021; architecture whitepaper, 2020",
    ),
    "H100 SXM": Gpu(
        90, 132, 1.98e9, 3.35e12, 50 * 2**20, HOPPER, 33.5e12, "NVIDIA H100 Tensor Core GPU datasheet, 2023",
    ),
    "H200 SXM": Gpu(
        90, 132, 1.98e9, 4.8e12, 50 * 2**20, HOPPER, 33.5e12, "NVIDIA H200 Tensor Core GPU datasheet, 2024",
    ),
}  # fmt: skip
BYTES = {"float32": 4, "float32 tf32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


class Piece(NamedTuple):
    """One step of an operation: flops of matrix products, bytes read and written, flops of elementwise arithmetic."""

    products: float
    bytes: float
    elementwise: float = 0.0


class Work(NamedTuple):
    """The work of one operation.

    Attributes:
        pieces: follow each other.
        launches: kernels started.
        cached: all operands stay in the cache, so that their bytes take no time.
    """

    pieces: tuple[Piece, ...]
    launches: int
    cached: bool = False

    @property
    def flops(self) -> float:
        """Return all flops."""
        return sum(piece.products + piece.elementwise for piece in self.pieces)

    @property
    def bytes(self) -> float:
        """Return all bytes read and written."""
        return sum(piece.bytes for piece in self.pieces)

    @property
    def intensity(self) -> float:
        """Return flops a byte."""
        return self.flops / self.bytes

    def seconds(self, gpu: Gpu, kind: str, launch_cost: float = 0.0) -> float:
        """Return the least time on one GPU.

        Args:
            gpu: one of ``GPUS``.
            kind: of numbers, a key of its peaks.
            launch_cost: seconds of each launch.
        """
        elementwise = gpu.float64 if kind == "float64" else gpu.peak["float32"]
        bound = sum(
            max(
                piece.products / gpu.peak[kind] + piece.elementwise / elementwise,
                0.0 if self.cached else piece.bytes / gpu.bandwidth,
            )
            for piece in self.pieces
        )
        return bound + self.launches * launch_cost


def gram_work(n: int, P: int, d: int, o: int, kind: str, *, plain: bool, memory: int = 2**30) -> Work:
    """Return the work of K[i, j] = sum_{p,q} (a_ip . a_jq)(g_ip . g_jq), two different sides of n examples.

    Products take 2 (nP)^2 (d + o) flops, and a product and a sum follow for each pair of positions. The kernel does
    this for whole tiles and blocks, padding included; it reads the factors once and writes K once, as if the cache held
    what programs share. The plain route writes both products of positions, reads them, writes their product, and reads
    it for the sums over q and p.

    Args:
        n: examples of each side.
        P: positions.
        d: width of the inputs.
        o: width of the output gradients.
        kind: of numbers.
        plain: the plain route, else the kernel.
        memory: bytes of products that the plain route holds at a time.

    Example: one pair, one position, one number each. 4 flops for two products and 1 for theirs; 4 numbers are read and
    2 written, 2 read and 1 written.

        >>> work = gram_work(1, 1, 1, 1, "float32", plain=True)
        >>> work.flops, work.bytes, work.launches
        (5.0, 36.0, 3)
    """
    return _plain_gram(n, P, d, o, kind, memory) if plain else _fused_gram(n, P, d, o, kind)


def _fused_gram(n: int, P: int, d: int, o: int, kind: str) -> Work:
    options = build.KINDS[kind]
    dtype, precision = options.get("dtype", torch.float32), options.get("precision", "ieee")
    tiles = gram_triton.tiles_for(n, P, n, P, dtype, precision)
    rows = -(-n // tiles.I) * -(-P // tiles.S) * gram_triton.SIDE
    width = sum(-(-k // tiles.BLOCK) * tiles.BLOCK for k in (d, o))
    numbers = 2 * n * P * (d + o) + n * n
    return Work((Piece(2.0 * rows**2 * width, float(numbers * BYTES[kind]), 2.0 * rows**2),), 1)


def _plain_gram(n: int, P: int, d: int, o: int, kind: str, memory: int) -> Work:
    size, pairs = max(BYTES[kind], 4), float(n * P) ** 2  # half precision is widened first
    rows = max(1, int((memory / (3 * P * P * size)) ** 0.5))
    tiles = (-(-n // rows)) ** 2
    pieces = [
        Piece(2 * pairs * d, 2.0 * n * P * d * size + pairs * size),
        Piece(2 * pairs * o, 2.0 * n * P * o * size + pairs * size),
        Piece(0.0, 3 * pairs * size, pairs),
    ]
    if P > 1:  # sums over q, then over p
        pieces.append(Piece(0.0, (pairs + 2 * pairs / P + n * n) * size, pairs))
    return Work(tuple(pieces), tiles * (5 if P > 1 else 3))


def perceptron_work(widths: tuple[int, ...], n: int, m: int, steps: int, kind: str, *, plain: bool, cache: int) -> Work:
    """Return the work of training m perceptrons by Adam for some full-batch steps.

    Both routes do 2 m n in out flops for each layer's values, its weights' gradient and (not the first) its inputs'
    gradient, and some twenty flops a parameter for Adam. The kernel reads its operands and writes the parameters, once.
    The batched route (``training/stacked``) writes and reads values, their gradients, parameters and Adam's moments in
    every step; where they all fit into the cache together their bytes take no time.

    Args:
        widths: of the inputs, hidden layers and outputs.
        n: examples.
        m: networks.
        steps: of Adam.
        kind: of numbers.
        plain: the batched route, else the kernel.
        cache: bytes of the GPU's second-level cache.
    """
    size, layers = BYTES[kind], list(pairwise(widths))
    parameters = float(m * sum((a + 1) * b for a, b in layers))
    if not plain:
        products = 2.0 * m * n * (3 * sum(a * b for a, b in layers) - layers[0][0] * layers[0][1])
        read = (m * n + n * widths[0]) * size + 2 * parameters * size
        return Work((Piece(steps * products, read, steps * 20 * parameters),), 1)
    step = _batched_step(layers, n, m, parameters)
    alive = (5 * parameters + 2 * m * n * sum(widths[1:])) * size
    pieces = tuple(Piece(steps * p.products, steps * size * p.bytes, steps * p.elementwise) for p in step)
    return Work(pieces, steps * len(step), alive <= cache)


def _batched_step(layers: list[tuple[int, int]], n: int, m: int, parameters: float) -> list[Piece]:
    """Return one step of the batched route, a piece for each kernel it starts; bytes as counts of numbers."""
    values = [float(m * n * width) for _, width in layers]
    weights = [float(m * (a + 1) * b) for a, b in layers]
    products = [2.0 * n * w for w in weights]
    step = [Piece(products[0], weights[0] + values[0])]
    for k in range(1, len(layers)):
        step += [Piece(0.0, 2 * values[k - 1], values[k - 1])]  # activation
        step += [Piece(products[k], values[k - 1] + weights[k] + values[k])]
    step += 3 * [Piece(0.0, 2 * values[-1], values[-1])]  # softmax, minus the wanted, times the weights
    for k in range(len(layers) - 1, 0, -1):
        step += 2 * [Piece(products[k], values[k - 1] + weights[k] + values[k])]  # of the weights, of the inputs
        step += [Piece(0.0, 3 * values[k - 1], values[k - 1])]
    step += [Piece(products[0], weights[0] + values[0])]
    return step + [Piece(0.0, moved * parameters, parameters) for moved in (3, 3, 2, 3, 2, 2, 2, 4)]  # ridge, then Adam


def issue_seconds(gpu: Gpu, m: int, warps: int, instructions: float | int) -> float:
    """Return the least seconds in which m programs can issue their instructions.

    A multiprocessor issues four instructions a cycle, one for each of as many warps; a warp issues one at most.

    Args:
        gpu: one of ``GPUS``.
        m: programs.
        warps: of a program.
        instructions: that each warp executes.
    """
    return instructions / gpu.clock * max(1.0, m * warps / (4 * gpu.processors))

"""How long an operation takes at least: its arithmetic at the GPU's peak, or its bytes at the memory's, the larger.

    seconds >= max(flops / peak + elementwise flops / peak without tensor cores, bytes / bandwidth)
               + launches x cost of a launch

The numbers are predicted: no kernel here has been timed. A kernel reaches a part of the peak; so does a library's.
"""

from __future__ import annotations

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
        peak: flops a second of matrix products, by kind of numbers; of float32 that of all its arithmetic.
        float64: flops a second of elementwise arithmetic in float64; in the other kinds it is that of float32.
        source: where the numbers are published.
    """

    sm: int
    processors: int
    clock: float
    bandwidth: float
    peak: dict[str, float]
    float64: float
    source: str


HOPPER = {"float32": 67e12, "float32 tf32": 494.5e12, "float16": 989.5e12, "bfloat16": 989.5e12, "float64": 67e12}
GPUS = {
    "A100 SXM 80 GB": Gpu(
        80, 108, 1.41e9, 2.039e12,
        {"float32": 19.5e12, "float32 tf32": 156e12, "float16": 312e12, "bfloat16": 312e12, "float64": 19.5e12},
        9.7e12, "NVIDIA A100 Tensor Core GPU datasheet, 2021; architecture whitepaper, 2020",
    ),
    "H100 SXM": Gpu(90, 132, 1.98e9, 3.35e12, HOPPER, 33.5e12, "NVIDIA H100 Tensor Core GPU datasheet, 2023"),
    "H200 SXM": Gpu(90, 132, 1.98e9, 4.8e12, HOPPER, 33.5e12, "NVIDIA H200 Tensor Core GPU datasheet, 2024"),
}  # fmt: skip
BYTES = {"float32": 4, "float32 tf32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


class Piece(NamedTuple):
    """One step of an operation: flops of matrix products, bytes read and written, flops of elementwise arithmetic."""

    products: float
    bytes: float
    elementwise: float = 0.0


class Work(NamedTuple):
    """The work of one operation: pieces that follow each other, and how many kernels it starts."""

    pieces: tuple[Piece, ...]
    launches: int

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
            max(piece.products / gpu.peak[kind] + piece.elementwise / elementwise, piece.bytes / gpu.bandwidth)
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

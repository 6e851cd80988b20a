"""How long the fused Gram takes, beside its plain reference and the memory floor.

The floor is the time in which the GPU, as fast as it copies, reads the factors once and writes the result once. No
method can be faster; the plain reference also writes and reads every product of positions.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from explainlib.kernels import reference
from explainlib.kernels.choice import use
from explainlib.kernels.gram import layer_gram
from explainlib.kernels.self_check import relative_error

ROUNDS = 7
REFERENCE_MEMORY = 2**30  # bytes of position products the reference may hold: on a GPU, larger tiles are faster
COPY_BYTES = 2**28  # bytes, more than any cache holds


class Layer(NamedTuple):
    """One shape to time: n examples on each side, P positions, widths d and o."""

    name: str
    n: int
    P: int
    d: int
    o: int


LAYERS = (
    Layer("dense 784 to 56", 4096, 1, 784, 56),
    Layer("conv 3x3, 1 to 32, 26x26", 256, 676, 9, 32),
    Layer("conv 3x3, 32 to 32, 12x12", 512, 144, 288, 32),
    Layer("conv 3x3, 64 to 64, 14x14", 256, 196, 576, 64),
    Layer("conv 1x1, 32 to 32, 14x14", 512, 196, 32, 32),
    Layer("text, 64 tokens, 256 to 256", 512, 64, 256, 256),
)
KINDS = ((torch.float32, "ieee"), (torch.float32, "tf32"), (torch.bfloat16, "ieee"))


class Timing(NamedTuple):
    """One line of the table, in milliseconds; ``error`` is the kernel's against the plain reference in float64."""

    layer: Layer
    kind: str
    kernel: float
    plain: float
    floor: float
    error: float

    def __str__(self) -> str:
        """Return the line, in the order of ``HEAD``."""
        n, P, d, o = self.layer[1:]
        rate = 2 * (n * P) ** 2 * (d + o) / self.kernel / 1e9
        return (
            f"{self.layer.name:<28}{n:>6}{P:>5} {self.kind:<14}{self.kernel:>10.3f}{self.plain:>10.3f}"
            f"{self.plain / self.kernel:>7.1f}x{self.floor:>10.3f}{rate:>10.1f}   {self.error:.0e}"
        )


HEAD = (
    f"{'layer':<28}{'n':>6}{'P':>5} {'numbers':<14}{'kernel ms':>10}{'plain ms':>10}{'':>8}{'floor ms':>10}"
    f"{'TFLOP/s':>10}   error"
)


def milliseconds(function: Callable[[], object], device: str) -> float:
    """Return the median time of one call, after one call to warm up."""
    function()
    times = []
    for _ in range(ROUNDS):
        synchronise(device)
        start = time.perf_counter()
        function()
        synchronise(device)
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def synchronise(device: str) -> None:
    """Wait until the device has done all it was given."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def bytes_per_millisecond(device: str, size: int = COPY_BYTES) -> float:
    """Return how much memory traffic (read and written) the device manages in a copy."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / milliseconds(lambda: target.copy_(source), device)


def fused(*given: Tensor, precision: str) -> Tensor:
    """Return the kernel's Gram."""
    with use("triton"):
        return layer_gram(*given, precision=precision)


def layer_timing(
    layer: Layer,
    dtype: torch.dtype,
    precision: str,
    *,
    device: str,
    traffic: float,
    kernel: Callable[..., Tensor] = fused,
) -> Timing:
    """Return the times of one layer, two different sets of examples on its sides.

    Args:
        layer: the shape.
        dtype: of the factors.
        precision: of the kernel's products; the reference runs with tf32 too if this is "tf32".
        device: "cuda", or "cpu" to try the bench itself.
        traffic: bytes a millisecond, from ``bytes_per_millisecond``.
        kernel: called with the four factors and ``precision``.

    Returns:
        Milliseconds, and the error of the kernel on the first 8 examples of each side.
    """
    generator = torch.Generator(device).manual_seed(0)
    n, P, d, o = layer[1:]
    given = [
        torch.randn(n, P, k, generator=generator, device=device, dtype=torch.float32).to(dtype) for k in (d, o, d, o)
    ]
    few = [x[:8] for x in given]
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        plain = milliseconds(lambda: reference.layer_gram(*given, memory=REFERENCE_MEMORY), device)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    written = (sum(x.numel() for x in given) + n * n) * given[0].element_size()
    return Timing(
        layer,
        f"{str(dtype).removeprefix('torch.')} {precision if dtype == torch.float32 else ''}".strip(),
        milliseconds(lambda: kernel(*given, precision=precision), device),
        plain,
        written / traffic,
        relative_error(kernel(*few, precision=precision), reference.layer_gram(*(x.double() for x in few))),
    )


def table(device: str = "cuda", layers: Sequence[Layer] = LAYERS, *, kernel: Callable[..., Tensor] = fused) -> str:
    """Return every layer in every kind of number, as text that names its columns."""
    traffic = bytes_per_millisecond(device, COPY_BYTES if device != "cpu" else 2**20)
    lines = [f"memory: {traffic / 1e9:.2f} TB/s in a copy", HEAD]
    for layer in layers:
        for dtype, precision in KINDS:
            lines.append(str(layer_timing(layer, dtype, precision, device=device, traffic=traffic, kernel=kernel)))
    return "\n".join(lines)

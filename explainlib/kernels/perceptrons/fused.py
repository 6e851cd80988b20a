"""The launch of the kernel that trains small perceptrons: its constants, its limits, its operands."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.kernels.gram_triton import FP_FUSION
from explainlib.kernels.perceptrons.options import Options
from explainlib.kernels.perceptrons.program import _train

CHUNK = 16  # inputs of the first layer at a time, the fewest numbers that tl.dot sums over
BETA1, BETA2 = 0.9, 0.999  # of Adam, as torch.optim.Adam; the kernel has them as literals
# Of each dtype and number of hidden layers, the largest inputs, hidden layers and classes: no build up to there spills.
LIMITS = {
    (torch.float32, 1): ((64, 32, 16), (16, 64, 8)),
    (torch.float32, 2): ((16, 8, 8),),
    (torch.float64, 1): ((4, 32, 4), (16, 8, 8)),
    (torch.float64, 2): ((4, 8, 4),),
}


class Build(NamedTuple):
    """The constants of one build.

    Attributes:
        widths: of the inputs, hidden layers and outputs.
        padded: powers of two that hold them; the first is that of a chunk of inputs.
        chunks: of inputs.
        block: examples at a time.
        warps: of one program.
    """

    widths: tuple[int, ...]
    padded: tuple[int, ...]
    chunks: int
    block: int
    warps: int


def build_for(widths: tuple[int, ...], dtype: torch.dtype) -> Build:
    """Return the constants for networks of these widths, with which no build spills."""
    inputs = min(CHUNK, power_of_two(widths[0]))
    padded = (inputs, *map(power_of_two, widths[1:]))
    chunks = -(-widths[0] // inputs)
    numbers = chunks * inputs * padded[1] + sum(a * b for a, b in pairwise(padded[1:]))
    threads = numbers // 4 if dtype == torch.float32 else numbers
    warps = next(warps for warps in (1, 2, 4, 8) if 32 * warps >= threads or warps == 8)
    return Build(widths, padded, chunks, 16 if dtype == torch.float32 and len(widths) == 3 else 8, warps)


def fits(widths: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Return whether networks of these widths fit into registers on every architecture, built with all options."""
    limits = LIMITS.get((dtype, len(widths) - 2))
    return limits is not None and any(
        widths[0] <= inputs and max(widths[1:-1]) <= hidden and widths[-1] <= classes
        for inputs, hidden, classes in limits
    )


def power_of_two(width: int) -> int:
    """Return the least power of two that is not below ``width``, at least 2."""
    return max(2, 1 << (width - 1).bit_length())


def parameters(widths: tuple[int, ...]) -> int:
    """Return how many weights and biases a perceptron has."""
    return sum((a + 1) * b for a, b in pairwise(widths))


def launch(
    x: Float[Tensor, "n d"],
    y: Int[Tensor, " n"],
    weights: Float[Tensor, "m n"],
    starts: Float[Tensor, "m p"],
    options: Options,
) -> Float[Tensor, "m p"]:
    """Return the trained parameters of all networks, from one launch; arguments as in ``trained_perceptrons``."""
    widths, activation, epochs, lr, optimizer, l2, plateau, batches = options
    build, given = build_for(widths, starts.dtype), batches is not None
    x, y, weights, starts = (tensor.contiguous() for tensor in (x, y, weights, starts))
    (count, size), rows = (batches.shape, batches.contiguous()) if given else ((1, len(x)), y)
    steps, out = epochs * count, torch.empty_like(starts)
    numbers = starts.new_tensor([lr, l2, *(plateau or (1.0, 0, 0.0, 0.0))])
    with torch.cuda.device(starts.device) if starts.is_cuda else nullcontext():
        _train[(len(starts),)](
            x, y, weights, starts, rows, numbers, bias_corrections(steps).to(starts), out, len(x), size, count, steps,
            *constants(
                build, activation, adam=optimizer == "adam", plateau=plateau is not None, given=given
            ).values(),
            **compiler_options(build),
        )  # fmt: skip
    return out


def bias_corrections(steps: int) -> Float[Tensor, "t 2"]:
    """Return 1 - beta1^t and the root of 1 - beta2^t for t = 1 ... steps, in float64."""
    t = torch.arange(1, steps + 1, dtype=torch.float64)
    return torch.stack([1 - BETA1**t, (1 - BETA2**t).sqrt()], 1)


def constants(build: Build, activation: str, *, adam: bool, plateau: bool, given: bool) -> dict[str, object]:
    """Return the constants of a build, in the kernel's order."""
    return {
        "WIDTHS": build.widths, "PADDED": build.padded, "CHUNKS": build.chunks, "NUMBERS": parameters(build.widths),
        "BLOCK": build.block, "ACTIVATION": activation, "ADAM": adam, "PLATEAU": plateau, "GIVEN": given,
    }  # fmt: skip


def compiler_options(build: Build) -> dict[str, object]:
    """Return what a build is compiled with."""
    return {"num_warps": build.warps, "num_stages": 1, "maxnreg": 255, "enable_fp_fusion": FP_FUSION}

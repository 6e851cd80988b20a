"""Ahead-of-time builds of the kernel that trains small perceptrons."""

from __future__ import annotations

import torch

from explainlib.kernels.build import POINTERS, compiled, require_builds
from explainlib.kernels.perceptrons import fused, program

TENSORS = ("x", "weights", "starts", "options", "unbiased", "out")
NUMBERS = ("y", "batches")


def build_perceptrons(
    sm: int,
    widths: tuple[int, ...],
    dtype: torch.dtype = torch.float32,
    *,
    activation: str = "relu",
    adam: bool = True,
    plateau: bool = True,
    given: bool = False,
) -> dict[str, str | bytes | int]:
    """Return the code of the kernel for one GPU architecture and one shape of network, as ``kernels.build.build``.

    Args:
        sm: compute capability times ten.
        widths: of the inputs, hidden layers and outputs.
        dtype: float32 or float64.
        activation: of the hidden layers.
        adam: Adam, else gradient descent.
        plateau: with rates that fall.
        given: in given batches.

    Raises:
        RuntimeError: nothing can be built here.
    """
    require_builds()
    build = fused.build_for(widths, dtype)
    constants = fused.constants(build, activation, adam=adam, plateau=plateau, given=given)
    kinds = dict.fromkeys(TENSORS, POINTERS[dtype]) | dict.fromkeys(NUMBERS, "*i64")
    kinds |= dict.fromkeys(("n", "size", "count", "steps"), "i32")
    return compiled(program._train, sm, kinds, constants, {*TENSORS, *NUMBERS}, fused.compiler_options(build))


def programs(widths: tuple[int, ...], dtype: torch.dtype) -> tuple[int, int]:
    """Return how many examples a program takes at a time, and its warps.

    Args:
        widths: of the inputs, hidden layers and outputs.
        dtype: float32 or float64.
    """
    build = fused.build_for(widths, dtype)
    return build.block, build.warps

"""Ahead-of-time builds of the kernel for Hessian blocks of groups."""

from __future__ import annotations

import torch

from explainlib.kernels.build import POINTERS, argument_kinds, compiled, require_builds
from explainlib.kernels.groups import program

FACTORS = ("a", "u", "v", "x", "y", "out")
GROUPS = ("members", "offsets")
COUNTS = ("groups", "C", "d")
CONTIGUOUS = ("a_c", "u_c", "v_c", "x_k", "y_k")  # steps of 1, which Triton builds into the code, as at a launch
LAYOUTS = {
    "": {"symmetric": True},
    "not symmetric": {"symmetric": False},
    "strided": {"symmetric": True, "contiguous": False},
    "aligned": {"symmetric": True, "aligned": True},
}


def build_groups(
    sm: int,
    dtype: torch.dtype = torch.float32,
    *,
    precision: str = "ieee",
    symmetric: bool = True,
    contiguous: bool = True,
    aligned: bool = False,
) -> dict[str, str | bytes | int]:
    """Return the code of the kernel for one GPU architecture, as ``kernels.build.build``.

    Args:
        sm: compute capability times ten.
        dtype: float32 or float64.
        precision: "ieee" or "tf32".
        symmetric: the build for Hessians, else for tangents.
        contiguous: the build for numbers that lie side by side.
        aligned: the build for widths and strides that are multiples of 16.

    Raises:
        RuntimeError: nothing can be built here.
    """
    require_builds()
    tiles = program.tiles_for(dtype)
    fixed = (dict.fromkeys(CONTIGUOUS, 1) if contiguous else {}) | program.constants(
        tiles, dtype, symmetric=symmetric, precision=precision
    )
    pointers = dict.fromkeys(FACTORS, POINTERS[dtype]) | dict.fromkeys(GROUPS, "*i64")
    kernel = program._group_products
    kinds, known = argument_kinds(kernel.arg_names, fixed, pointers, COUNTS, aligned=aligned)
    return compiled(kernel, sm, kinds, fixed, known, program.compiler_options(tiles))

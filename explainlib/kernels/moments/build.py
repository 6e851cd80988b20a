"""Ahead-of-time builds of the kernel for moments of Gaussian layers."""

from __future__ import annotations

import torch

from explainlib.kernels.build import POINTERS, argument_kinds, compiled, require_builds
from explainlib.kernels.moments import program

TENSORS = ("mean", "variance", "weight", "spread", "bias", "bias_spread", "out_mean", "out_variance")
COUNTS = ("n", "o", "d")
CONTIGUOUS = ("m_d", "v_d", "w_d", "s_d", "c_o", "t_o")  # steps of 1, which Triton builds into the code
LAYOUTS = {
    "": {},
    "known inputs": {"random": False},
    "strided": {"contiguous": False},
    "aligned": {"aligned": True},
}


def build_moments(
    sm: int,
    dtype: torch.dtype = torch.float32,
    *,
    precision: str = "ieee",
    random: bool = True,
    bias: bool = True,
    contiguous: bool = True,
    aligned: bool = False,
) -> dict[str, str | bytes | int]:
    """Return the code of the kernel for one GPU architecture, as ``kernels.build.build``.

    Args:
        sm: compute capability times ten.
        dtype: float32 or float64.
        precision: "ieee" or "tf32".
        random: the build for inputs with a variance.
        bias: the build for layers with biases.
        contiguous: the build for numbers that lie side by side.
        aligned: the build for widths and strides that are multiples of 16.

    Raises:
        RuntimeError: nothing can be built here.
    """
    require_builds()
    tiles = program.tiles_for(dtype, precision)
    fixed = (dict.fromkeys(CONTIGUOUS, 1) if contiguous else {}) | program.constants(
        tiles, dtype, random=random, bias=bias, precision=precision
    )
    kernel, pointers = program._linear_moments, dict.fromkeys(TENSORS, POINTERS[dtype])
    kinds, known = argument_kinds(kernel.arg_names, fixed, pointers, COUNTS, aligned=aligned)
    return compiled(kernel, sm, kinds, fixed, known, program.compiler_options(tiles))

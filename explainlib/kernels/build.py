"""Ahead-of-time builds of the kernels for a named GPU, on a machine that need not have one.

A build shows that the kernel is legal Triton for that GPU and that its machine code assembles; ``report`` reads its
registers, spills and shared memory. Needs a process in which Triton's interpreter is off.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from explainlib.kernels import gram_triton
from explainlib.kernels.choice import unfit_versions

POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}
TARGETS = (80, 90, 100)
KINDS = {  # of numbers: what the dispatch of the Gram can ask for
    "float32": {},
    "float32 tf32": {"precision": "tf32"},
    "float16": {"dtype": torch.float16},
    "bfloat16": {"dtype": torch.bfloat16},
    "float64": {"dtype": torch.float64},
}
LAYOUTS = {  # of memory and of the two sides, as a launch specialises them
    "": {},
    "symmetric": {"symmetric": True},
    "aligned": {"aligned": True},
    "aligned symmetric": {"aligned": True, "symmetric": True},
    "strided symmetric": {"contiguous": False, "symmetric": True},
}
ARRAYS = ("a_i", "g_i", "a_j", "g_j", "out")
COUNTS = ("n", "m", "P", "Q")
CONTIGUOUS = ("ai_d", "gi_o", "aj_d", "gj_o")  # steps of 1, which Triton builds into the code, as at a launch
ALIGNMENT = [["tt.divisibility", 16]]  # of pointers in bytes, as torch allocates them


def build(
    sm: int,
    dtype: torch.dtype = torch.float32,
    *,
    symmetric: bool = False,
    precision: str = "ieee",
    aligned: bool = False,
    contiguous: bool = True,
    sides: tuple[int, int, int, int] | None = None,
) -> dict[str, str | bytes | int]:
    """Return the code of the fused Gram for one GPU architecture.

    Args:
        sm: its compute capability times ten: 80 (A100), 90 (H100, H200), 100 (B200).
        dtype: of the inputs.
        symmetric: the build for two equal sides.
        precision: "ieee" or "tf32".
        aligned: the build for widths and strides that are multiples of 16.
        contiguous: the build for numbers that lie side by side.
        sides: examples and positions of the tile's left and right side; None is that of 64 examples, 49 positions.

    Returns:
        "ptx": assembly as text; "cubin": machine code; "shared": bytes of shared memory a program asks for; "warps".

    Raises:
        RuntimeError: Triton is not installed or too old, or its interpreter is on.
    """
    require_builds()
    tiles = gram_triton.tiles_for(64, 49, 64, 49, dtype, precision, aligned=aligned and contiguous)
    if sides is not None:
        tiles = tiles._replace(I=sides[0], S=sides[1], J=sides[2], T=sides[3])
    chosen = gram_triton.constants(tiles, dtype, symmetric=symmetric, precision=precision)
    fixed = (dict.fromkeys(CONTIGUOUS, 1) if contiguous else {}) | chosen
    names = gram_triton._gram.arg_names
    kinds = {name: POINTERS[dtype] if name in ARRAYS else "i32" for name in names if name not in fixed}
    known = {*ARRAYS, *(set(kinds) - set(COUNTS) if aligned else ())}
    return compiled(gram_triton._gram, sm, kinds, fixed, known, gram_triton.compiler_options(tiles))


def require_builds() -> None:
    """Raise a RuntimeError, with the remedy, where nothing can be built."""
    if gram_triton.triton is None:
        raise RuntimeError("Triton is not installed: pip install 'explainlib[cuda]'.")
    if unfit := unfit_versions(interpreted=False):
        raise RuntimeError(unfit)
    if gram_triton.interpreted():
        raise RuntimeError("Triton's interpreter is on and builds nothing; unset TRITON_INTERPRET and start again.")


def argument_kinds(
    names: Collection[str],
    fixed: Collection[str],
    pointers: dict[str, str],
    counts: Collection[str],
    *,
    aligned: bool,
) -> tuple[dict[str, str], set[str]]:
    """Return the types of a kernel's arguments that are no constants, and those that are multiples of 16.

    Args:
        names: all arguments.
        fixed: the constants.
        pointers: the types of the tensors; every other argument is an int32.
        counts: sizes, whose multiples nobody promises.
        aligned: whether widths and strides are multiples of 16; tensors always are.
    """
    kinds = {name: "i32" for name in names if name not in fixed} | pointers
    return kinds, {*pointers, *(set(kinds) - set(counts) if aligned else ())}


def compiled(
    kernel: object,
    sm: int,
    kinds: dict[str, str],
    constants: dict[str, object],
    aligned: Collection[str],
    options: dict[str, object],
) -> dict[str, str | bytes | int]:
    """Return the code of any kernel.

    Args:
        kernel: a Triton function.
        sm: compute capability times ten.
        kinds: the types of the arguments that are no constants: "*fp32", "i32".
        constants: the others.
        aligned: pointers and numbers that are multiples of 16.
        options: of the compiler.

    Returns:
        As ``build``.
    """
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    source = ASTSource(
        kernel,
        {name: kinds.get(name, "constexpr") for name in names},
        constexprs=constants,
        attrs={(k,): ALIGNMENT for k, name in enumerate(names) if name in aligned},
    )
    code = gram_triton.triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options)
    return {
        "ptx": code.asm["ptx"], "cubin": code.asm["cubin"], "shared": code.metadata.shared,
        "warps": options["num_warps"],
    }  # fmt: skip

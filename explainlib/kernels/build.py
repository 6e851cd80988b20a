"""Ahead-of-time builds of the kernels for a named GPU, on a machine that need not have one.

A build shows that the kernel is legal Triton for that GPU and that its machine code assembles. Needs a process in
which Triton's interpreter is off.
"""

from __future__ import annotations

import torch

from explainlib.kernels import gram_triton
from explainlib.kernels.choice import unfit_versions

POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
}
TARGETS = (80, 90)
VARIANTS = {
    "float32": {},
    "float32 symmetric, far": {"symmetric": True, "far": True},
    "float32 tf32": {"precision": "tf32"},
    "float16": {"dtype": torch.float16},
    "bfloat16": {"dtype": torch.bfloat16},
    "float64": {"dtype": torch.float64},
}
ARRAYS = ("a_i", "g_i", "a_j", "g_j", "out")
CONTIGUOUS = ("ai_d", "gi_o", "aj_d", "gj_o")  # steps of 1, which Triton builds into the code, as at a launch
ALIGNMENT = [["tt.divisibility", 16]]  # of pointers in bytes, as torch allocates them


def build(
    sm: int, dtype: torch.dtype = torch.float32, *, symmetric: bool = False, precision: str = "ieee", far: bool = False
) -> dict[str, str | bytes]:
    """Return the code of the fused Gram for one GPU architecture.

    Args:
        sm: its compute capability times ten: 80 (A100), 90 (H100), 100 (B200).
        dtype: of the inputs.
        symmetric: the build for two equal sides.
        precision: "ieee" or "tf32".
        far: the build for tensors of more than 2^31 numbers.

    Returns:
        "ptx": assembly as text; "cubin": machine code.

    Raises:
        RuntimeError: Triton is not installed or too old, or its interpreter is on.
    """
    if gram_triton.triton is None:
        raise RuntimeError("Triton is not installed: pip install 'explainlib[cuda]'.")
    if unfit := unfit_versions(interpreted=False):
        raise RuntimeError(unfit)
    if gram_triton.interpreted():
        raise RuntimeError("Triton's interpreter is on and builds nothing; unset TRITON_INTERPRET and start again.")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    tiles = gram_triton.tiles_for(64, 49, 64, 49, dtype, precision)
    chosen = gram_triton.constants(tiles, dtype, symmetric=symmetric, precision=precision, far=far)
    fixed = dict.fromkeys(CONTIGUOUS, 1) | chosen
    names = gram_triton._gram.arg_names
    kinds = {name: "constexpr" if name in fixed else POINTERS[dtype] if name in ARRAYS else "i32" for name in names}
    source = ASTSource(
        gram_triton._gram, kinds, constexprs=fixed, attrs={(names.index(name),): ALIGNMENT for name in ARRAYS}
    )
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages, "enable_fp_fusion": gram_triton.FP_FUSION}
    code = gram_triton.triton.compile(source, target=GPUTarget("cuda", sm, 32), options=options).asm
    return {"ptx": code["ptx"], "cubin": code["cubin"]}

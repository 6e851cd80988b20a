"""The fused Gram as an autograd function: its vjp, its jvp and its rule for vmap.

Autograd cannot look into a kernel. K is linear in each argument, so its tangent is a sum of kernels with one argument
replaced by its tangent; its cotangents are plain PyTorch (``reference.factor_cotangent``). Both can be differentiated
again.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from explainlib.kernels import gram_triton
from explainlib.kernels.reference import factor_cotangent


class FusedGram(torch.autograd.Function):
    """K [b, n, m] of a_i [b, n, P, d], g_i, a_j [b, m, Q, d], g_j, and the options symmetric and precision."""

    @staticmethod
    def forward(a_i: Tensor, g_i: Tensor, a_j: Tensor, g_j: Tensor, symmetric: bool, precision: str) -> Tensor:
        """Return the kernel's result."""
        factors = map(in_memory, (a_i, g_i, a_j, g_j))
        return gram_triton.launch(*factors, symmetric=symmetric, precision=precision)

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        """Save the arguments; all derivatives are functions of them."""
        ctx.save_for_backward(*inputs[:4])
        ctx.save_for_forward(*inputs[:4])
        ctx.precision = inputs[5]

    @staticmethod
    def backward(ctx: FunctionCtx, v: Tensor) -> tuple[Tensor | None, ...]:
        """Return the cotangents of the arguments that need one."""
        a_i, g_i, a_j, g_j = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            factor_cotangent(v, g_i, a_j, g_j) if wanted[0] else None,
            factor_cotangent(v, a_i, g_j, a_j) if wanted[1] else None,
            factor_cotangent(v.transpose(-1, -2), g_j, a_i, g_i) if wanted[2] else None,
            factor_cotangent(v.transpose(-1, -2), a_j, g_i, a_i) if wanted[3] else None,
            None,
            None,
        )

    @staticmethod
    def jvp(ctx: FunctionCtx, *tangents: Tensor | None) -> Tensor:
        """Return the sum over the arguments of K with that argument replaced by its tangent."""
        saved = ctx.saved_tensors
        terms = [
            FusedGram.apply(*saved[:k], tangent, *saved[k + 1 :], False, ctx.precision)
            for k, tangent in enumerate(tangents[:4])
            if tangent is not None
        ]
        return torch.stack(terms).sum(0)

    @staticmethod
    def vmap(
        info: object, in_dims: tuple[int | None, ...], a_i: Tensor, g_i: Tensor, a_j: Tensor, g_j: Tensor,
        symmetric: bool, precision: str,
    ) -> tuple[Tensor, int]:  # fmt: skip
        """Return one launch for the whole map: more examples if one side is mapped, more batches if both are."""
        size = info.batch_size
        mapped = [dim is not None for dim in in_dims[:4]]
        a_i, g_i, a_j, g_j = tensors = (a_i, g_i, a_j, g_j)
        whole = [batch_dim_first(x, dim, size) for x, dim in zip(tensors, in_dims[:4], strict=True)]
        if not any(mapped[2:]):
            left = [x.transpose(0, 1).flatten(1, 2) for x in whole[:2]]
            return FusedGram.apply(*left, a_j, g_j, False, precision).unflatten(1, (size, -1)), 1
        if not any(mapped[:2]):
            right = [x.transpose(0, 1).flatten(1, 2) for x in whole[2:]]
            return FusedGram.apply(a_i, g_i, *right, False, precision).unflatten(2, (size, -1)), 2
        return FusedGram.apply(*(x.flatten(0, 1) for x in whole), symmetric, precision).unflatten(0, (size, -1)), 0


def batch_dim_first(x: Tensor, dim: int | None, size: int) -> Tensor:
    """Return x with the mapped dimension first; an argument that is not mapped is repeated without a copy."""
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)


def in_memory(x: Tensor) -> Tensor:
    """Return x; as numbers in memory where it is one of the zeros that autograd's forward mode keeps without any."""
    return torch.zeros(x.shape, dtype=x.dtype, device=x.device) if x._is_zerotensor() else x

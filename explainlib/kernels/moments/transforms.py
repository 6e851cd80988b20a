"""The kernel of linear moments as an autograd function; its tangents and cotangents are plain PyTorch (``plain``)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from explainlib.kernels.moments import program
from explainlib.kernels.moments.plain import cotangents, tangents
from explainlib.kernels.transforms import batch_dim_first, in_memory

ARGUMENTS = 6


class FusedMoments(torch.autograd.Function):
    """Both moments [b, n, o] of mean, variance, weight, spread, bias and bias_spread (or None), and precision."""

    @staticmethod
    def forward(*given: object) -> tuple[Tensor, Tensor]:
        """Return the kernel's result."""
        tensors = (x if x is None else in_memory(x) for x in given[:ARGUMENTS])
        return program.launch(*tensors, precision=given[ARGUMENTS])

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        """Save the arguments; all derivatives are functions of them."""
        ctx.save_for_backward(*inputs[:ARGUMENTS])
        ctx.save_for_forward(*inputs[:ARGUMENTS])

    @staticmethod
    def backward(ctx: FunctionCtx, of_mean: Tensor, of_variance: Tensor) -> tuple[Tensor | None, ...]:
        """Return the cotangents of the six tensors."""
        return *cotangents(ctx.saved_tensors, of_mean, of_variance), None

    @staticmethod
    def jvp(ctx: FunctionCtx, *moved: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the tangents of both moments."""
        return tangents(ctx.saved_tensors, moved[:ARGUMENTS])

    @staticmethod
    def vmap(
        info: object, in_dims: tuple[int | None, ...], *given: object
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Return one launch for the whole map: more batches."""
        size = info.batch_size
        whole = [
            None if x is None else batch_dim_first(x, dim, size).flatten(0, 1)
            for x, dim in zip(given[:ARGUMENTS], in_dims[:ARGUMENTS], strict=True)
        ]
        found = FusedMoments.apply(*whole, given[ARGUMENTS])
        return tuple(x.unflatten(0, (size, -1)) for x in found), (0, 0)
